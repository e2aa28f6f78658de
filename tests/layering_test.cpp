// Reads every #include of the sources and fails on an arrow that the design does not draw:
//   tests, bench -> anything; launch -> analysis, core, models (specs and costs);
//   analysis -> core; data_pipeline -> core;
//   models -> core; trainer -> data_pipeline, models, core; core -> nothing of ours; inside
//   trainer: comm, optim and checkpoint know core and themselves, device also comm; build alone
//   knows all parts.
// And keeps heavy or special libraries where they belong: MPI in comm/mpi.*, CUDA and NCCL in
// comm/nccl*, the cuda/ folders and *.cu, ATen out of core, data_pipeline, launch and analysis,
// torch/torch.h out of everything.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "tests/support/paths.h"

namespace nf::test {
namespace {

namespace fs = std::filesystem;
using Strings = std::vector<std::string>;

bool starts_with_any(const std::string& text, const Strings& prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(),
                     [&](const auto& p) { return text.rfind(p, 0) == 0; });
}

// The part of the project a path belongs to: "core", "models", "trainer/comm", ...; files right in
// trainer/: "trainer".
std::string part_of(const std::string& path) {
  for (const char* part :
       {"trainer/comm", "trainer/optim", "trainer/checkpoint", "trainer/device", "trainer/watch"})
    if (starts_with_any(path, {std::string(part) + "/"})) return part;
  return path.substr(0, path.find('/'));
}

const std::map<std::string, Strings>& allowed_parts() {
  static const std::map<std::string, Strings> allowed = {
      {"core", {"core"}},
      {"data_pipeline", {"data_pipeline", "core"}},
      {"models", {"models", "core"}},
      {"launch", {"launch", "analysis", "models", "core"}},
      {"analysis", {"analysis", "core"}},
      {"trainer/comm", {"trainer/comm", "core"}},
      {"trainer/optim", {"trainer/optim", "core"}},
      {"trainer/checkpoint", {"trainer/checkpoint", "core"}},
      {"trainer/device", {"trainer/device", "trainer/comm", "core"}},
      {"trainer/watch", {"trainer/watch", "trainer/comm", "core"}},
      {"trainer",
       {"trainer", "trainer/comm", "trainer/optim", "trainer/checkpoint", "trainer/device",
        "trainer/watch", "data_pipeline", "models", "core"}}};
  return allowed;
}

struct Include {
  std::string target;
  bool ours;  // in quotes
};

std::vector<Include> includes_of(const std::string& text) {
  static const std::regex pattern(R"re(^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"])re");
  std::vector<Include> found;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::smatch match;
    if (std::regex_search(line, match, pattern)) found.push_back({match[2], match[1] == "\""});
  }
  return found;
}

// Why a file may not include a library's header, or "".
std::string library_violation(const std::string& path, const std::string& header) {
  const std::string part = part_of(path);
  const bool free = part == "tests" || part == "bench";
  const bool cuda_file =
      starts_with_any(path, {"trainer/comm/nccl", "models/nfnet/cuda/", "trainer/optim/cuda/"}) ||
      path.ends_with(".cu") || path.ends_with(".cuh");
  if (header == "torch/torch.h" || header == "torch/all.h") return "costs 12 s a file to compile";
  if (free) return "";
  if (header == "mpi.h" && !starts_with_any(path, {"trainer/comm/mpi."}))
    return "MPI belongs in trainer/comm/mpi.*";
  if (starts_with_any(header, {"cuda", "nccl", "cub/", "ATen/cuda/", "c10/cuda/"}) && !cuda_file)
    return "CUDA and NCCL belong in trainer/comm/nccl*, the cuda/ folders and *.cu";
  const bool torch = starts_with_any(header, {"ATen/", "c10/", "torch/"});
  if (starts_with_any(header, {"ceres/"}) && path != "analysis/robust_fit.cpp")
    return "Ceres belongs in analysis/robust_fit.cpp";
  if (torch &&
      (part == "core" || part == "data_pipeline" || part == "launch" || part == "analysis"))
    return part + " is free of torch";
  return "";
}

// The plug-in's own table and what it offers: no part of trainer/comm that the programs link.
bool may_know_as_plugin(const std::string& path, const std::string& target) {
  return (starts_with_any(path, {"trainer/comm/nccl"}) && part_of(target) == "trainer/device") ||
         (path == "trainer/comm/nccl_plugin.cpp" &&
          starts_with_any(target, {"trainer/optim/cuda/"}));
}

// One line for each include of the file that is not drawn.
Strings violations(const std::string& path, const std::string& text) {
  Strings found;
  const std::string part = part_of(path);
  const auto rule = allowed_parts().find(part);
  const bool free = part == "tests" || part == "bench";
  std::set<std::string> parts_known;
  for (const auto& [target, ours] : includes_of(text)) {
    const auto report = [&, t = target](const std::string& why) {
      found.push_back(path + " includes " + t + ": " + why);
    };
    if (const std::string why = library_violation(path, target); !why.empty()) report(why);
    if (!ours || free) continue;
    if (rule == allowed_parts().end()) {
      report("this folder is in no rule");
      continue;
    }
    const std::string other = part_of(target);
    if (target.find('/') == std::string::npos) {
      report("name the file from the root of the repository");
    } else if (std::find(rule->second.begin(), rule->second.end(), other) == rule->second.end() &&
               !may_know_as_plugin(path, target)) {
      report(part + " may not know " + other);
    }
    parts_known.insert(other);
  }
  const Strings all = {"models", "data_pipeline", "trainer/comm", "trainer/optim",
                       "trainer/checkpoint"};
  const bool knows_all =
      std::all_of(all.begin(), all.end(), [&](const auto& p) { return parts_known.count(p) > 0; });
  if (part == "trainer" && knows_all && !starts_with_any(path, {"trainer/build"}))
    found.push_back(path + ": only trainer/build* may know all parts");
  return found;
}

bool is_source(const fs::path& file) {
  static const std::set<std::string> kinds = {".h", ".hpp", ".cpp", ".cc", ".cu", ".cuh"};
  return kinds.count(file.extension().string()) > 0;
}

TEST(Layering, EveryIncludeIsDrawn) {
  size_t files = 0;
  for (const char* folder :
       {"core", "data_pipeline", "models", "trainer", "launch", "analysis", "tests", "bench"}) {
    const fs::path root = source_dir() / folder;
    if (!fs::exists(root)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(root)) {
      if (!entry.is_regular_file() || !is_source(entry.path())) continue;
      ++files;
      std::ostringstream text;
      text << std::ifstream(entry.path()).rdbuf();
      const std::string name = entry.path().lexically_relative(source_dir()).generic_string();
      for (const auto& line : violations(name, text.str())) ADD_FAILURE() << line;
    }
  }
  EXPECT_GT(files, 40u) << "the sources were not found";
}

TEST(Layering, PlantedViolationsAreReported) {
  const std::map<std::string, std::string> planted = {
      {"core/rng.cpp", "#include \"models/nfnet/spec.h\"\n"},
      {"core/hash.cpp", "#include <ATen/ATen.h>\n"},
      {"data_pipeline/loader.cpp", "#  include  <mpi.h>\n"},
      {"data_pipeline/decode.cpp", "#include <ATen/core/Tensor.h>\n"},
      {"data_pipeline/sampler.h", "#include \"trainer/comm/communicator.h\"\n"},
      {"models/nfnet/block.cpp", "#include \"trainer/optim/sgd.h\"\n"},
      {"models/nfnet/layers.cpp", "#include <torch/torch.h>\n"},
      {"launch/slurm.cpp", "#include \"trainer/loop.h\"\n"},
      {"analysis/power_law.cpp", "#include \"data_pipeline/ledger.h\"\n"},
      {"analysis/planner.cpp", "#include <ceres/ceres.h>\n"},
      {"analysis/cells.h", "#include \"launch/sweep.h\"\n"},
      {"trainer/comm/threads.cpp", "#include <mpi.h>\n"},
      {"trainer/comm/grad_reducer.cpp", "#include \"models/nfnet/nfnet.h\"\n"},
      {"trainer/comm/mpi.cpp", "#include <cuda_runtime.h>\n"},
      {"trainer/comm/nccl.cpp", "#include \"trainer/optim/cuda/kernels.h\"\n"},
      {"trainer/comm/nccl_plugin.cpp", "#include \"trainer/optim/sgd.h\"\n"},
      {"trainer/optim/kernels.cpp", "#include <cuda_runtime_api.h>\n"},
      {"models/nfnet/gelu.cpp", "#include <c10/cuda/CUDAStream.h>\n"},
      {"trainer/optim/sgd.cpp", "#include \"trainer/comm/communicator.h\"\n"},
      {"trainer/optim/ema.cpp", "#include \"data_pipeline/loader.h\"\n"},
      {"trainer/checkpoint/checkpoint.cpp", "#include \"trainer/step.h\"\n"},
      {"trainer/loop.cpp", "#include <nccl.h>\n"},
      {"trainer/step.cpp", "#include \"comm.h\"\n"},
      {"trainer/step.h", "#include \"launch/cost.h\"\n"},
      {"tests/some_test.cpp", "#include <torch/torch.h>\n"},
      {"newfolder/x.cpp", "#include \"core/rng.h\"\n"}};
  for (const auto& [path, text] : planted)
    EXPECT_EQ(violations(path, "// head\n#include <vector>\n" + text).size(), 1u) << path;
}

TEST(Layering, OnlyBuildKnowsAllParts) {
  const std::string all =
      "#include \"models/nfnet/nfnet.h\"\n#include \"data_pipeline/loader.h\"\n"
      "#include \"trainer/comm/communicator.h\"\n#include \"trainer/optim/sgd.h\"\n"
      "#include \"trainer/checkpoint/checkpoint.h\"\n";
  EXPECT_THAT(violations("trainer/build.cpp", all), testing::IsEmpty());
  EXPECT_EQ(violations("trainer/loop.cpp", all).size(), 1u);
}

TEST(Layering, DrawnArrowsPass) {
  const std::map<std::string, std::string> drawn = {
      {"trainer/comm/mpi.cpp", "#include <mpi.h>\n#include \"core/check.h\"\n"},
      {"trainer/comm/nccl.cpp", "#include <nccl.h>\n#include \"trainer/device/cuda_plugin.h\"\n"},
      {"launch/sweep.cpp", "#include \"analysis/cells.h\"\n"},
      {"trainer/comm/nccl_plugin.cpp", "#include \"trainer/optim/cuda/kernels.h\"\n"},
      {"models/nfnet/fused.cu", "#include <cuda_runtime.h>\n"},
      {"models/nfnet/cuda/register.cpp", "#include <c10/cuda/CUDAStream.h>\n"},
      {"models/nfnet/block.cpp", "#include <ATen/ATen.h>\n#include \"core/rng.h\"\n"},
      {"trainer/step.cpp",
       "#include \"trainer/comm/grad_reducer.h\"\n#include \"trainer/optim/sgd.h\"\n"},
      {"bench/allreduce.cpp", "#include <mpi.h>\n#include \"trainer/comm/mpi.h\"\n"}};
  for (const auto& [path, text] : drawn)
    EXPECT_THAT(violations(path, text), testing::IsEmpty()) << path;
}

}  // namespace
}  // namespace nf::test
