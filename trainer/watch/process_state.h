// What /proc says a process is doing.
#pragma once

#include <fstream>
#include <string>

namespace nf::train {

// 'R' runs, 'S' sleeps, 'T' is stopped, ...; 0: there is no such process.
inline char process_state(int pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  if (!std::getline(file, line)) return 0;
  const size_t after_name = line.rfind(')');
  return after_name != std::string::npos && after_name + 2 < line.size() ? line[after_name + 2] : 0;
}

}  // namespace nf::train
