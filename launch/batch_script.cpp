// See batch_script.h.
#include "launch/batch_script.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "core/check.h"
#include "core/error.h"
#include "launch/restart_policy.h"
#include "launch/templates.h"

namespace nf::launch {
namespace {

constexpr const char* kTask = "{task}";

std::string replaced(std::string text, const std::string& what, const std::string& by) {
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += by.size())
    text.replace(at, what.size(), by);
  return text;
}

// A word for the shell; in a template {task} becomes the array element's number.
std::string quoted(const std::string& word, BatchKind kind) {
  const std::string text = fmt::format("'{}'", replaced(word, "'", "'\\''"));
  return kind == BatchKind::kTemplate ? replaced(text, kTask, "'\"$SLURM_ARRAY_TASK_ID\"'") : text;
}

// A value of a #SBATCH line; sbatch reads quotes and backslashes there.
std::string plain(const std::string& option, const std::string& value) {
  const auto odd = [](unsigned char c) {
    return c < ' ' || c == 127 || c == '\'' || c == '"' || c == '\\';
  };
  if (std::any_of(value.begin(), value.end(), odd))
    throw Error(ExitCode::kUsage, option, fmt::format("'{}' holds a quote or a backslash", value),
                "the head of a batch script cannot hold it: use another name");
  return value.find(' ') == std::string::npos ? value : fmt::format("\"{}\"", value);
}

std::string directives(const BatchJob& job, const BatchResources& r) {
  std::string out;
  const auto add = [&](const char* option, const std::string& value) {
    if (!value.empty()) out += fmt::format("#SBATCH {}={}\n", option, plain(option, value));
  };
  const auto add_number = [&](const char* option, int64_t value) {
    if (value > 0) add(option, fmt::format("{}", value));
  };
  add("--job-name", job.name);
  add("--output", job.log);
  add("--chdir", job.folder);
  add("--array", job.array);
  if (job.ranked) {
    add_number("--nodes", r.nodes);
    add_number("--ntasks", r.all_ranks());
    if (r.nodes > 0 && r.all_ranks() % r.nodes == 0)
      add_number("--ntasks-per-node", r.all_ranks() / r.nodes);
    add_number("--cpus-per-task", r.cpus_per_task);
    add_number("--gpus-per-node", r.gpus_per_node);
  } else {
    add_number("--ntasks", 1);
  }
  add("--partition", r.partition);
  add("--account", r.account);
  add("--qos", r.qos);
  add("--time", r.time);
  for (const auto& option : r.more) out += fmt::format("#SBATCH {}\n", option);
  out += fmt::format("#SBATCH --signal=B:USR1@{}\n", r.signal_seconds);
  out += "#SBATCH --requeue\n#SBATCH --open-mode=append";
  return out;
}

std::string launcher_words(const BatchJob& job, const BatchResources& r) {
  if (!job.ranked) return "";
  if (r.launcher == "mpirun") return fmt::format("mpirun --bind-to none -np {}", r.all_ranks());
  if (r.launcher != "srun")
    throw Error(ExitCode::kUsage, "--launcher", "'" + r.launcher + "' is none", "mpirun or srun");
  std::string words = fmt::format(
      "srun --mpi=pmix --kill-on-bad-exit=1 --cpu-bind=none --ntasks={}", r.all_ranks());
  // srun does not take it over from sbatch.
  if (r.cpus_per_task > 0) words += fmt::format(" --cpus-per-task={}", r.cpus_per_task);
  return words;
}

std::string run_lines(const BatchRun& run, BatchKind kind, const char* indent) {
  std::string out;
  const auto set = [&](const char* name, const std::string& value) {
    out += fmt::format("{}{}={}\n", indent, name, quoted(value, kind));
  };
  set("run_dir", run.run_dir);
  set("done_file", run.done_file);
  set("lock_file", run.lock_file);
  set("verdict_file", run.verdict_file);
  set("exit_file", run.exit_file);
  set("log_file", run.log_file);
  out += fmt::format("{}words=(", indent);
  for (size_t i = 0; i < run.words.size(); ++i) {
    // An option and its value on a line of their own.
    const bool option = i > 0 && run.words[i].rfind("--", 0) == 0;
    out += i == 0 ? "" : option ? fmt::format("\n{}  ", indent) : std::string(" ");
    out += quoted(run.words[i], kind);
  }
  return out + ")\n";
}

std::string runs_block(const BatchJob& job) {
  NF_CHECK(!job.runs.empty());
  if (job.kind != BatchKind::kList) return run_lines(job.runs[0], job.kind, "");
  std::string out = "case $SLURM_ARRAY_TASK_ID in\n";
  for (size_t i = 0; i < job.runs.size(); ++i)
    out += fmt::format("  {})\n{}    ;;\n", i, run_lines(job.runs[i], job.kind, "    "));
  return out + "esac\n";
}

// The template with {{name}} replaced; what is put in is not looked at again.
std::string filled(const std::string& text, const std::map<std::string, std::string>& values) {
  std::string out;
  size_t from = 0;
  for (size_t at; (at = text.find("{{", from)) != std::string::npos;) {
    const size_t end = text.find("}}", at);
    NF_CHECK(end != std::string::npos);
    const auto value = values.find(text.substr(at + 2, end - at - 2));
    NF_CHECK(value != values.end());
    out += text.substr(from, at - from) + value->second;
    from = end + 2;
  }
  return out + text.substr(from);
}

}  // namespace

std::string batch_script(const BatchJob& job, const BatchResources& resources) {
  return filled(kJobTemplate,
                {{"title", job.title},
                 {"program", job.program},
                 {"directives", directives(job, resources)},
                 {"launcher", launcher_words(job, resources)},
                 {"max_restarts", fmt::format("{}", resources.max_restarts)},
                 {"final_codes", fmt::format("{}", fmt::join(final_codes(), ", "))},
                 {"final_pattern", fmt::format("{}", fmt::join(final_codes(), " | "))},
                 {"runs", runs_block(job)}});
}

}  // namespace nf::launch
