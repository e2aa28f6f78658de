// See sweep_runner.h.
#include "launch/sweep_runner.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <list>
#include <map>
#include <thread>

#include "core/atomic_file.h"
#include "launch/trial_process.h"

namespace nf::launch {

namespace fs = std::filesystem;

namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kPollInterval = std::chrono::milliseconds(50);
constexpr auto kRereadInterval = std::chrono::seconds(1);

struct Running {
  Trial trial;
  TrialLock lock;
  TrialProcess process;
  std::string progress;  // the latest checkpoint when it was started
  Clock::time_point started;
};

// The line in which nf-train says what is wrong (the last session's), or where to look.
std::string first_error(const fs::path& log) {
  const std::string text = fs::exists(log) ? read_file(log) : std::string();
  const size_t at = text.rfind("error: ");
  return at == std::string::npos ? "see there" : text.substr(at, text.find('\n', at) - at);
}

class Runner {
 public:
  Runner(const SweepConfig& config, const SweepPlan& plan, const RunnerOptions& options)
      : config_(config), plan_(plan), options_(options), store_(options.output) {}

  ExitCode run();

 private:
  bool start_what_can_be();
  bool start(const Trial& trial);
  bool collect_ended();
  void judge_end(const Trial& trial, const std::string& progress, int code, double seconds);
  void finish(const Trial& trial, const Json& result);
  void fail(const Trial& trial, int code, const std::string& why);
  std::vector<std::string> command(const Trial& trial) const;
  std::string latest_checkpoint(const Trial& trial) const;
  void write_results() const {
    write_file_atomic(options_.output / "results.csv", results_csv(store_, plan_, config_));
  }

  const SweepConfig& config_;
  const SweepPlan& plan_;
  const RunnerOptions& options_;
  TrialStore store_;
  std::list<Running> running_;
  std::map<std::string, int64_t> failures_;  // in a row, without a new checkpoint
  std::map<std::string, double> seconds_;    // spent here, for trials that leave no result
  bool failed_ = false;
};

std::vector<std::string> Runner::command(const Trial& trial) const {
  const PlannedCell& cell = plan_.cells[trial.cell];
  std::vector<std::string> words = {"mpirun",
                                    "--oversubscribe",
                                    "--bind-to",
                                    "none",
                                    "-np",
                                    fmt::format("{}", config_.run.ranks),
                                    (options_.programs / "nf-train").string(),
                                    "--config",
                                    (options_.output / "train.toml").string()};
  std::vector<std::string> keys = config_.set;
  keys.push_back("model.name=" + cell.model);
  keys.push_back(fmt::format("schedule.epochs={}", cell.epochs));
  keys.push_back(fmt::format("optimizer.learning_rate={}", config_.rules().grid.rate(trial.k)));
  keys.push_back(fmt::format("run.seed={}", trial.seed));
  keys.push_back(fmt::format("batch.size={}", config_.batch));
  keys.push_back(fmt::format("data.image_size={}", config_.image_size));
  keys.push_back("data.path=" + config_.data.path);
  keys.push_back("data.split=" + config_.data.split);
  for (const auto& key : keys) {
    words.push_back("--set");
    words.push_back(key);
  }
  words.push_back("--output");
  words.push_back(store_.run_dir(trial.name).string());
  return words;
}

std::string Runner::latest_checkpoint(const Trial& trial) const {
  const fs::path file = store_.run_dir(trial.name) / "checkpoints/latest";
  return fs::exists(file) ? read_file(file) : std::string();
}

// False when others hold the trial.
bool Runner::start(const Trial& trial) {
  auto lock = store_.try_lock(trial.name);
  if (!lock) return false;
  if (store_.read(trial.name).final()) return true;  // ended between reading and locking
  // Trained by a controller that was killed before its verdict.
  if (const Json result = store_.finished_result(trial.name); result.is_object()) {
    finish(trial, result);
    return true;
  }
  options_.say("start " + trial.name);
  TrialProcess process(command(trial), store_.file(trial.name, ".log"), lock->fd());
  running_.push_back(
      {trial, std::move(*lock), std::move(process), latest_checkpoint(trial), Clock::now()});
  return true;
}

// Reads the table, asks the controller and fills the free places. False when nothing is left to do
// for anyone.
bool Runner::start_what_can_be() {
  const auto verdicts =
      judge_sweep(plan_.tuning(), read_trials(store_, plan_, config_), config_.rules());
  bool work = false;
  failed_ = false;
  for (size_t i = 0; i < verdicts.size(); ++i) {
    failed_ = failed_ || verdicts[i].failed;
    for (const int k : verdicts[i].next)
      for (const int64_t seed : config_.seeds) {
        const Trial trial{i, k, seed, trial_name(plan_.cells[i], k, seed)};
        if (store_.read(trial.name).final()) continue;
        work = true;
        const bool ours = std::any_of(running_.begin(), running_.end(),
                                      [&](const Running& r) { return r.trial.name == trial.name; });
        if (!ours && running_.size() < static_cast<size_t>(config_.run.parallel)) start(trial);
      }
  }
  return work;
}

// True when a trial ended.
bool Runner::collect_ended() {
  bool any = false;
  for (auto r = running_.begin(); r != running_.end();) {
    const auto code = r->process.poll();
    if (!code) {
      ++r;
      continue;
    }
    any = true;
    const double seconds = std::chrono::duration<double>(Clock::now() - r->started).count();
    judge_end(r->trial, r->progress, *code, seconds);
    r = running_.erase(r);  // the lock goes after the verdict
  }
  return any;
}

void Runner::judge_end(const Trial& trial, const std::string& progress, int code, double seconds) {
  seconds_[trial.name] += seconds;
  if (code == 0) {
    const Json result = store_.finished_result(trial.name);
    if (result.is_object()) return finish(trial, result);
    return fail(trial, code, "nf-train ended without a complete result.json");
  }
  if (code == static_cast<int>(ExitCode::kNotFinite)) {
    const double hours = seconds_[trial.name] * static_cast<double>(config_.run.ranks) / 3600;
    store_.write_verdict(trial.name, {{"run", trial.name},
                                      {"status", "diverged"},
                                      {"exit_code", code},
                                      {"device_hours", hours}});
    return options_.say("diverged " + trial.name);
  }
  if (code == static_cast<int>(ExitCode::kPreempted)) return;  // asked again by the next round
  const bool hopeless = code == static_cast<int>(ExitCode::kUsage) ||
                        code == static_cast<int>(ExitCode::kData) || code == 127;
  if (latest_checkpoint(trial) != progress) failures_[trial.name] = 0;
  if (!options_.stopping() && (++failures_[trial.name] >= config_.run.attempts || hopeless))
    return fail(trial, code, fmt::format("exit code {}", code));
  options_.say(fmt::format("{} ended with exit code {}; it is continued", trial.name, code));
}

void Runner::finish(const Trial& trial, const Json& result) {
  const auto loss = heldout_loss(result);
  if (!loss)
    return fail(trial, 0, "no held-out loss was measured: set evaluate.split in the config");
  Json verdict = {{"run", trial.name}};
  const bool diverged = has_diverged(*loss, config_.data.classes);
  verdict["status"] = diverged ? "diverged" : "done";
  const fs::path report = store_.file(trial.name, ".audit.json");
  run_to_end(
      {(options_.programs / "nf-audit").string(), "run", store_.run_dir(trial.name).string()},
      report);
  // What nf-audit says of a faulty run is JSON too; a program that is missing says nothing.
  const Json audit = Json::parse(read_file(report), nullptr, false);
  if (audit.is_object() && audit.contains("missed")) {
    verdict["images_missed"] = audit["missed"];
    verdict["audit"] = audit.value("verdict", "");
  }
  store_.write_verdict(trial.name, verdict);
  options_.say(fmt::format("{} {}: held-out loss {:.5f}", diverged ? "diverged" : "done",
                           trial.name, *loss));
}

void Runner::fail(const Trial& trial, int code, const std::string& why) {
  store_.write_verdict(
      trial.name, {{"run", trial.name}, {"status", "failed"}, {"exit_code", code}, {"why", why}});
  const fs::path log = store_.file(trial.name, ".log");
  options_.say(
      fmt::format("failed {}: {}; {}: {}", trial.name, why, log.string(), first_error(log)));
}

ExitCode Runner::run() {
  store_.create();
  std::vector<std::string> names;
  for (const auto& trial : all_trials(plan_, config_)) names.push_back(trial.name);
  store_.forget_failures(names);
  auto reread = Clock::now();
  bool work = true, read_now = true;
  while (work || !running_.empty()) {
    if (options_.stopping()) {
      for (const auto& r : running_) r.process.stop();
      while (!running_.empty()) {
        collect_ended();
        std::this_thread::sleep_for(kPollInterval);
      }
      write_results();
      return ExitCode::kPreempted;
    }
    if (read_now || Clock::now() - reread > kRereadInterval) {
      work = start_what_can_be();
      write_results();
      reread = Clock::now();
    }
    read_now = collect_ended();
    if (!read_now) std::this_thread::sleep_for(kPollInterval);
  }
  write_results();
  return failed_ ? ExitCode::kOther : ExitCode::kDone;
}

// Writes the file, or refuses when it holds something else.
void write_or_compare(const fs::path& file, const std::string& text, const std::string& source) {
  if (!fs::exists(file)) return write_file_atomic(file, text);
  if (read_file(file) != text)
    throw Error(ExitCode::kUsage, file.string(), "differs from " + source,
                "finished runs were made with the old one: take another --output");
}

}  // namespace

void claim_sweep(SweepConfig& config, const fs::path& output) {
  std::error_code error;
  fs::create_directories(output, error);
  if (error) throw_io_error(output, "cannot create", error.value());
  const Fields fields = config.fields();
  const fs::path mine = output / "sweep.toml";
  if (fs::exists(mine)) {
    const auto differences = config_differences(read_file(mine), mine.string(), fields);
    if (!differences.empty()) {
      std::string text = "this sweep was begun with other values: " + differences[0];
      for (size_t i = 1; i < differences.size(); ++i) text += "; " + differences[i];
      throw Error(ExitCode::kUsage, mine.string(), text, "take another --output");
    }
  }
  write_file_atomic(mine, to_toml(fields));
  write_or_compare(output / "train.toml", config.config.empty() ? "" : read_file(config.config),
                   config.config);
}

ExitCode run_sweep(const SweepConfig& config, const SweepPlan& plan, const RunnerOptions& options) {
  return Runner(config, plan, options).run();
}

}  // namespace nf::launch
