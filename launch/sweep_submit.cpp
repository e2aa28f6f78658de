// See sweep_submit.h.
#include "launch/sweep_submit.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <sstream>

#include "core/atomic_file.h"
#include "launch/slurm.h"

namespace nf::launch {

namespace fs = std::filesystem;

namespace {

// Elements of one array: MaxArraySize is 1001 where nobody changed it.
constexpr size_t kMostElements = 1000;

// Held while the queue is read and added to.
class SubmitLock {
 public:
  explicit SubmitLock(const fs::path& file)
      : fd_(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666)) {
    if (fd_ < 0) throw_io_error(file, "cannot open", errno);
    while (::flock(fd_, LOCK_EX) != 0)
      if (errno != EINTR) throw_io_error(file, "cannot lock", errno);
  }
  ~SubmitLock() { ::close(fd_); }
  SubmitLock(const SubmitLock&) = delete;
  SubmitLock& operator=(const SubmitLock&) = delete;

 private:
  int fd_;
};

class Submitter {
 public:
  Submitter(const SweepConfig& config, const SweepPlan& plan, const SubmitOptions& options)
      : config_(config),
        plan_(plan),
        options_(options),
        store_(options.place.output),
        folder_(options.place.output / "slurm") {}

  ExitCode run();

 private:
  fs::path script(const char* kind, int64_t round) const {
    return folder_ / fmt::format("{}_{:04}.sbatch", kind, round);
  }
  fs::path closed(int64_t round) const {
    return folder_ / fmt::format("round_{:04}.closed", round);
  }
  int64_t last_round() const;
  bool under_way();
  void judge_ended();
  void judge(const std::string& trial);
  void forget_failures();
  std::vector<Trial> next_trials(bool* failed) const;
  BatchJob base_job(const char* kind) const;
  BatchJob round_job(const std::vector<Trial>& trials) const;
  BatchJob follow_job(int64_t round) const;
  void submit_round(const std::vector<Trial>& trials);
  std::string submit_follow_up(int64_t round, const std::vector<std::string>& arrays);

  const SweepConfig& config_;
  const SweepPlan& plan_;
  const SubmitOptions& options_;
  TrialStore store_;
  fs::path folder_;
};

int64_t Submitter::last_round() const {
  int64_t last = 0;
  while (fs::exists(script("round", last + 1))) ++last;
  return last;
}

// True when jobs of this sweep are in the queue; a round whose follow-up is missing gets one.
bool Submitter::under_way() {
  std::vector<std::string> arrays, followers;
  for (const auto& job : queued_jobs()) {
    if (job.script.parent_path() != folder_ || job.id == options_.own_job) continue;
    const bool array = job.script.filename().string().rfind("round_", 0) == 0;
    auto& ids = array ? arrays : followers;
    if (std::find(ids.begin(), ids.end(), job.id) == ids.end()) ids.push_back(job.id);
  }
  if (arrays.empty() && followers.empty()) return false;
  if (followers.empty()) followers.push_back(submit_follow_up(last_round(), arrays));
  options_.say(
      fmt::format("round {} is under way: {}; behind it job {}", last_round(),
                  arrays.empty() ? "ended" : fmt::format("job {}", fmt::join(arrays, ", ")),
                  fmt::join(followers, ", ")));
  return true;
}

// A trial whose job has ended for good, or whose result was never judged.
void Submitter::judge(const std::string& trial) {
  const auto lock = store_.try_lock(trial);
  if (!lock || store_.read(trial).final()) return;
  if (const Json result = store_.finished_result(trial); result.is_object())
    return options_.say(judge_finished(store_, config_, options_.place, trial, result));
  const fs::path file = store_.file(trial, ".exit");
  if (!fs::exists(file)) return;  // never begun, or cancelled: it is continued
  int code = 0;
  double seconds = 0;
  std::istringstream(read_file(file)) >> code >> seconds;
  if (code == static_cast<int>(ExitCode::kNotFinite)) {
    const double ranks = static_cast<double>(options_.resources.all_ranks());
    return options_.say(judge_diverged(store_, trial, seconds * ranks / 3600));
  }
  const std::string why = code == 0 ? "nf-train ended without a complete result.json"
                                    : fmt::format("exit code {}", code);
  options_.say(judge_failed(store_, trial, code, why, store_.file(trial, ".log")));
}

void Submitter::judge_ended() {
  for (const auto& trial : all_trials(plan_, config_))
    if (const TrialState state = store_.read(trial.name); state.known && !state.final())
      judge(trial.name);
}

void Submitter::forget_failures() {
  std::vector<std::string> failed;
  for (const auto& trial : all_trials(plan_, config_)) {
    const TrialState state = store_.read(trial.name);
    if (!state.final() || state.status != analysis::RunStatus::kFailed) continue;
    failed.push_back(trial.name);
    fs::remove(store_.file(trial.name, ".exit"));
  }
  store_.forget_failures(failed);
}

std::vector<Trial> Submitter::next_trials(bool* failed) const {
  const auto verdicts =
      judge_sweep(plan_.tuning(), read_trials(store_, plan_, config_), config_.rules());
  std::vector<Trial> trials;
  *failed = false;
  for (size_t i = 0; i < verdicts.size(); ++i) {
    *failed = *failed || verdicts[i].failed;
    for (const int k : verdicts[i].next)
      for (const int64_t seed : config_.seeds) {
        const Trial trial{i, k, seed, trial_name(plan_.cells[i], k, seed)};
        if (!store_.read(trial.name).final()) trials.push_back(trial);
      }
  }
  if (trials.size() > kMostElements) trials.resize(kMostElements);
  return trials;
}

BatchJob Submitter::base_job(const char* kind) const {
  BatchJob job;
  job.program = "nf-sweep submit";
  job.name = fmt::format("{}-{}", kind, options_.place.output.filename().string());
  job.folder = fs::current_path().string();
  return job;
}

BatchJob Submitter::round_job(const std::vector<Trial>& trials) const {
  BatchJob job = base_job("sweep");
  job.kind = BatchKind::kList;
  job.title =
      fmt::format("{} runs of the sweep {}.", trials.size(), options_.place.output.string());
  job.array = fmt::format("0-{}", trials.size() - 1);
  if (options_.throttle > 0) job.array += fmt::format("%{}", options_.throttle);
  job.log = "/dev/null";  // until the script knows its run
  for (const auto& trial : trials) {
    BatchRun run;
    run.run_dir = store_.run_dir(trial.name).string();
    run.words = train_words(config_, plan_, options_.place, trial);
    run.done_file = run.run_dir + "/result.json";
    run.lock_file = store_.file(trial.name, ".lock").string();
    run.verdict_file = store_.file(trial.name, ".json").string();
    run.exit_file = store_.file(trial.name, ".exit").string();
    run.log_file = store_.file(trial.name, ".log").string();
    job.runs.push_back(run);
  }
  return job;
}

BatchJob Submitter::follow_job(int64_t round) const {
  BatchJob job = base_job("next");
  job.title = fmt::format("Judges round {} of the sweep {} and submits the next.", round,
                          options_.place.output.string());
  job.ranked = false;
  job.log = "/dev/null";
  BatchRun run;
  run.run_dir = (folder_ / "controller").string();
  run.words = options_.follow_up;
  run.words.push_back("--close");
  run.words.push_back(fmt::format("{}", round));
  run.done_file = closed(round).string();
  run.log_file = (folder_ / "controller.log").string();
  job.runs.push_back(run);
  return job;
}

std::string Submitter::submit_follow_up(int64_t round, const std::vector<std::string>& arrays) {
  BatchResources small = options_.resources;
  small.time = "10";
  small.signal_seconds = 60;
  write_file_atomic(script("next", round), batch_script(follow_job(round), small));
  std::vector<std::string> more;
  if (!arrays.empty())
    more.push_back(fmt::format("--dependency=afterany:{}", fmt::join(arrays, ":")));
  return submit_script(script("next", round), more);
}

void Submitter::submit_round(const std::vector<Trial>& trials) {
  const int64_t round = last_round() + 1;
  write_file_atomic(script("round", round), batch_script(round_job(trials), options_.resources));
  const std::string array = submit_script(script("round", round));
  const std::string follower = submit_follow_up(round, {array});
  options_.say(fmt::format("round {}: {} runs as job {}, behind it job {}", round, trials.size(),
                           array, follower));
}

ExitCode Submitter::run() {
  bool failed = false;
  if (options_.print) {
    const std::vector<Trial> trials = next_trials(&failed);
    if (!trials.empty())
      std::fputs(batch_script(round_job(trials), options_.resources).c_str(), stdout);
    return ExitCode::kDone;
  }
  store_.create();
  std::error_code error;
  fs::create_directories(folder_, error);
  if (error) throw_io_error(folder_, "cannot create", error.value());
  const SubmitLock lock(folder_ / "lock");
  if (!under_way()) {
    judge_ended();
    if (options_.closes == 0) forget_failures();
    const std::vector<Trial> trials = next_trials(&failed);
    write_results(store_, plan_, config_);
    if (!trials.empty())
      submit_round(trials);
    else
      options_.say(failed ? "the sweep has ended; trials failed" : "the sweep is complete");
    failed = failed && trials.empty();
  }
  if (options_.closes > 0) {  // the job has done its work, whatever it found
    write_file_atomic(closed(options_.closes), "");
    return ExitCode::kDone;
  }
  return failed ? ExitCode::kOther : ExitCode::kDone;
}

}  // namespace

ExitCode submit_sweep(const SweepConfig& config, const SweepPlan& plan,
                      const SubmitOptions& options) {
  return Submitter(config, plan, options).run();
}

}  // namespace nf::launch
