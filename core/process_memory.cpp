// See process_memory.h.
#include "core/process_memory.h"

#include <fstream>
#include <string>

namespace nf {
namespace {

// A line "Name:   123 kB" of a file under /proc.
double proc_bytes(const char* file, const std::string& name) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);)
    if (line.starts_with(name + ":")) return 1024.0 * std::stod(line.substr(name.size() + 1));
  return 0;
}

}  // namespace

double resident_bytes() { return proc_bytes("/proc/self/status", "VmRSS"); }
double peak_resident_bytes() { return proc_bytes("/proc/self/status", "VmHWM"); }
double available_bytes() { return proc_bytes("/proc/meminfo", "MemAvailable"); }

}  // namespace nf
