// nf-pack: images -> data set. The command line and the progress lines; the work is in pack.h.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <string>
#include <utility>

#include "core/command_line.h"
#include "core/program.h"
#include "data_pipeline/pack.h"

namespace {

// A bar on a terminal, otherwise a line every five seconds.
class ProgressLines {
 public:
  void operator()(const nf::data::PackProgress& p) {
    const auto now = std::chrono::steady_clock::now();
    const bool last = p.done == p.total;
    if (last && std::exchange(finished_, p.phase) == p.phase) return;
    if (terminal_) {
      constexpr uint64_t kWidth = 40;
      const auto filled = static_cast<int>(p.total > 0 ? p.done * kWidth / p.total : kWidth);
      std::fprintf(stderr, "\r%s [%-40s] %llu/%llu%s", p.phase,
                   std::string(static_cast<size_t>(filled), '#').c_str(),
                   static_cast<unsigned long long>(p.done),
                   static_cast<unsigned long long>(p.total), last ? "\n" : "");
    } else if (last || now - printed_ > std::chrono::seconds(5)) {
      std::fprintf(stderr, "%s %llu/%llu\n", p.phase, static_cast<unsigned long long>(p.done),
                   static_cast<unsigned long long>(p.total));
      printed_ = now;
    }
  }

 private:
  const char* finished_ = nullptr;  // the phase whose last line is out
  bool terminal_ = ::isatty(STDERR_FILENO) != 0;
  std::chrono::steady_clock::time_point printed_ = std::chrono::steady_clock::now();
};

void add_options(CLI::App& app, nf::data::PackOptions& o) {
  app.add_option(
         "--input", o.input,
         "folder with a folder per class, tar file of the same, or TSV path<TAB>label[,label...]")
      ->required();
  app.add_option("--output", o.output,
                 "folder of the data set; splits can be added to one that exists")
      ->required();
  app.add_option("--split", o.split, "name of the split")->capture_default_str();
  app.add_option("--subdir", o.subdir,
                 "folder inside the input to take; by default the one named as the split if it "
                 "holds class folders; . takes the input itself");
  app.add_option("--holdout", o.holdout,
                 "samples, chosen by content hash, to move to the split \"holdout\"");
  app.add_option("--workers", o.workers, "threads; 0: one for each processor")
      ->capture_default_str();
  auto* resize = app.add_option("--resize-short", o.resize_short,
                                "shrink the shorter side to this many pixels, stored as JPEG")
                     ->check(CLI::Range(1, 65535));
  app.add_option("--quality", o.quality, "JPEG quality after shrinking")
      ->needs(resize)
      ->capture_default_str();
  app.add_flag(
      "--no-transcode{false}", o.transcode,
      "store JPEG files byte for byte; by default they are stored anew without loss, so that "
      "training decodes only the crop");
  app.add_option_function<std::string>(
         "--check", [&o](const std::string& how) { o.headers_only = how == "headers"; },
         "full: every file is decoded, or all its codes read; headers (with --no-transcode): "
         "markers, tables, sizes and the end marker only, so damage inside an image's data is "
         "found in training, by the decoder, and costs that sample [full]")
      ->check(CLI::IsMember({"full", "headers"}));
  app.add_option("--shard-samples", o.shard_samples, "samples per shard file")
      ->capture_default_str();
  app.add_flag("--multi-label", o.multi_label, "lines of the TSV may have several labels");
  app.add_flag("--overwrite", o.overwrite, "replace the split, or an unfinished pack of it");
}

void print_result(const nf::data::PackOptions& options, const nf::data::PackResult& result) {
  for (const auto& split : result.splits) {
    std::printf("%s: %llu samples, %zu shards, %llu bytes of images, fingerprint %s%s\n",
                split.name.c_str(), static_cast<unsigned long long>(split.samples),
                split.shards.size(), static_cast<unsigned long long>(split.bytes),
                split.fingerprint.c_str(), result.already_complete ? " (complete already)" : "");
  }
  if (options.holdout > 0 && result.splits.back().samples < options.holdout) {
    std::printf(
        "holdout is smaller than asked for: the images left have more copies than places\n");
  }
  if (result.rejected > 0) {
    std::printf("rejected: %llu files, see %s\n", static_cast<unsigned long long>(result.rejected),
                (options.output / nf::data::kRejectedFile).c_str());
  }
}

int run(int argc, char** argv) {
  CLI::App app(
      "Packs images into a data set of HDF5 shards. Run again after an interruption, it continues.",
      "nf-pack");
  app.footer(
      "Example:\n  nf-pack --input imagenet/train --output imagenet.nf --split train --holdout "
      "10000");
  nf::data::PackOptions options;
  add_options(app, options);
  if (const auto code = nf::parse_command_line(app, argc, argv)) return *code;
  print_result(options, nf::data::pack(options, ProgressLines()));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return nf::run_program("nf-pack", [&] { return run(argc, argv); });
}
