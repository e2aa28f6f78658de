// See metrics.h.
#include "trainer/metrics.h"

#include <cmath>

#include "core/hash.h"
#include "core/process_memory.h"

namespace nf::train {
namespace {

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

bool keep_metric(const Json& line, uint64_t first_step) {
  const std::string kind = line.value("kind", "");
  return (kind != "train" && kind != "eval") || line.value("step", uint64_t{0}) <= first_step;
}

}  // namespace

Metrics::Metrics(const RunDirectory& directory, uint64_t first_step, uint64_t first_position,
                 int ranks, bool tensorboard)
    : accounting_(read_accounting(directory.file("metrics.jsonl"))),
      start_(std::chrono::steady_clock::now()),
      ranks_(ranks),
      metrics_(directory.file("metrics.jsonl"),
               [&](const Json& line) { return keep_metric(line, first_step); }),
      ledger_(directory.file("ledger.jsonl"),
              [&](const Json& line) { return line.value("step", uint64_t{0}) <= first_step; }),
      quarantine_path_(directory.file("quarantine.jsonl")) {
  read_jsonl(directory.file("metrics.jsonl"), [&](const Json& line) {
    if (line.value("kind", "") == "eval")
      evals_.push_back({line.value("step", uint64_t{0}), line.value("weights", ""),
                        line.value("loss", 0.0), line.value("top1", 0.0)});
  });
  if (std::filesystem::exists(quarantine_path_)) {
    quarantine_ = std::make_unique<JsonlWriter>(quarantine_path_, [&](const Json& line) {
      const bool keep = line.value("position", uint64_t{0}) < first_position;
      bad_samples_ += keep ? 1 : 0;
      return keep;
    });
  }
  if (tensorboard)
    events_ = std::make_unique<EventFile>(directory.file("tensorboard"), first_step + 1);
}

void Metrics::start(const Json& facts) {
  Json line = {{"kind", "start"},
               {"time", now_seconds()},
               {"ranks", ranks_},
               {"restarts", accounting_.sessions},
               {"device_seconds_before", accounting_.device_seconds}};
  line.update(facts);
  metrics_.append(line);
}

void Metrics::train(const StepResult& r, double epoch, const Speed& speed) {
  Json line = {{"kind", "train"},
               {"step", r.step},
               {"position", r.end},
               {"epoch", epoch},
               {"loss", r.loss},
               {"top1", r.top1},
               {"learning_rate", r.learning_rate},
               {"grad_norm", r.grad_norm},
               {"agc_clipped", r.agc_clipped},
               {"agc_units", r.agc_units},
               {"images_per_second", speed.images_per_second},
               {"data_wait_fraction", speed.data_wait_fraction},
               {"mfu", speed.mfu},
               {"time", now_seconds()}};
  if (!r.not_finite.empty()) line["skipped"] = r.not_finite;
  metrics_.append(line);
  if (events_)
    events_->add(r.step, {{"train/loss", r.loss},
                          {"train/top1", r.top1},
                          {"train/learning_rate", r.learning_rate},
                          {"train/grad_norm", r.grad_norm},
                          {"train/epoch", epoch},
                          {"speed/images_per_second", speed.images_per_second},
                          {"speed/data_wait_fraction", speed.data_wait_fraction},
                          {"speed/mfu", speed.mfu}});
}

void Metrics::ledger(const StepResult& r) {
  ledger_.append(data::to_json(data::LedgerLine{r.step, r.begin, r.end, r.digest}));
}

void Metrics::quarantine(const Json& bad_sample) {
  const std::lock_guard lock(quarantine_mutex_);
  if (!quarantine_) quarantine_ = std::make_unique<JsonlWriter>(quarantine_path_);
  quarantine_->append(bad_sample);
  ++bad_samples_;
}

void Metrics::eval(uint64_t step, const std::string& split, const std::string& weights,
                   const EvalResult& r) {
  Json line = {{"kind", "eval"}, {"step", step}, {"split", split}, {"weights", weights}};
  line.update(to_json(r));
  line["time"] = now_seconds();
  metrics_.append(line);
  evals_.push_back({step, weights, r.loss, r.top1});
  const std::string name = split + (weights == "ema" ? "_ema" : "");
  if (events_)
    events_->add(step,
                 {{name + "/loss", r.loss}, {name + "/top1", r.top1}, {name + "/top5", r.top5}});
}

void Metrics::end(const std::string& reason, uint64_t step) {
  metrics_.append({{"kind", "end"},
                   {"step", step},
                   {"reason", reason},
                   {"time", now_seconds()},
                   {"peak_memory_bytes", peak_resident_bytes()}});
  metrics_.sync();
}

void Metrics::sync() {
  metrics_.sync();
  ledger_.sync();
  const std::lock_guard lock(quarantine_mutex_);
  if (quarantine_) quarantine_->sync();
}

bool Metrics::has_eval(uint64_t step, const std::string& weights) const {
  for (const Eval& e : evals_)
    if (e.step == step && e.weights == weights) return true;
  return false;
}

std::optional<Metrics::Best> Metrics::best_eval(const std::string& by) const {
  bool averaged = false;
  for (const Eval& e : evals_) averaged = averaged || e.weights == "ema";
  std::optional<Best> best;
  for (const Eval& e : evals_) {
    if (averaged && e.weights != "ema") continue;
    const double figure = by == "loss" ? e.loss : e.top1;
    if (!best || (by == "loss" ? figure < best->figure : figure > best->figure))
      best = Best{e.step, figure};
  }
  return best;
}

double Metrics::device_seconds() const {
  return accounting_.device_seconds +
         ranks_ * std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
}

}  // namespace nf::train
