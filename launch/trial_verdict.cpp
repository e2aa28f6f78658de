// See trial_verdict.h.
#include "launch/trial_verdict.h"

#include <fmt/format.h>

#include "core/atomic_file.h"
#include "core/error.h"
#include "launch/job_process.h"

namespace nf::launch {

namespace fs = std::filesystem;

namespace {

// The line in which nf-train says what is wrong (the last life's), or where to look.
std::string last_error(const fs::path& log) {
  const std::string text = fs::exists(log) ? read_file(log) : std::string();
  const size_t at = text.rfind("error: ");
  return at == std::string::npos ? "see there" : text.substr(at, text.find('\n', at) - at);
}

}  // namespace

std::vector<std::string> train_words(const SweepConfig& config, const SweepPlan& plan,
                                     const SweepPlace& place, const Trial& trial) {
  const PlannedCell& cell = plan.cells[trial.cell];
  std::vector<std::string> words = {(place.programs / "nf-train").string(), "--config",
                                    (place.output / "train.toml").string()};
  std::vector<std::string> keys = config.set;
  keys.push_back("model.name=" + cell.model);
  keys.push_back(fmt::format("schedule.epochs={}", cell.epochs));
  keys.push_back(fmt::format("optimizer.learning_rate={}", config.rules().grid.rate(trial.k)));
  keys.push_back(fmt::format("run.seed={}", trial.seed));
  keys.push_back(fmt::format("batch.size={}", config.batch));
  keys.push_back(fmt::format("data.image_size={}", config.image_size));
  keys.push_back("data.path=" + config.data.path);
  keys.push_back("data.split=" + config.data.split);
  for (const auto& key : keys) {
    words.push_back("--set");
    words.push_back(key);
  }
  words.push_back("--output");
  words.push_back(TrialStore(place.output).run_dir(trial.name).string());
  return words;
}

std::string judge_finished(const TrialStore& store, const SweepConfig& config,
                           const SweepPlace& place, const std::string& trial, const Json& result) {
  const auto loss = heldout_loss(result);
  if (!loss)
    return judge_failed(store, trial, 0,
                        "no held-out loss was measured: set evaluate.split in the config", {});
  Json verdict = {{"run", trial}};
  const bool diverged = has_diverged(*loss, config.data.classes);
  verdict["status"] = diverged ? "diverged" : "done";
  const Ended ended =
      run_to_end({(place.programs / "nf-audit").string(), "run", store.run_dir(trial).string()});
  write_file_atomic(store.file(trial, ".audit.json"), ended.out);
  // What nf-audit says of a faulty run is JSON too; a program that is missing says nothing.
  const Json audit = Json::parse(ended.out, nullptr, false);
  if (audit.is_object() && audit.contains("missed")) {
    verdict["images_missed"] = audit["missed"];
    verdict["audit"] = audit.value("verdict", "");
  }
  store.write_verdict(trial, verdict);
  return fmt::format("{} {}: held-out loss {:.5f}", diverged ? "diverged" : "done", trial, *loss);
}

std::string judge_diverged(const TrialStore& store, const std::string& trial, double device_hours) {
  store.write_verdict(trial, {{"run", trial},
                              {"status", "diverged"},
                              {"exit_code", static_cast<int>(ExitCode::kNotFinite)},
                              {"device_hours", device_hours}});
  return "diverged " + trial;
}

std::string judge_failed(const TrialStore& store, const std::string& trial, int code,
                         const std::string& why, const fs::path& log) {
  store.write_verdict(trial,
                      {{"run", trial}, {"status", "failed"}, {"exit_code", code}, {"why", why}});
  if (log.empty()) return fmt::format("failed {}: {}", trial, why);
  return fmt::format("failed {}: {}; {}: {}", trial, why, log.string(), last_error(log));
}

}  // namespace nf::launch
