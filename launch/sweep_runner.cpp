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
#include "launch/job_process.h"
#include "launch/restart_policy.h"

namespace nf::launch {

namespace fs = std::filesystem;

namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kPollInterval = std::chrono::milliseconds(50);
constexpr auto kRereadInterval = std::chrono::seconds(1);

struct Running {
  Trial trial;
  TrialLock lock;
  JobProcess process;
  Clock::time_point started;
};

class Runner {
 public:
  Runner(const SweepConfig& config, const SweepPlan& plan, const RunnerOptions& options)
      : config_(config), plan_(plan), options_(options), store_(options.place.output) {}

  ExitCode run();

 private:
  bool start_what_can_be();
  bool start(const Trial& trial);
  bool collect_ended();
  void judge_end(const Trial& trial, int code, double seconds);
  void finish(const Trial& trial, const Json& result);
  void fail(const Trial& trial, int code, const std::string& why);

  const SweepConfig& config_;
  const SweepPlan& plan_;
  const RunnerOptions& options_;
  TrialStore store_;
  std::list<Running> running_;
  std::map<std::string, RestartBound> bounds_;
  std::map<std::string, double> seconds_;  // spent here, for trials that leave no result
  bool failed_ = false;
};

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
  // attempts counts tries, the bound restarts.
  bounds_.try_emplace(trial.name, config_.run.attempts - 1,
                      newest_step(store_.run_dir(trial.name)));
  JobProcess process(
      through_mpirun(config_.run.ranks, train_words(config_, plan_, options_.place, trial)),
      store_.file(trial.name, ".log"), lock->fd());
  running_.push_back({trial, std::move(*lock), std::move(process), Clock::now()});
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
    judge_end(r->trial, *code, seconds);
    r = running_.erase(r);  // the lock goes after the verdict
  }
  return any;
}

void Runner::judge_end(const Trial& trial, int code, double seconds) {
  seconds_[trial.name] += seconds;
  if (code == 0) {
    const Json result = store_.finished_result(trial.name);
    if (result.is_object()) return finish(trial, result);
    return fail(trial, code, "nf-train ended without a complete result.json");
  }
  if (code == static_cast<int>(ExitCode::kNotFinite)) {
    const double hours = seconds_[trial.name] * static_cast<double>(config_.run.ranks) / 3600;
    return options_.say(judge_diverged(store_, trial.name, hours));
  }
  if (code == static_cast<int>(ExitCode::kPreempted)) return;  // asked again by the next round
  const bool again = bounds_.at(trial.name).allows(newest_step(store_.run_dir(trial.name)));
  if (!options_.stopping() && (!again || is_final(code)))
    return fail(trial, code, fmt::format("exit code {}", code));
  options_.say(fmt::format("{} ended with exit code {}; it is continued", trial.name, code));
}

void Runner::finish(const Trial& trial, const Json& result) {
  options_.say(judge_finished(store_, config_, options_.place, trial.name, result));
}

void Runner::fail(const Trial& trial, int code, const std::string& why) {
  options_.say(judge_failed(store_, trial.name, code, why, store_.file(trial.name, ".log")));
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
      write_results(store_, plan_, config_);
      return ExitCode::kPreempted;
    }
    if (read_now || Clock::now() - reread > kRereadInterval) {
      work = start_what_can_be();
      write_results(store_, plan_, config_);
      reread = Clock::now();
    }
    read_now = collect_ended();
    if (!read_now) std::this_thread::sleep_for(kPollInterval);
  }
  write_results(store_, plan_, config_);
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
