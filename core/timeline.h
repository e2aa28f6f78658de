// What each thread did when, as spans that a trace viewer shows (Chrome trace event format, read by
// chrome://tracing and Perfetto). Cheap enough to leave in the code: without a timeline a span is
// one comparison with null.
#pragma once

#include <chrono>
#include <filesystem>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace nf {

class Timeline {
 public:
  using Clock = std::chrono::steady_clock;

  // The time from its construction to its end, under the calling thread.
  class Span {
   public:
    Span(Timeline* timeline, std::string_view name) : timeline_(timeline), name_(name) {
      if (timeline_) begin_ = Clock::now();
    }
    ~Span() {
      if (timeline_) timeline_->add(name_, begin_, Clock::now());
    }
    Span(const Span&) = delete;
    Span& operator=(const Span&) = delete;

   private:
    Timeline* timeline_;
    std::string_view name_;  // must outlive the span
    Clock::time_point begin_;
  };

  // Thread-safe.
  void add(std::string_view name, Clock::time_point begin, Clock::time_point end);
  // Writes all spans; `process` is the row group in the viewer (the rank). Times are microseconds
  // of the system's monotonic clock, so files of ranks of one host fit together.
  void write(const std::filesystem::path& file, int process) const;

 private:
  struct Event {
    std::string name;
    long thread;
    Clock::time_point begin, end;
  };
  mutable std::mutex mutex_;
  std::vector<Event> events_;
};

}  // namespace nf
