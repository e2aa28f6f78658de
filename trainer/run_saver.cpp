// See run_saver.h.
#include "trainer/run_saver.h"

#include <utility>

#include "core/atomic_file.h"
#include "core/error.h"
#include "trainer/checkpoint/checkpoint_names.h"

namespace nf::train {
namespace {

std::set<uint64_t> multiples(const std::filesystem::path& checkpoints, uint64_t every) {
  std::set<uint64_t> steps;
  if (every > 0)
    for (const auto& entry : list_checkpoints(checkpoints))
      if (entry.step % every == 0) steps.insert(entry.step);
  return steps;
}

}  // namespace

RunSaver::RunSaver(const RunDirectory& directory, Metrics& metrics, const CheckpointConfig& config,
                   std::optional<uint64_t> committed)
    : directory_(directory), metrics_(metrics), config_(config), saved_(committed) {
  if (const auto best = metrics.best_eval(config.keep_best)) {
    best_step_ = best->step;
    best_figure_ = best->figure;
  }
}

RunSaver::~RunSaver() {
  if (thread_.joinable()) thread_.join();
}

bool RunSaver::is_due(uint64_t step) const {
  if (config_.every_steps > 0 && step % static_cast<uint64_t>(config_.every_steps) == 0)
    return true;
  const std::chrono::duration<double> passed = Clock::now() - last_save_;
  return config_.every_minutes > 0 && passed.count() > config_.every_minutes * 60;
}

std::set<uint64_t> RunSaver::pinned() const {
  std::set<uint64_t> steps;
  if (best_step_) steps.insert(*best_step_);
  return steps;
}

// Waits for the thread and takes its outcome in.
void RunSaver::join() {
  if (!running_) return;
  thread_.join();
  running_ = false;
  if (!outcome_) {
    failures_ = 0;
    return;
  }
  failure_ = std::exchange(outcome_, nullptr);
  ++failures_;
  saved_.reset();
  try {
    std::rethrow_exception(failure_);
  } catch (const Error& e) {
    news_ = e.where() + ": " + e.what();
  } catch (const std::exception& e) {
    news_ = e.what();
  }
}

void RunSaver::run(std::function<void()> work) {
  const auto begin = Clock::now();
  join();
  running_ = true;
  done_ = false;
  thread_ = std::jthread([this, begin, work = std::move(work)] {
    try {
      work();
      const double took = std::chrono::duration<double>(Clock::now() - begin).count();
      if (took > longest_) longest_ = took;
    } catch (...) {
      outcome_ = std::current_exception();
    }
    done_ = true;
  });
  if (!config_.background) join();
  stall_ += std::chrono::duration<double>(Clock::now() - begin).count();
}

void RunSaver::save(Trainer& trainer, SnapshotMemory memory) {
  if (saved_ == trainer.step) return;
  const auto begin = Clock::now();
  auto snapshot = std::make_shared<Snapshot>(take_snapshot(trainer, memory));
  stall_ += std::chrono::duration<double>(Clock::now() - begin).count();
  const auto checkpoints = directory_.checkpoints();
  run([this, snapshot, checkpoints, keep = static_cast<int>(config_.keep),
       every = static_cast<uint64_t>(config_.keep_every_steps), stay = pinned()] {
    directory_.check_owner();
    metrics_.sync();  // what the checkpoint claims must be on disk
    save_checkpoint(checkpoints, *snapshot);
    auto steps = multiples(checkpoints, every);
    steps.insert(stay.begin(), stay.end());
    remove_old_checkpoints(checkpoints, keep, snapshot->state.step, steps);
  });
  if (failures_ == 0 || running_) saved_ = trainer.step;
  last_save_ = Clock::now();
}

void RunSaver::commit(Trainer& trainer) {
  save(trainer, SnapshotMemory::kView);  // nothing changes before join()
  const auto begin = Clock::now();
  join();
  stall_ += std::chrono::duration<double>(Clock::now() - begin).count();
  if (saved_ != trainer.step) rethrow_failure();
}

std::string RunSaver::news() {
  if (running_ && done_) join();
  return std::exchange(news_, {});
}

int RunSaver::error_code() {
  if (failures_ >= kMaxFailures) return static_cast<int>(ExitCode::kOther);
  if (Clock::now() - last_look_ < std::chrono::seconds(1)) return 0;
  last_look_ = Clock::now();
  return directory_.is_owner() ? 0 : static_cast<int>(ExitCode::kUsage);
}

void RunSaver::rethrow_failure() {
  directory_.check_owner();
  std::rethrow_exception(failure_);
}

bool RunSaver::better(const EvalResult& r) const {
  if (!best_step_) return true;
  return config_.keep_best == "loss" ? r.loss < best_figure_ : r.top1 > best_figure_;
}

void RunSaver::evaluated(Trainer& trainer, const EvalResult& r) {
  if (config_.keep_best == "none" || !better(r)) return;
  best_step_ = trainer.step;
  best_figure_ = config_.keep_best == "loss" ? r.loss : r.top1;
  save(trainer);
  const auto checkpoints = directory_.checkpoints();
  const auto name = checkpoint_path(checkpoints, trainer.step).filename().string();
  run([checkpoints, name] {
    if (std::filesystem::exists(checkpoints / name))  // its save may have failed
      write_file_atomic(checkpoints / kBestName, name + "\n");
  });
}

}  // namespace nf::train
