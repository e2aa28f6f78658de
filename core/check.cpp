// See check.h.
#include "core/check.h"

#include <stdexcept>

namespace nf::detail {

void check_failed(const char* file, int line, const char* condition, const std::string& message) {
  throw std::logic_error(std::string(file) + ":" + std::to_string(line) +
                         ": check failed: " + condition + (message.empty() ? "" : ": " + message));
}

}  // namespace nf::detail
