// What every main has in common: --version, the contract's error format on stderr and its exit
// codes.
#pragma once

#include <functional>
#include <string>

namespace nf {

// Runs body and returns the process's exit code. An nf::Error prints "error: WHERE: WHAT" and
// "hint: ..."; any other exception prints one line and gives 1. Nothing is ever thrown out of main.
int run_program(const char* name, const std::function<int()>& body);

// The text that run_program prints for an exception in flight; for programs that must print on one
// rank only.
std::string describe_current_exception(const char* name, int* exit_code);

}  // namespace nf
