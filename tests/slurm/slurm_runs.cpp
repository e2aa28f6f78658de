// See slurm_runs.h.
#include "tests/slurm/slurm_runs.h"

#include <algorithm>
#include <set>

namespace nf::test {

namespace fs = std::filesystem;

namespace {

Outcome must(const std::vector<std::string>& command) {
  Outcome o = run(command);
  if (o.code != 0)
    throw std::runtime_error(command[0] + " ended with " + std::to_string(o.code) + ": " + o.err);
  return o;
}

// Steps 1, 2, 3, ... each once, with these losses.
std::string difference_of_losses(const std::vector<Json>& here, const std::vector<Json>& there) {
  for (size_t i = 0; i < std::max(here.size(), there.size()); ++i) {
    const std::string at = std::string("train line ").append(std::to_string(i + 1));
    if (i >= here.size() || i >= there.size()) return at + ": one of the logs is shorter; ";
    if (here[i]["step"] != i + 1) return at + " is step " + here[i]["step"].dump() + "; ";
    if (here[i]["loss"] != there[i]["loss"]) return at + ": another loss; ";
  }
  return here.empty() ? "no train lines; " : "";
}

std::set<std::string> evaluations(const std::vector<Json>& lines) {
  std::set<std::string> found;
  for (const auto& line : lines)
    found.insert(Json{line["step"], line["weights"], line["loss"]}.dump());
  return found;
}

// By the script, by Slurm for a preemption, by Slurm for a lost node.
bool is_requeue(const std::string& state) {
  return state == "PENDING" || state == "PREEMPTED" || state == "NODE_FAIL";
}

}  // namespace

SlurmRuns::SlurmRuns(SlurmLab& lab, double epochs,
                     const std::map<std::string, std::string>& overrides)
    : lab_(lab) {
  make_shapes_dataset(folder_ / "data", 29, 40);
  std::map<std::string, std::string> keys = {
      {"run.threads_per_rank", "1"},
      {"data.path", Json((folder_ / "data").string()).dump()},
      {"data.image_size", "32"},
      {"data.workers", "1"},
      {"model.name", "'nfnet_pico'"},
      {"model.depths", "[1, 1, 1, 1]"},
      {"model.widths", "[32, 32, 64, 64]"},
      {"batch.size", "12"},
      {"batch.micro_batches", "4"},
      {"schedule.epochs", std::to_string(epochs)},
      {"schedule.warmup_epochs", "0.2"},
      {"optimizer.learning_rate", "0.1"},
      {"ema.decay", "0.9"},
      {"checkpoint.every_steps", "5"},
      {"evaluate.split", "'holdout'"},
      {"log.tensorboard", "false"}};
  for (const auto& [key, value] : overrides) keys[key] = value;
  std::ofstream file(config());
  for (const auto& [key, value] : keys) file << key << " = " << value << "\n";
}

std::vector<SlurmRun> SlurmRuns::submit(const std::string& name,
                                        const std::vector<std::string>& how,
                                        const std::vector<int>& tasks) {
  const fs::path output = folder_ / name;
  std::vector<std::string> command = {program("nf-launch").string(),
                                      "sbatch",
                                      "--config",
                                      config().string(),
                                      "--output",
                                      output.string(),
                                      "--set",
                                      tasks.empty() ? "run.seed=10" : "run.seed=1{task}"};
  command.insert(command.end(), how.begin(), how.end());
  std::string job = must(command).out;
  job = job.substr(0, job.find('\n'));
  std::vector<SlurmRun> runs;
  if (tasks.empty()) runs.push_back({name, job, output, output / ("slurm-" + job + ".log"), 10});
  for (const int task : tasks) {
    const std::string number = std::to_string(task);
    runs.push_back({name + "_" + number, job + "_" + number, output / ("task_" + number),
                    output / ("slurm-" + job + "_" + number + ".log"), 10 + task});
  }
  return runs;
}

std::vector<Json> SlurmRuns::metrics(const SlurmRun& run, const std::string& kind) {
  std::vector<Json> lines;
  for (const auto& line : read_jsonl(run.directory / "metrics.jsonl"))
    if (line.value("kind", "") == kind) lines.push_back(line);
  return lines;
}

int64_t SlurmRuns::step(const SlurmRun& run) {
  const auto lines = metrics(run, "train");
  return lines.empty() ? 0 : lines.back()["step"].get<int64_t>();
}

int64_t SlurmRuns::last_step(int64_t seed) {
  SlurmRun run;
  run.directory = undisturbed(seed);
  return step(run);
}

size_t SlurmRuns::lives(const SlurmRun& run) {
  const std::string text = slurp(run.log);
  size_t n = 0;
  for (size_t at = 0; (at = text.find("] starting on ", at)) != std::string::npos; ++at) ++n;
  return n;
}

bool SlurmRuns::is_over(const SlurmRun& run) const {
  const auto ended = lab_.ended();
  const auto found = ended.find(run.job);
  if (found == ended.end()) return false;
  for (const auto& state : found->second) {
    if (is_requeue(state)) continue;
    const bool result = fs::exists(run.directory / "result.json");
    if (state != "COMPLETED" || !result)
      throw std::runtime_error(run.name + ": job " + run.job + " is " + state +
                               (result ? "" : " without a result") + "\n" + slurp(run.log));
  }
  return found->second.back() == "COMPLETED";
}

void SlurmRuns::wait(const std::vector<SlurmRun>& runs,
                     const std::function<bool(const SlurmRun&)>& enough) {
  std::vector<const SlurmRun*> left;
  const auto all_done = [&] {
    left.clear();
    for (const auto& run : runs)
      if (!is_over(run) && !enough(run)) left.push_back(&run);
    return left.empty();
  };
  try {
    wait_until("runs", all_done, 400);
  } catch (const std::runtime_error& e) {
    std::string text = e.what() + test::run({"squeue"}).out;
    if (!left.empty()) text += left[0]->name + "\n" + slurp(left[0]->log);
    throw std::runtime_error(text);
  }
}

void SlurmRuns::wait(const std::vector<SlurmRun>& runs) {
  wait(runs, [](const SlurmRun&) { return false; });
}

fs::path SlurmRuns::undisturbed(int64_t seed) {
  fs::path& folder = references_[seed];
  if (!folder.empty()) return folder;
  folder = folder_ / (std::string("undisturbed_").append(std::to_string(seed)));
  must({program("nf-train").string(), "--config", config().string(), "--set",
        std::string("run.seed=").append(std::to_string(seed)), "--output", folder.string()});
  return folder;
}

std::string SlurmRuns::differences(const SlurmRun& run) {
  SlurmRun other = run;
  other.directory = undisturbed(run.seed);
  const auto result = [](const SlurmRun& r) {
    return Json::parse(slurp(r.directory / "result.json"));
  };
  std::string found;
  for (const char* key : {"model_sha256", "heldout_loss", "heldout_loss_ema", "images_seen"})
    if (result(run)[key] != result(other)[key]) found += std::string("another ") + key + "; ";
  if (slurp(run.directory / "ledger.jsonl") != slurp(other.directory / "ledger.jsonl"))
    found += "another ledger; ";
  found += difference_of_losses(metrics(run, "train"), metrics(other, "train"));
  const auto evals = metrics(run, "eval");
  if (evaluations(evals) != evaluations(metrics(other, "eval"))) found += "other evaluations; ";
  if (evaluations(evals).size() != evals.size()) found += "an evaluation twice; ";
  const auto ended = lab_.ended();
  // A life may end before it comes to training.
  if (lives(run) > ended.at(run.job).size()) found += "more lives than Slurm knows of; ";
  const std::string log = slurp(run.log);
  if (log.find(", life 1] starting on") == std::string::npos) found += "the log lost its start; ";
  if (test::run({program("nf-audit").string(), "run", run.directory.string()}).code != 0)
    found += "nf-audit objects; ";
  return found;
}

}  // namespace nf::test
