// See program.h.
#include "core/program.h"

#include <cstdio>
#include <exception>
#include <new>

#include "core/error.h"

namespace nf {

std::string describe_current_exception(const char* name, int* exit_code) {
  *exit_code = static_cast<int>(ExitCode::kOther);
  try {
    throw;
  } catch (const Error& e) {
    *exit_code = static_cast<int>(e.code());
    std::string text = "error: " + e.where() + ": " + e.what() + "\n";
    if (!e.hint().empty()) text += "hint: " + e.hint() + "\n";
    return text;
  } catch (const std::bad_alloc&) {
    return std::string("error: ") + name + ": out of memory\n" +
           "hint: lower batch.size, raise batch.micro_batches, or start fewer ranks on this host\n";
  } catch (const std::exception& e) {
    return std::string("error: ") + name + ": " + e.what() + "\n" +
           "hint: this is a fault of the program; please report it with the command line\n";
  } catch (...) {
    return std::string("error: ") + name + ": unknown failure\n";
  }
}

int run_program(const char* name, const std::function<int()>& body) {
  try {
    return body();
  } catch (...) {
    int code = 0;
    const std::string text = describe_current_exception(name, &code);
    std::fputs(text.c_str(), stderr);
    return code;
  }
}

}  // namespace nf
