// The device a rank computes on (build.h, resolve_device).
#include "core/error.h"
#include "trainer/build.h"

namespace nf::train {

at::Device resolve_device(const std::string& name, int local_rank) {
  (void)local_rank;
  if (name == "cuda")
    throw Error(ExitCode::kUsage, "run.device", "cuda is not available in this build", "use run.device = \"cpu\"");
  return at::kCPU;
}

}  // namespace nf::train
