// Simulates the usual input pipeline and ours under the same preemptions; prints a table and writes
// lost_samples.json, a gnuplot script and, where gnuplot is installed, the histogram
// lost_samples.svg (the one in docs/).
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "bench/lost_samples.h"
#include "core/atomic_file.h"
#include "core/error.h"
#include "core/program.h"
#include "core/version.h"

namespace {

using namespace nf::bench;

void draw(const std::filesystem::path& output, const LostSamplesOptions& options,
          const std::vector<UseCounts>& results) {
  const std::filesystem::path script = output / "lost_samples.gp";
  nf::write_file_atomic(script,
                        plot_script(options, results, (output / "lost_samples.svg").string()));
  std::string command = "gnuplot '";
  command += script.string() + "'";
  if (std::system(command.c_str()) == 0) {
    std::printf("\nwrote %s\n", (output / "lost_samples.svg").c_str());
  } else {
    std::printf("\nno plot: gnuplot did not run (package gnuplot-nox); its script is %s\n",
                script.c_str());
  }
}

int run(int argc, char** argv) {
  LostSamplesOptions o;
  std::filesystem::path output = ".";
  CLI::App app{"How often each sample is used under preemptions: the usual pipeline and ours.",
               "lost_samples"};
  app.footer("Example:\n  lost_samples --output docs");
  app.set_version_flag("--version", nf::kVersion);
  app.add_option("--output", output, "folder for the JSON, the script and the plot")
      ->capture_default_str();
  app.add_option("--samples", o.samples, "samples")->capture_default_str();
  app.add_option("--files", o.files, "files")->capture_default_str();
  app.add_option("--hosts", o.hosts, "hosts")->capture_default_str();
  app.add_option("--batch", o.batch, "samples a step")->capture_default_str();
  app.add_option("--epochs", o.epochs, "epochs")->capture_default_str();
  app.add_option("--kills", o.kills, "preemptions")->capture_default_str();
  app.add_option("--checkpoint-every", o.checkpoint_every, "steps")->capture_default_str();
  app.add_option("--seed", o.seed, "of kills and shuffling")->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : static_cast<int>(nf::ExitCode::kUsage);
  }
  std::vector<UseCounts> results;
  for (const Pipeline p : {Pipeline::kFixedFiles, Pipeline::kShuffledFiles, Pipeline::kOurs}) {
    results.push_back(count_uses(o, p));
  }
  std::fputs(table(o, results).c_str(), stdout);
  std::filesystem::create_directories(output);
  nf::write_file_atomic(output / "lost_samples.json", to_json(o, results).dump(2) + "\n");
  draw(output, o, results);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return nf::run_program("lost_samples", [&] { return run(argc, argv); });
}
