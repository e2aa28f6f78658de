// See trial_store.h.
#include "launch/trial_store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <limits>
#include <map>

#include "core/atomic_file.h"
#include "core/error.h"

namespace nf::launch {

namespace fs = std::filesystem;
using analysis::RunStatus;

namespace {

Json read_json(const fs::path& file) {
  if (!fs::exists(file)) return {};
  const Json json = Json::parse(read_file(file), nullptr, false);
  return json.is_object() ? json : Json();
}

bool is_locked(const fs::path& file) {
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool locked = ::flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  ::close(fd);
  return locked;
}

RunStatus status_of(const std::string& text) {
  if (text == "done") return RunStatus::kDone;
  return text == "diverged" ? RunStatus::kDiverged : RunStatus::kFailed;
}

}  // namespace

TrialLock::~TrialLock() {
  if (fd_ >= 0) ::close(fd_);
}

void TrialStore::create() const {
  std::error_code error;
  fs::create_directories(folder_, error);
  if (error) throw_io_error(folder_, "cannot create", error.value());
}

TrialState TrialStore::read(const std::string& name) const {
  TrialState state;
  state.verdict = read_json(file(name, ".json"));
  state.known = state.final() || fs::exists(run_dir(name));
  if (!state.known) return state;
  state.result = read_json(run_dir(name) / "result.json");
  if (state.final())
    state.status = status_of(state.verdict.value("status", "failed"));
  else if (state.result.is_object() && state.result.value("complete", false))
    state.status = RunStatus::kDone;  // not judged yet
  else
    state.status = is_locked(file(name, ".lock")) ? RunStatus::kRunning : RunStatus::kPreempted;
  return state;
}

Json TrialStore::finished_result(const std::string& name) const {
  const Json result = read_json(run_dir(name) / "result.json");
  return result.is_object() && result.value("complete", false) ? result : Json();
}

std::optional<TrialLock> TrialStore::try_lock(const std::string& name) const {
  const fs::path path = file(name, ".lock");
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0) throw_io_error(path, "cannot open", errno);
  if (::flock(fd, LOCK_EX | LOCK_NB) == 0) return TrialLock(fd);
  const int why = errno;
  ::close(fd);
  if (why != EWOULDBLOCK && why != EINTR) throw_io_error(path, "cannot lock", why);
  return std::nullopt;
}

void TrialStore::write_verdict(const std::string& name, const Json& verdict) const {
  write_file_atomic(file(name, ".json"), verdict.dump(2) + "\n");
}

void TrialStore::forget_failures(const std::vector<std::string>& names) const {
  for (const auto& name : names) {
    const Json verdict = read_json(file(name, ".json"));
    if (verdict.is_object() && verdict.value("status", "") == "failed")
      fs::remove(file(name, ".json"));
  }
}

std::optional<double> heldout_loss(const Json& result) {
  if (!result.is_object() || !result.contains("heldout_loss")) return std::nullopt;
  const Json& loss = result["heldout_loss"];
  return loss.is_number() ? loss.get<double>() : std::numeric_limits<double>::infinity();
}

bool has_diverged(double loss, int64_t classes) {
  return !std::isfinite(loss) || loss > std::log(static_cast<double>(classes)) + 1;
}

std::vector<Trial> all_trials(const SweepPlan& plan, const SweepConfig& config) {
  const TuningRules rules = config.rules();
  std::vector<Trial> trials;
  for (size_t i = 0; i < plan.cells.size(); ++i)
    for (int k = rules.k_low; k <= rules.k_high; ++k)
      for (const int64_t seed : config.seeds)
        trials.push_back({i, k, seed, trial_name(plan.cells[i], k, seed)});
  return trials;
}

std::vector<CellTrials> read_trials(const TrialStore& store, const SweepPlan& plan,
                                    const SweepConfig& config) {
  struct Seen {
    size_t finished = 0;
    double logs = 0, loss = 0;
    bool failed = false;
  };
  std::vector<std::map<int, Seen>> seen(plan.cells.size());
  for (const auto& trial : all_trials(plan, config)) {
    const TrialState state = store.read(trial.name);
    if (!state.final()) continue;
    Seen& s = seen[trial.cell][trial.k];
    ++s.finished;
    s.failed = s.failed || state.status == RunStatus::kFailed;
    s.loss = state.status == RunStatus::kDone ? heldout_loss(state.result).value_or(std::nan(""))
                                              : std::numeric_limits<double>::infinity();
    s.logs += std::log(s.loss);
  }
  std::vector<CellTrials> out(plan.cells.size());
  const size_t seeds = config.seeds.size();
  for (size_t i = 0; i < seen.size(); ++i)
    for (const auto& [k, s] : seen[i]) {
      if (s.failed)
        out[i][k] = std::nan("");
      else if (s.finished == seeds)
        out[i][k] = seeds == 1 ? s.loss : std::exp(s.logs / static_cast<double>(seeds));
    }
  return out;
}

namespace {

// The shortest text that reads back to the same bits; empty for what is not known.
std::string number(const Json& value) {
  if (value.is_number_integer()) return fmt::format("{}", value.get<int64_t>());
  if (!value.is_number()) return "";
  const double v = value.get<double>();
  return std::isfinite(v) ? fmt::format("{}", v) : std::string();
}

Json field(const Json& json, const char* key, const Json& missing = {}) {
  return json.is_object() && json.contains(key) ? json[key] : missing;
}

std::string csv_row(const Trial& trial, const TrialState& state, const PlannedCell& cell,
                    const SweepConfig& config) {
  const Json& r = state.result;
  const analysis::Device device = config.planned_device();
  const Json hours = field(r, "device_hours", field(state.verdict, "device_hours"));
  Json cost;
  if (hours.is_number() && config.price().usd_per_hour > 0)
    cost = analysis::cost_usd(hours.get<double>(), device, config.price());
  const bool evaluated = state.final() && state.status != RunStatus::kFailed;
  const auto measured = [&](const char* key) {
    return evaluated ? number(field(r, key)) : std::string();
  };
  return fmt::format(
      "{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}\n", trial.name, cell.model,
      number(field(r, "parameters", cell.params)),
      number(field(r, "train_flops_per_image", cell.flops_per_image)), cell.epochs,
      number(field(r, "images_seen", cell.images)), config.rules().grid.rate(trial.k), config.batch,
      config.image_size, trial.seed, number(field(r, "train_flops", cell.train_flops)),
      number(hours), number(cost), measured("heldout_loss"), measured("heldout_top1"),
      analysis::status_name(state.status), number(field(state.verdict, "images_missed")),
      measured("heldout_loss_se"), config.device.name, number(field(r, "restarts")), "raw",
      field(r, "model_sha256", "").get<std::string>());
}

std::string results_csv(const TrialStore& store, const SweepPlan& plan, const SweepConfig& config) {
  std::string out =
      "run,model,params,train_flops_per_image,epochs,images_seen,learning_rate,batch,image_size,"
      "seed,train_flops,device_hours,cost_usd,heldout_loss,heldout_top1,status,images_missed,"
      "heldout_loss_se,device,restarts,heldout_weights,model_sha256\n";
  const auto verdicts =
      judge_sweep(plan.tuning(), read_trials(store, plan, config), config.rules());
  for (const auto& trial : all_trials(plan, config)) {
    const TrialState state = store.read(trial.name);
    const auto& next = verdicts[trial.cell].next;
    if (state.known || std::find(next.begin(), next.end(), trial.k) != next.end())
      out += csv_row(trial, state, plan.cells[trial.cell], config);
  }
  return out;
}

}  // namespace

fs::path write_results(const TrialStore& store, const SweepPlan& plan, const SweepConfig& config) {
  write_file_atomic(store.results(), results_csv(store, plan, config));
  return store.results();
}

}  // namespace nf::launch
