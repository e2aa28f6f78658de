// See programs.h.
#include "launch/programs.h"

#include <fmt/format.h>

#include <cstdlib>

#include "core/error.h"
#include "launch/job_process.h"

namespace nf::launch {

namespace fs = std::filesystem;

namespace {

// A number of "[section]\nkey = value" text, as to_toml() writes it; 0 when it is not there.
double number_in(const std::string& toml, const std::string& section, const std::string& key) {
  const size_t begin = toml.find("[" + section + "]\n");
  if (begin == std::string::npos) return 0;
  const std::string here = toml.substr(begin, toml.find("\n[", begin) - begin);
  const size_t at = here.find("\n" + key + " = ");
  return at == std::string::npos ? 0 : std::atof(here.c_str() + at + key.size() + 4);
}

// "error: WHERE: WHAT\nhint: HOW\n" of another program as an Error of ours.
Error error_of(const Ended& ended) {
  std::string text = ended.err;
  while (!text.empty() && text.back() == '\n') text.pop_back();
  if (text.rfind("error: ", 0) == 0) text.erase(0, 7);
  std::string hint;
  if (const size_t at = text.rfind("\nhint: "); at != std::string::npos) {
    hint = text.substr(at + 7);
    text.erase(at);
  }
  if (text.empty()) text = fmt::format("ended with code {}", ended.code);
  const int code = ended.code > 0 && ended.code < 126 ? ended.code : 1;
  return Error(static_cast<ExitCode>(code), "nf-train --dry-run", text, hint);
}

}  // namespace

fs::path programs_folder(const std::string& given) {
  fs::path folder =
      given.empty() ? fs::read_symlink("/proc/self/exe").parent_path() : fs::absolute(given);
  if (!fs::exists(folder / "nf-train"))
    throw Error(ExitCode::kUsage, folder.string(), "nf-train is not here",
                "give its folder with --programs");
  return folder;
}

std::vector<std::string> TrainCommand::words() const {
  std::vector<std::string> all = {(programs / "nf-train").string(), "--config", config};
  for (const auto& key : overrides) {
    all.push_back("--set");
    all.push_back(key);
  }
  all.push_back("--output");
  all.push_back(output.string());
  return all;
}

ResolvedConfig check_config(const TrainCommand& command, int64_t ranks) {
  std::vector<std::string> words = command.words();
  words.push_back("--dry-run");
  const Ended ended = run_to_end(words);
  if (ended.code != 0) throw error_of(ended);
  ResolvedConfig resolved;
  resolved.micro_batches = static_cast<int64_t>(number_in(ended.out, "batch", "micro_batches"));
  resolved.threads_per_rank = static_cast<int64_t>(number_in(ended.out, "run", "threads_per_rank"));
  resolved.wall_minutes = number_in(ended.out, "limit", "wall_minutes");
  if (ranks > resolved.micro_batches)
    throw Error(ExitCode::kUsage, command.config,
                fmt::format("{} ranks, but a batch has only {} micro-batches", ranks,
                            resolved.micro_batches),
                "take fewer ranks, or raise batch.micro_batches (it is part of the run's bits)");
  return resolved;
}

}  // namespace nf::launch
