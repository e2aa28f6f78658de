// NF_CHECK: conditions that only a programming mistake can break. Always on, in release builds too.
#pragma once

#include <string>

namespace nf::detail {
[[noreturn]] void check_failed(const char* file, int line, const char* condition,
                               const std::string& message);
}  // namespace nf::detail

// NF_CHECK(condition) or NF_CHECK(condition, "text"): throws std::logic_error with file and line
// when it does not hold.
#define NF_CHECK(condition, ...)                                                            \
  do {                                                                                      \
    if (!(condition)) [[unlikely]]                                                          \
      ::nf::detail::check_failed(__FILE__, __LINE__, #condition, std::string{__VA_ARGS__}); \
  } while (false)
