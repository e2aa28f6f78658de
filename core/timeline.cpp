// See timeline.h.
#include "core/timeline.h"

#include <sys/syscall.h>
#include <unistd.h>

#include "core/atomic_file.h"
#include "core/jsonl.h"

namespace nf {

void Timeline::add(std::string_view name, Clock::time_point begin, Clock::time_point end) {
  const long thread = syscall(SYS_gettid);
  const std::lock_guard lock(mutex_);
  events_.push_back({std::string(name), thread, begin, end});
}

void Timeline::write(const std::filesystem::path& file, int process) const {
  using Microseconds = std::chrono::duration<double, std::micro>;
  Json list = Json::array();
  const std::lock_guard lock(mutex_);
  for (const Event& e : events_)
    list.push_back({{"name", e.name},
                    {"ph", "X"},
                    {"ts", Microseconds(e.begin.time_since_epoch()).count()},
                    {"dur", Microseconds(e.end - e.begin).count()},
                    {"pid", process},
                    {"tid", e.thread}});
  write_file_atomic(file, Json{{"traceEvents", list}}.dump() + "\n");
}

}  // namespace nf
