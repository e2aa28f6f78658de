// See pack.h.
#include "data_pipeline/pack.h"

#include <algorithm>
#include <optional>
#include <set>
#include <thread>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/hash.h"
#include "core/jsonl.h"
#include "data_pipeline/image_source.h"
#include "data_pipeline/pack_lock.h"
#include "data_pipeline/pack_scan.h"
#include "data_pipeline/pack_split.h"

namespace nf::data {
namespace fs = std::filesystem;
namespace {

void check_options(const PackOptions& o) {
  const auto refuse = [](const std::string& where, const std::string& what,
                         const std::string& hint = {}) {
    throw Error(ExitCode::kUsage, where, what, hint);
  };
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
  };
  if (o.split.empty() || o.split.size() > 64 ||
      !std::all_of(o.split.begin(), o.split.end(), allowed)) {
    refuse("--split", "\"" + o.split + "\" is not a split name", "letters, digits, _ and -");
  }
  if (o.holdout > 0 && o.split == kHoldoutSplit)
    refuse("--holdout", "cannot hold out from the split \"holdout\" itself");
  if (o.shard_samples < 1 || o.shard_samples > 1'000'000)
    refuse("--shard-samples", "must be 1 to 1000000");
  if (o.resize_short < 0 || o.resize_short > 65535)
    refuse("--resize-short", "must be 1 to 65535 pixels");
  if (o.quality < 1 || o.quality > 100) refuse("--quality", "must be 1 to 100");
  if (o.workers < 0 || o.workers > 1024) refuse("--workers", "must be 1 to 1024");
  if (o.headers_only && o.transcode)
    refuse("--check headers", "needs --no-transcode",
           "storing a JPEG anew reads all of it, so it is checked in full");
  if (o.multi_label && fs::is_directory(o.input))
    refuse("--multi-label", "needs a TSV as input", "a folder gives one label a file");
}

// Names everything that decides the bytes of the result, except the content of the files (the scan
// sees to that).
std::string source_key(const PackOptions& o, const ImageSource& source) {
  Sha256 sha;
  const auto add = [&](const std::string& text) {
    sha.update(as_bytes(std::to_string(text.size()) + ":"));
    sha.update(as_bytes(text));
  };
  add("nf-pack 1");
  add(o.split);
  for (const uint64_t n : {o.holdout, static_cast<uint64_t>(o.resize_short),
                           static_cast<uint64_t>(o.resize_short > 0 ? o.quality : 0),
                           o.shard_samples, uint64_t{o.multi_label}}) {
    add(std::to_string(n));
  }
  if (o.transcode) add("transcoding 1");
  if (o.headers_only) add("headers checked");
  for (const auto& name : source.class_names()) add(name);
  for (uint64_t i = 0; i < source.size(); ++i) {
    add(source.name(i));
    add(std::to_string(source.bytes(i)));
    for (const int32_t label : source.labels(i)) add(std::to_string(label));
  }
  return sha.hex();
}

std::string escape(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '\t':
        out += "\\t";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\\':
        out += "\\\\";
        break;
      default:
        out += c;
    }
  }
  return out;
}

class Packer {
 public:
  Packer(const PackOptions& options, std::function<void(const PackProgress&)> progress)
      : options_(options),
        progress_(std::move(progress)),
        work_(options.output / (".pack-" + options.split)) {
    splits_.insert(options.split);
    if (options.holdout > 0) splits_.insert(kHoldoutSplit);
    if (options_.workers == 0)
      options_.workers = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  }

  PackResult run() {
    if (has_dataset_index(options_.output)) index_ = read_dataset_index(options_.output);
    const SplitEntry *main = index_.find(options_.split), *held_out = index_.find(kHoldoutSplit);
    if (options_.overwrite && main != nullptr && held_out != nullptr &&
        main->source == held_out->source) {
      splits_.insert(kHoldoutSplit);  // made together: a holdout that stayed would stand in the new
                                      // split as well
    }
    source_.emplace(
        SourceOptions{options_.input, options_.split, options_.subdir, options_.multi_label},
        known_classes());
    key_ = source_key(options_, *source_);
    remove_torn_files();
    if (auto done = finished_before()) {
      fs::remove_all(
          work_);  // left when the last run was killed between writing dataset.json and this
      return *done;
    }
    open_work_folder();
    return make();
  }

 private:
  // Classes of the splits that stay; none when this pack replaces them all.
  std::vector<std::string> known_classes() const {
    const bool others =
        std::any_of(index_.splits.begin(), index_.splits.end(),
                    [&](const SplitEntry& s) { return splits_.count(s.name) == 0; });
    return others || (!options_.overwrite && !index_.splits.empty()) ? index_.class_names
                                                                     : std::vector<std::string>{};
  }

  bool is_whole(const SplitEntry& split) const {
    return std::all_of(split.shards.begin(), split.shards.end(), [&](const ShardEntry& shard) {
      std::error_code ec;
      return fs::file_size(options_.output / shard.file, ec) == shard.bytes && !ec;
    });
  }

  // The result of an earlier run of the same pack, if it is all there. Throws when another pack's
  // result is in the way.
  std::optional<PackResult> finished_before() const {
    PackResult result;
    result.already_complete = true;
    for (const auto& name : splits_) {
      const SplitEntry* split = index_.find(name);
      if (split == nullptr || options_.overwrite) continue;
      if (split->source != key_) {
        throw Error(ExitCode::kData, options_.output.string(),
                    "the split \"" + name +
                        "\" is there already, packed from another input or with other options",
                    "choose another --split or --output, or replace it with --overwrite");
      }
      if (!is_whole(*split)) continue;
      result.splits.push_back(*split);
      result.rejected = split->rejected;
    }
    const SplitEntry* main = index_.find(options_.split);
    if (main == nullptr || result.splits.empty() ||
        result.splits.size() < (options_.holdout > 0 ? 2U : 1U))
      return std::nullopt;
    std::sort(result.splits.begin(), result.splits.end(),
              [&](const SplitEntry& a, const SplitEntry& b) {
                return (a.name == options_.split) > (b.name == options_.split);
              });
    return result;
  }

  // What an atomic write leaves when it is killed half-way.
  void remove_torn_files() const {
    std::vector<fs::path> torn;
    for (const auto& entry : fs::directory_iterator(options_.output)) {
      const std::string name = entry.path().filename().string();
      for (const char* file : {kDatasetFile, kRejectedFile}) {
        if (name.starts_with(std::string(file) + ".tmp.")) torn.push_back(entry.path());
      }
    }
    for (const auto& file : torn) fs::remove(file);
  }

  void remove_old_splits() {
    std::vector<SplitEntry> kept;
    std::vector<fs::path> files;
    for (const auto& split : index_.splits) {
      if (splits_.count(split.name) == 0) {
        kept.push_back(split);
      } else {
        for (const auto& shard : split.shards) files.push_back(options_.output / shard.file);
      }
    }
    if (files.empty()) return;
    index_.splits = kept;
    // First the entry, then the files: at no moment does dataset.json promise shards that are gone.
    if (kept.empty()) {
      fs::remove(options_.output / kDatasetFile);
    } else {
      write_dataset_index(options_.output, index_);
    }
    for (const auto& file : files) fs::remove(file);
  }

  void open_work_folder() {
    const fs::path plan = work_ / "plan.json";
    if (fs::exists(plan)) {
      const Json json = Json::parse(read_file(plan), nullptr, false);
      const bool same = json.is_object() && json.value("source", "") == key_;
      if (!same && !options_.overwrite) {
        throw Error(ExitCode::kData, options_.output.string(),
                    "holds an unfinished pack of the split \"" + options_.split +
                        "\" from another input or with other options",
                    "run that pack again to finish it, or start anew with --overwrite");
      }
      if (same) return;
    }
    fs::remove_all(work_);
    remove_old_splits();
    std::error_code ec;
    fs::create_directories(work_, ec);
    if (ec) throw_io_error(work_, "cannot create the folder", ec.value());
    write_file_atomic(plan, Json{{"source", key_}}.dump());
  }

  PackResult make() {
    ImagePreparer preparer({.resize_short = options_.resize_short,
                            .quality = options_.quality,
                            .transcode = options_.transcode,
                            .headers_only = options_.headers_only,
                            .limits = {}});
    const ScanResult scan =
        scan_images(*source_, preparer, work_, options_.workers, phase("checking"));
    PackResult result;
    result.rejected = write_rejected(scan);
    const Assignment assignment = assign_splits(scan.records, options_.holdout);
    check_assignment(assignment);
    const SplitWriter writer{
        *source_, scan, preparer, options_.output, work_, options_.shard_samples, options_.workers};
    result.splits.push_back(writer.write(options_.split, assignment.main, phase("writing")));
    if (!assignment.held_out.empty()) {
      result.splits.push_back(
          writer.write(kHoldoutSplit, assignment.held_out, phase("writing the holdout")));
    }
    std::erase_if(index_.splits,
                  [&](const SplitEntry& split) { return splits_.count(split.name) != 0; });
    index_.class_names = source_->class_names();
    for (auto& split : result.splits) {
      split.source = key_;
      split.multi_label = options_.multi_label;
      split.rejected = split.name == options_.split ? result.rejected : 0;
      index_.splits.push_back(split);
    }
    write_dataset_index(options_.output, index_);
    fs::remove_all(work_);
    return result;
  }

  CountProgress phase(const char* name) const {
    return [this, name](uint64_t done, uint64_t total) {
      if (progress_) progress_({name, done, total});
    };
  }

  void check_assignment(const Assignment& assignment) const {
    const fs::path rejected = options_.output / kRejectedFile;
    if (assignment.main.empty() && assignment.held_out.empty()) {
      throw Error(ExitCode::kData, options_.input.string(),
                  "no image in the input could be decoded",
                  "the reasons are in " + rejected.string());
    }
    if (assignment.main.empty()) {
      throw Error(
          ExitCode::kData, options_.input.string(),
          "--holdout " + std::to_string(options_.holdout) + " leaves no sample for the split \"" +
              options_.split + "\"",
          "the input has " + std::to_string(assignment.held_out.size()) + " images that decode");
    }
    if (assignment.held_out.empty() && options_.holdout > 0) {
      throw Error(ExitCode::kData, options_.input.string(),
                  "no sample can be held out: every image has more copies than --holdout asks for",
                  "raise --holdout");
    }
  }

  // rejected.tsv: path, reason, split; lines of other splits stay. Returns the number of files
  // refused now.
  uint64_t write_rejected(const ScanResult& scan) const {
    const fs::path file = options_.output / kRejectedFile;
    std::vector<std::string> lines;
    for (const auto& r : source_->rejected())
      lines.push_back(escape(r.name) + "\t" + escape(r.reason));
    for (const auto& [i, reason] : scan.reasons)
      lines.push_back(escape(source_->name(i)) + "\t" + escape(reason));
    std::sort(lines.begin(), lines.end());
    std::string text;
    const std::string ending = "\t" + options_.split;
    if (fs::exists(file)) {
      const std::string old = read_file(file);
      for (size_t begin = 0; begin < old.size();) {
        const size_t end = std::min(old.find('\n', begin), old.size());
        const std::string line = old.substr(begin, end - begin);
        if (!line.ends_with(ending)) text += line + "\n";
        begin = end + 1;
      }
    }
    for (const auto& line : lines) text += line + ending + "\n";
    if (!text.empty()) {
      write_file_atomic(file, text);
    } else {
      fs::remove(file);
    }
    return lines.size();
  }

  PackOptions options_;
  std::function<void(const PackProgress&)> progress_;
  fs::path work_;
  std::set<std::string> splits_;  // that this pack makes or replaces
  DatasetIndex index_;
  std::optional<ImageSource> source_;
  std::string key_;
};

}  // namespace

PackResult pack(const PackOptions& options,
                const std::function<void(const PackProgress&)>& progress) {
  check_options(options);
  if (!fs::exists(options.input)) {
    throw Error(ExitCode::kData, options.input.string(), "input does not exist",
                "give a folder of class folders, a tar file of the same, or a TSV");
  }
  std::error_code ec;
  const bool fresh = fs::create_directories(options.output, ec);
  if (ec) throw_io_error(options.output, "cannot create the folder", ec.value());
  try {
    const PackLock lock(options.output);
    return Packer(options, progress).run();
  } catch (const fs::filesystem_error& e) {
    throw_io_error(e.path1().empty() ? options.output : e.path1(), "cannot access",
                   e.code().value());
  } catch (...) {
    if (fresh) fs::remove(options.output, ec);  // only when nothing was written
    throw;
  }
}

}  // namespace nf::data
