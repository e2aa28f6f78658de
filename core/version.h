// The program's version, for --version, file headers and logs.
#pragma once

namespace nf {

inline constexpr const char* kVersion = "0.1.0";

}  // namespace nf
