// See load_cuda.h.
#include "trainer/device/load_cuda.h"

#include <dlfcn.h>

#include "core/error.h"

namespace nf::train {
namespace {

[[noreturn]] void refuse(const std::string& what, const std::string& hint) {
  throw Error(ExitCode::kUsage, "run.device", what, hint);
}

constexpr const char* kBuildHint =
    "build the plug-in where the CUDA toolkit is (./dev setup --cuda, ./dev build), or set "
    "run.device "
    "= \"cpu\"";

}  // namespace

std::filesystem::path cuda_plugin_path(const std::filesystem::path& executable) {
  return executable.parent_path().parent_path() / "lib" / "libnf_cuda.so";
}

const CudaPlugin& load_cuda_plugin(const std::filesystem::path& library) {
  if (!std::filesystem::exists(library))
    refuse("this build has no CUDA plug-in (" + library.string() + " is missing)", kBuildHint);
  // Never closed: LibTorch keeps pointers to the backend that the plug-in registers.
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    const char* reason = dlerror();
    refuse("cannot load the CUDA plug-in: " + std::string(reason ? reason : "unknown reason"),
           "the CUDA driver and the libraries of LibTorch's CUDA build must be installed on this "
           "host; or set run.device = \"cpu\"");
  }
  const auto entry = reinterpret_cast<CudaPluginEntry>(dlsym(handle, kCudaPluginEntry));
  if (!entry) refuse(library.string() + " is not the CUDA plug-in", kBuildHint);
  const CudaPlugin* plugin = entry();
  if (plugin->version != kCudaPluginVersion)
    refuse(library.string() + " is of version " + std::to_string(plugin->version) +
               ", this program needs " + std::to_string(kCudaPluginVersion),
           "build program and plug-in together: ./dev build");
  return *plugin;
}

}  // namespace nf::train
