// See loop.h.
#include "trainer/loop.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <cmath>

#include "core/atomic_file.h"
#include "core/check.h"
#include "core/hash.h"
#include "core/version.h"
#include "data_pipeline/ledger.h"
#include "models/nfnet/cost.h"
#include "trainer/agreement.h"
#include "trainer/device_peak.h"
#include "trainer/evaluate.h"
#include "trainer/memory.h"
#include "trainer/run_saver.h"
#include "trainer/step.h"
#include "trainer/step_profile.h"
#include "trainer/train_cost.h"

namespace nf::train {
namespace {
namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point t) {
  return std::chrono::duration<double>(Clock::now() - t).count();
}

class Loop {
 public:
  Loop(Trainer& trainer, const LoopOptions& options, StopWatch& watch)
      : t_(trainer),
        options_(options),
        watch_(watch),
        root_(trainer.comm.rank() == 0),
        profile_(parse_step_range(trainer.config.train.profile), options.output,
                 trainer.comm.rank(), trainer.reducer) {}

  ExitCode run();

 private:
  void open_run();
  void resume();
  void share_state(bool resumed);
  void start_log();
  bool finished_before();
  StepResult do_step();
  void log_step(const StepResult& r);
  void collect_bad_samples(const StepResult& r);
  void tell_about_saves(const StepResult& r);
  void evaluate_now();
  void write_result();
  bool evaluation_is_due(uint64_t step) const {
    const auto every = static_cast<uint64_t>(t_.config.evaluate.every_steps);
    return t_.eval_set && ((every > 0 && step % every == 0) || step == last_step_);
  }
  double flops_until(uint64_t position) const {
    return train_flops(t_.config, t_.net.spec(), t_.plan, position);
  }
  void restart_window() {
    window_start_ = Clock::now();
    window_begin_ = t_.position();
    window_wait_ = t_.loader->wait_seconds();
  }
  void enter(Section section) {
    if (options_.activity) options_.activity->enter(section, t_.step);
  }
  void say(const std::string& text) {
    if (root_ && !options_.quiet) progress_->message(text);
  }

  Trainer& t_;
  const LoopOptions& options_;
  StopWatch& watch_;
  const bool root_;
  uint64_t last_step_ = 0;  // of this invocation: the run's end or limit.steps
  std::optional<uint64_t> resumed_step_;
  std::unique_ptr<RunDirectory> directory_;   // rank 0
  std::unique_ptr<Metrics> metrics_;          // rank 0
  std::unique_ptr<RunSaver> saver_;           // rank 0
  std::unique_ptr<Progress> progress_;        // rank 0
  std::unique_ptr<data::TraceWriter> trace_;  // with data.trace
  double peak_flops_ = 0;
  Clock::time_point window_start_;
  uint64_t window_begin_ = 0;  // position
  double window_wait_ = 0;
  std::map<std::string, EvalResult> last_eval_;  // by "raw", "ema"
  double last_step_seconds_ = 0, slowest_step_ = 0;
  StepProfile profile_;
};

// Takes the run directory, compares configs and loads what is to be continued.
void Loop::open_run() {
  on_root(t_.comm, [&] {
    directory_ = std::make_unique<RunDirectory>(options_.output);
    if (options_.resume == "never" && directory_->has_run())
      throw Error(ExitCode::kUsage, options_.output.string(),
                  "holds a run already, and --resume never was given",
                  "use another --output, or --resume auto to continue it");
    directory_->claim(t_.config);
    sweep_temporary(directory_->checkpoints());
    data::write_run_order(directory_->path(), t_.order());
  });
}

void Loop::resume() {
  bool resumed = false;
  on_root(t_.comm, [&] {
    std::optional<Loaded> loaded;
    if (options_.resume == "auto") {
      std::vector<std::string> warnings;
      loaded = load_latest(directory_->checkpoints(), &warnings);
      for (const auto& w : warnings) say("warning: " + w);
    } else if (options_.resume != "never") {
      loaded = load_checkpoint(options_.resume);
    }
    if (!loaded) return;
    const TrainState& s = loaded->snapshot.state;
    if (s.fingerprint != t_.train_set.fingerprint())
      throw Error(ExitCode::kData, t_.config.data.path,
                  "the data set is not the one this run began with (fingerprint " +
                      t_.train_set.fingerprint() + ", checkpoint " + s.fingerprint + ")",
                  "give the run's own data set, or use another --output");
    if (s.config_hash != config_hash(t_.config.fields()))
      throw Error(ExitCode::kUsage, loaded->directory.string(),
                  "the checkpoint was made with another config",
                  "compare its run's config.toml with this one");
    restore(t_, loaded->snapshot);
    resumed = true;
    resumed_step_ = s.step;
    say(fmt::format("resuming from {} ({} of {} updates done)", loaded->directory.string(), s.step,
                    t_.total_steps()));
  });
  share_state(resumed);
}

// Rank 0's weights, momentum, average and step on every rank.
void Loop::share_state(bool resumed) {
  std::array<int64_t, 2> head = {resumed ? 1 : 0, static_cast<int64_t>(t_.step)};
  t_.comm.broadcast(std::as_writable_bytes(std::span(head)), 0);
  if (head[0] == 0) {
    together(t_.comm, [&] { initialize_weights(t_); });
    return;
  }
  const auto share = [&](const at::Tensor& tensor) {
    at::Tensor host = tensor.detach().to(at::kCPU).contiguous();
    t_.comm.broadcast({static_cast<std::byte*>(host.data_ptr()), host.nbytes()}, 0);
    if (!host.is_same(tensor)) tensor.detach().copy_(host);
  };
  at::NoGradGuard no_grad;
  if (!t_.shared_state) {
    share(t_.weights);
    share(t_.sgd.momentum_arena());
    if (t_.ema) share(t_.ema->arena());
  }
  if (!root_) t_.seek(static_cast<uint64_t>(head[1]));
}

void Loop::start_log() {
  const MemoryEstimate memory = estimate_memory(t_.config, t_.net.spec(), t_.comm.size(),
                                                t_.total_steps(), t_.recompute_blocks);
  say(to_text(memory));
  on_root(t_.comm, [&] {
    metrics_ = std::make_unique<Metrics>(*directory_, t_.step, t_.position(), t_.comm.size(),
                                         t_.config.log.tensorboard);
    saver_ =
        std::make_unique<RunSaver>(*directory_, *metrics_, t_.config.checkpoint, resumed_step_);
    peak_flops_ = peak_flops(t_.device, t_.config.run.peak_tflops);
    fs::remove(directory_->file("result.json"));  // of a shorter limit.steps: this run is not done
    metrics_->start({{"step", t_.step},
                     {"version", kVersion},
                     {"command", options_.command},
                     {"device", t_.device.str()},
                     {"threads_per_rank", t_.config.run.threads_per_rank},
                     {"parameters", model::model_cost(t_.net.spec()).parameters},
                     {"samples", t_.train_set.size()},
                     {"fingerprint", t_.train_set.fingerprint()},
                     {"config_hash", config_hash(t_.config.fields())},
                     {"recompute", t_.recompute_blocks},
                     {"memory_estimate_bytes", memory.total()},
                     {"peak_tflops_per_rank", peak_flops_ / 1e12}});
  });
  if (t_.config.data.trace)
    trace_ = std::make_unique<data::TraceWriter>(options_.output, t_.plan.rank);
  restart_window();
}

// A finished run says so and leaves at once.
bool Loop::finished_before() {
  std::string text;
  if (root_) {
    const fs::path result = directory_->file("result.json");
    if (fs::exists(result) && t_.step >= last_step_) {
      const Json r = Json::parse(read_file(result), nullptr, false);
      if (r.is_object() && r.value("steps", uint64_t{0}) == t_.step) text = "done";
    }
  }
  if (broadcast_string(t_.comm, text) != "done") return false;
  say("this run is complete: " + (options_.output / "result.json").string());
  return true;
}

StepResult Loop::do_step() {
  StepHooks hooks;
  hooks.stop_request = [&] { return static_cast<uint64_t>(watch_.reason()); };
  hooks.error_code = [&] { return saver_ ? saver_->error_code() : 0; };
  hooks.last_step_seconds = last_step_seconds_;
  hooks.activity = options_.activity;
  enter(Section::kStep);
  const auto begin = Clock::now();
  if (trace_)
    hooks.taken = [&](uint64_t step, const data::MicroBatch& batch) {
      trace_->append(step, batch.range.begin, t_.sampler.positions_per_epoch(), batch.samples);
    };
  hooks.timeline = profile_.before(t_.step + 1);
  StepResult r = train_step(t_, hooks);
  profile_.after(t_.step, r.stop != 0 || t_.step == last_step_);
  last_step_seconds_ = seconds_since(begin);
  slowest_step_ = std::max(slowest_step_, r.slowest_seconds);
  if (options_.watchdog) options_.watchdog->learn_step(r.slowest_seconds);
  watch_.reserve(3 * slowest_step_ + (saver_ ? 2 * saver_->longest_save_seconds() : 0));
  return r;
}

void Loop::log_step(const StepResult& r) {
  if (!root_) return;
  metrics_->ledger(r);
  if (!r.not_finite.empty())
    say(fmt::format("warning: step {}: {} is not finite; the update is skipped", r.step,
                    r.not_finite));
  const double passed = seconds_since(window_start_);
  Metrics::Speed speed;
  speed.images_per_second = static_cast<double>(r.end - window_begin_) / std::max(1e-9, passed);
  speed.data_wait_fraction = (t_.loader->wait_seconds() - window_wait_) / std::max(1e-9, passed);
  speed.mfu = (flops_until(r.end) - flops_until(window_begin_)) / std::max(1e-9, passed) /
              (peak_flops_ * t_.comm.size());
  if (!options_.quiet)
    progress_->update(r.step, t_.epoch(), r.loss, r.learning_rate, speed.images_per_second);
  if (r.step % static_cast<uint64_t>(t_.config.log.every_steps) != 0 && r.step != last_step_)
    return;
  metrics_->train(r, t_.epoch(), speed);
  restart_window();
}

// Undecodable samples of all ranks go to rank 0's quarantine.jsonl; too many end the run, on all
// ranks alike.
void Loop::collect_bad_samples(const StepResult& r) {
  if (r.bad == 0) return;
  Json mine = Json::array();
  for (const auto& b : r.bad_here)
    mine.push_back(
        {{"step", r.step}, {"position", b.position}, {"sample", b.sample}, {"reason", b.reason}});
  const std::vector<std::string> all = gather_strings(t_.comm, mine.dump());
  on_root(t_.comm, [&] {
    for (const std::string& of_rank : all)
      for (const auto& line : Json::parse(of_rank)) {
        say("warning: sample " + line["sample"].dump() +
            " is not used: " + line["reason"].get<std::string>());
        metrics_->quarantine(line);
      }
    const double limit = t_.config.data.max_bad_fraction *
                         static_cast<double>(std::max(t_.position(), t_.train_set.size()));
    if (static_cast<double>(metrics_->bad_samples()) > limit)
      throw Error(ExitCode::kData, t_.config.data.path,
                  fmt::format("{} samples could not be used by step {}, more than "
                              "data.max_bad_fraction = {} allows",
                              metrics_->bad_samples(), r.step, t_.config.data.max_bad_fraction),
                  "quarantine.jsonl lists them; check the data set with nf-audit data, or raise "
                  "data.max_bad_fraction");
  });
}

// A failed save is a warning on rank 0; after the third in a row, or when another job took the run
// over, all ranks end, at the same step.
void Loop::tell_about_saves(const StepResult& r) {
  if (root_)
    if (const std::string news = saver_->news(); !news.empty())
      say("warning: step " + std::to_string(r.step) +
          ": the last checkpoint was not saved: " + news);
  if (r.error_code == 0) return;
  on_root(t_.comm, [&] { saver_->rethrow_failure(); });
}

// Raw weights, and the average where there is one.
void Loop::evaluate_now() {
  enter(Section::kEvaluate);
  const std::string& split = t_.config.evaluate.split;
  const EvalOptions options = evaluation_options(t_.config);
  const auto one = [&](const std::string& weights, const model::Nfnet& net) {
    const EvalResult r = evaluate(net, *t_.eval_set, options, t_.comm);
    last_eval_[weights] = r;
    if (root_ && !metrics_->has_eval(t_.step, weights)) metrics_->eval(t_.step, split, weights, r);
    say(fmt::format("step {}  {} ({}): loss {:.4f}  top-1 {:.2f} %  top-5 {:.2f} %", t_.step, split,
                    weights, r.loss, 100 * r.top1, 100 * r.top5));
  };
  one("raw", t_.net);
  if (t_.ema) one("ema", averaged_net(t_));
  on_root(t_.comm, [&] { saver_->evaluated(t_, last_eval_[t_.ema ? "ema" : "raw"]); });
  restart_window();
}

void Loop::write_result() {
  const model::ModelCost cost = model::model_cost(t_.net.spec());
  Json r = {{"steps", t_.step},
            {"images_seen", t_.position()},
            {"epochs", t_.epoch()},
            {"complete", t_.step == t_.total_steps()},
            {"model", t_.config.model.name},
            {"parameters", cost.parameters},
            {"train_flops_per_image",
             mean_flops_per_image(t_.config, t_.net.spec(), t_.plan, t_.position())},
            {"train_flops", flops_until(t_.position())}};
  for (const auto& [weights, e] : last_eval_) {
    const std::string suffix = weights == "ema" ? "_ema" : "";
    r["heldout_loss" + suffix] = e.loss;
    r["heldout_loss_se" + suffix] = e.loss_standard_error;
    r["heldout_top1" + suffix] = e.top1;
    r["heldout_top5" + suffix] = e.top5;
  }
  r["bad_samples"] = metrics_->bad_samples();
  r["seconds"] = metrics_->device_seconds() / t_.comm.size();
  r["device_hours"] = metrics_->device_seconds() / 3600;
  r["restarts"] = metrics_->restarts();
  r["save_stall_seconds"] = saver_->stall_seconds();
  r["seed"] = t_.config.run.seed;
  r["config_hash"] = config_hash(t_.config.fields());
  r["fingerprint"] = t_.train_set.fingerprint();
  r["model_sha256"] =
      sha256_file(checkpoint_path(directory_->checkpoints(), t_.step) / "model.safetensors");
  metrics_->end("done", t_.step);
  write_file_atomic(directory_->file("result.json"), r.dump(2) + "\n");
  if (!options_.quiet) progress_->finish();
  if (!options_.quiet) fmt::print("{}\n", r.dump(2));
}

ExitCode Loop::run() {
  last_step_ = t_.total_steps();
  if (t_.config.limit.steps > 0)
    last_step_ = std::min(last_step_, static_cast<uint64_t>(t_.config.limit.steps));
  progress_ = std::make_unique<Progress>(0, last_step_);
  enter(Section::kLoad);
  open_run();
  resume();
  if (finished_before()) return ExitCode::kDone;
  start_log();
  progress_ = std::make_unique<Progress>(t_.step, last_step_);
  if (t_.step > 0 && t_.step < last_step_ && evaluation_is_due(t_.step))
    evaluate_now();  // killed while it evaluated
  while (t_.step < last_step_) {
    const StepResult r = do_step();
    tell_about_saves(r);  // first: a job that was taken over logs no more
    log_step(r);
    collect_bad_samples(r);
    const bool stop = r.stop != 0 && t_.step < last_step_;
    if (root_ && !stop && t_.step < last_step_ && saver_->is_due(t_.step)) saver_->save(t_);
    if (stop) {
      enter(Section::kSave);
      on_root(t_.comm, [&] { saver_->commit(t_); });
      if (root_) metrics_->end("preempted", t_.step);
      say(fmt::format("stopped by {} after step {}; the state is saved, run the same command again",
                      (r.stop & static_cast<uint64_t>(StopReason::kSignal)) != 0
                          ? "a signal"
                          : "limit.wall_minutes",
                      t_.step));
      enter(Section::kEnd);
      return ExitCode::kPreempted;
    }
    if (t_.step < last_step_ && evaluation_is_due(t_.step)) evaluate_now();
  }
  enter(Section::kSave);
  on_root(t_.comm, [&] { saver_->commit(t_); });
  if (t_.eval_set) evaluate_now();
  enter(Section::kSave);
  on_root(t_.comm, [&] {
    saver_->commit(t_);
    write_result();
  });
  t_.comm.barrier();
  enter(Section::kEnd);
  return ExitCode::kDone;
}

}  // namespace

ExitCode run_training(Trainer& trainer, const LoopOptions& options, StopWatch& watch) {
  return Loop(trainer, options, watch).run();
}

}  // namespace nf::train
