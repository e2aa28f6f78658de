// See run_dir.h.
#include "trainer/run_dir.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <random>
#include <thread>

#include "core/atomic_file.h"
#include "core/error.h"

namespace nf::train {
namespace fs = std::filesystem;

RunDirectory::RunDirectory(const fs::path& path, double wait_seconds) : path_(path) {
  std::error_code ec;
  fs::create_directories(path / "checkpoints", ec);
  if (ec) throw_io_error(path, "cannot create the run directory", ec.value());
  const fs::path lock = path / "lock";
  lock_ = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (lock_ < 0) throw_io_error(lock, "cannot open", errno);
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(wait_seconds);
  while (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    if (std::chrono::steady_clock::now() > end) {
      const std::string owner = read_file(lock);
      ::close(lock_);
      lock_ = -1;
      throw Error(ExitCode::kUsage, path.string(),
                  "another job is writing to this run directory (" + owner + ")",
                  "wait for it, stop it, or use another --output");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  std::random_device random;
  owner_ = fmt::format("host {}, process {}, token {:08x}{:08x}", host.data(), getpid(), random(),
                       random());
  if (::ftruncate(lock_, 0) != 0 || ::pwrite(lock_, owner_.data(), owner_.size(), 0) < 0)
    throw_io_error(lock, "cannot write", errno);
}

RunDirectory::~RunDirectory() {
  if (lock_ >= 0) ::close(lock_);  // releases the lock
}

bool RunDirectory::is_owner() const {
  try {
    return read_file(path_ / "lock") == owner_;
  } catch (const Error&) {
    return true;  // unreadable for the moment, or removed by hand: nobody else wrote it
  }
}

void RunDirectory::check_owner() const {
  if (is_owner()) return;
  throw Error(ExitCode::kUsage, path_.string(),
              "another job has taken this run over (" + read_file(path_ / "lock") +
                  "); this one writes no more",
              "start a run once only; the other job goes on from the last checkpoint");
}

bool RunDirectory::has_run() const { return fs::exists(file("config.toml")); }

void RunDirectory::claim(const RunConfig& config) {
  RunConfig copy = config;
  const Fields fields = copy.fields();
  if (has_run()) {
    const auto differences =
        config_differences(read_file(file("config.toml")), file("config.toml").string(), fields);
    if (!differences.empty()) {
      std::string text = "holds a run with another config:";
      for (const auto& d : differences) text += "\n  " + d;
      throw Error(ExitCode::kUsage, path_.string(), text,
                  "use another --output, or the config of this run");
    }
  }
  write_file_atomic(file("config.toml"), to_toml(fields));
}

Accounting read_accounting(const fs::path& metrics) {
  Accounting a;
  double start = 0, last = 0, ranks = 0;
  const auto close_session = [&] { a.device_seconds += (last - start) * ranks; };
  read_jsonl(metrics, [&](const Json& line) {
    const double time = line.value("time", 0.0);
    if (line.value("kind", "") == "start") {
      if (a.sessions > 0) close_session();
      ++a.sessions;
      // Lines of steps that were cut off after a kill are gone; what they cost stands in the next
      // start line.
      a.device_seconds = std::max(a.device_seconds, line.value("device_seconds_before", 0.0));
      start = time;
      ranks = line.value("ranks", 1.0);
    }
    last = time;
  });
  if (a.sessions > 0) close_session();
  return a;
}

}  // namespace nf::train
