// See loop.h.
#include "trainer/loop.h"

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
#include "trainer/step.h"

namespace nf::train {
namespace {
namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point t) {
  return std::chrono::duration<double>(Clock::now() - t).count();
}

class Loop {
 public:
  Loop(Trainer& trainer, const LoopOptions& options, const StopWatch& watch)
      : t_(trainer), options_(options), watch_(watch), root_(trainer.comm.rank() == 0) {}

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
  void save();
  void evaluate_now();
  void write_result();
  bool save_is_due(uint64_t step) const;
  bool evaluation_is_due(uint64_t step) const {
    const auto every = static_cast<uint64_t>(t_.config.evaluate.every_steps);
    return t_.eval_set && ((every > 0 && step % every == 0) || step == last_step_);
  }
  void say(const std::string& text) {
    if (root_ && !options_.quiet) progress_->message(text);
  }

  Trainer& t_;
  const LoopOptions& options_;
  const StopWatch& watch_;
  const bool root_;
  uint64_t last_step_ = 0;  // of this invocation: the run's end or limit.steps
  uint64_t saved_step_ = UINT64_MAX;
  Clock::time_point last_save_ = Clock::now();
  std::unique_ptr<RunDirectory> directory_;   // rank 0
  std::unique_ptr<Metrics> metrics_;          // rank 0
  std::unique_ptr<Progress> progress_;        // rank 0
  std::unique_ptr<data::TraceWriter> trace_;  // with data.trace
  double peak_flops_ = 0, flops_per_image_ = 0;
  Clock::time_point window_start_;
  uint64_t window_images_ = 0;
  double window_wait_ = 0;
  std::map<std::string, EvalResult> last_eval_;  // by "raw", "ema"
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
    saved_step_ = s.step;
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
  share(t_.weights);
  share(t_.sgd.momentum_arena());
  if (t_.ema) share(t_.ema->arena());
  if (!root_) t_.seek(static_cast<uint64_t>(head[1]));
}

void Loop::start_log() {
  flops_per_image_ = 6.0 * model::forward_macs(t_.net.spec(), t_.config.data.image_size);
  on_root(t_.comm, [&] {
    metrics_ = std::make_unique<Metrics>(*directory_, t_.step, t_.position(), t_.comm.size(),
                                         t_.config.log.tensorboard);
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
                     {"peak_tflops_per_rank", peak_flops_ / 1e12}});
  });
  if (t_.config.data.trace)
    trace_ = std::make_unique<data::TraceWriter>(options_.output, t_.plan.rank);
  window_start_ = Clock::now();
  window_wait_ = t_.loader->wait_seconds();
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
  say("this run is complete: " + directory_->file("result.json").string());
  return true;
}

StepResult Loop::do_step() {
  StepHooks hooks;
  hooks.stop_request = [&] { return static_cast<uint64_t>(watch_.reason()); };
  if (trace_)
    hooks.taken = [&](uint64_t step, const data::MicroBatch& batch) {
      trace_->append(step, batch.range.begin, t_.sampler.positions_per_epoch(), batch.samples);
    };
  return train_step(t_, hooks);
}

void Loop::log_step(const StepResult& r) {
  window_images_ += r.end - r.begin;
  if (!root_) return;
  metrics_->ledger(r);
  const double passed = seconds_since(window_start_);
  Metrics::Speed speed;
  speed.images_per_second = static_cast<double>(window_images_) / std::max(1e-9, passed);
  speed.data_wait_fraction = (t_.loader->wait_seconds() - window_wait_) / std::max(1e-9, passed);
  speed.mfu = speed.images_per_second * flops_per_image_ / (peak_flops_ * t_.comm.size());
  if (!options_.quiet)
    progress_->update(r.step, t_.epoch(), r.loss, r.learning_rate, speed.images_per_second);
  if (r.step % static_cast<uint64_t>(t_.config.log.every_steps) != 0 && r.step != last_step_)
    return;
  metrics_->train(r, t_.epoch(), speed);
  window_start_ = Clock::now();
  window_images_ = 0;
  window_wait_ = t_.loader->wait_seconds();
}

// Undecodable samples of all ranks go to rank 0's quarantine.jsonl; too many end the run, on all
// ranks alike.
void Loop::collect_bad_samples(const StepResult& r) {
  if (r.bad == 0) return;
  Json mine = Json::array();
  for (const auto& b : r.bad_here)
    mine.push_back(
        {{"step", r.step}, {"position", b.position}, {"sample", b.sample}, {"reason", b.reason}});
  const std::string text = mine.dump();
  const auto world = static_cast<size_t>(t_.comm.size());
  std::vector<int64_t> sizes(world, 0);
  sizes[static_cast<size_t>(t_.comm.rank())] = static_cast<int64_t>(text.size());
  t_.comm.all_reduce_sum(sizes);
  std::vector<size_t> bytes(sizes.begin(), sizes.end());
  size_t total = 0;
  for (const size_t b : bytes) total += b;
  std::string all(total, '\0');
  t_.comm.all_gather(reinterpret_cast<const std::byte*>(text.data()),
                     reinterpret_cast<std::byte*>(all.data()), bytes);
  on_root(t_.comm, [&] {
    size_t at = 0;
    for (const size_t b : bytes) {
      for (const auto& line : Json::parse(all.substr(at, b))) {
        say("warning: sample " + line["sample"].dump() +
            " is not used: " + line["reason"].get<std::string>());
        metrics_->quarantine(line);
      }
      at += b;
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

bool Loop::save_is_due(uint64_t step) const {
  const auto& c = t_.config.checkpoint;
  if (step == last_step_) return true;
  if (c.every_steps > 0 && step % static_cast<uint64_t>(c.every_steps) == 0) return true;
  return c.every_minutes > 0 && seconds_since(last_save_) > c.every_minutes * 60;
}

void Loop::save() {
  if (!root_ || saved_step_ == t_.step) return;
  metrics_->sync();
  save_checkpoint(directory_->checkpoints(), take_snapshot(t_));
  remove_old_checkpoints(directory_->checkpoints(), static_cast<int>(t_.config.checkpoint.keep),
                         t_.step);
  saved_step_ = t_.step;
  last_save_ = Clock::now();
}

// Raw weights, and the average where there is one.
void Loop::evaluate_now() {
  const auto& e = t_.config.evaluate;
  EvalOptions options;
  options.preprocess = eval_augment(e.image_size > 0 ? e.image_size : t_.config.data.image_size,
                                    e.resize_margin, t_.config.data.interpolation);
  options.chunk = e.chunk;
  options.workers = static_cast<int>(t_.config.data.workers);
  options.loss_kind = t_.config.loss.kind;
  const auto one = [&](const std::string& weights) {
    const EvalResult r = evaluate(t_.net, *t_.eval_set, options, t_.comm);
    last_eval_[weights] = r;
    if (root_ && !metrics_->has_eval(t_.step, weights))
      metrics_->eval(t_.step, e.split, weights, r);
    say(fmt::format("step {}  {} ({}): loss {:.4f}  top-1 {:.2f} %  top-5 {:.2f} %", t_.step,
                    e.split, weights, r.loss, 100 * r.top1, 100 * r.top5));
  };
  one("raw");
  if (t_.ema) {
    at::NoGradGuard no_grad;
    const at::Tensor raw = t_.weights.clone();
    t_.weights.copy_(t_.ema->arena());
    one("ema");
    t_.weights.copy_(raw);
  }
  window_start_ = Clock::now();
  window_images_ = 0;
  window_wait_ = t_.loader->wait_seconds();
}

void Loop::write_result() {
  if (!root_) return;
  const model::ModelCost cost = model::model_cost(t_.net.spec());
  const double images = static_cast<double>(t_.position());
  Json r = {{"steps", t_.step},
            {"images_seen", t_.position()},
            {"epochs", t_.epoch()},
            {"complete", t_.step == t_.total_steps()},
            {"model", t_.config.model.name},
            {"parameters", cost.parameters},
            {"train_flops_per_image", flops_per_image_},
            {"train_flops", flops_per_image_ * images}};
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
  open_run();
  resume();
  if (finished_before()) return ExitCode::kDone;
  start_log();
  progress_ = std::make_unique<Progress>(t_.step, last_step_);
  if (t_.step > 0 && t_.step < last_step_ && evaluation_is_due(t_.step))
    evaluate_now();  // killed while it evaluated
  while (t_.step < last_step_) {
    const StepResult r = do_step();
    log_step(r);
    collect_bad_samples(r);
    const bool stop = r.stop != 0 && t_.step < last_step_;
    if (stop || save_is_due(t_.step)) save();
    if (stop) {
      if (root_) metrics_->end("preempted", t_.step);
      say(fmt::format("stopped by {} after step {}; the state is saved, run the same command again",
                      (r.stop & static_cast<uint64_t>(StopReason::kSignal)) != 0
                          ? "a signal"
                          : "limit.wall_minutes",
                      t_.step));
      return ExitCode::kPreempted;
    }
    if (t_.step < last_step_ && evaluation_is_due(t_.step)) evaluate_now();
  }
  save();
  if (t_.eval_set) evaluate_now();
  write_result();
  t_.comm.barrier();
  return ExitCode::kDone;
}

}  // namespace

ExitCode run_training(Trainer& trainer, const LoopOptions& options, const StopWatch& watch) {
  return Loop(trainer, options, watch).run();
}

}  // namespace nf::train
