// See job_process.h.
#include "launch/job_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "core/atomic_file.h"

namespace nf::launch {
namespace {

// mpirun hands it on to the ranks and waits; at SIGTERM it would kill them after a second.
constexpr int kStopSignal = SIGUSR1;

int exit_code_of(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int wait_for(pid_t pid) {
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return exit_code_of(status);
}

// Descriptors that the process gets; -1: keeps ours, or none for `kept`.
struct Descriptors {
  int in = -1, out = -1, err = -1, kept = -1;
};

pid_t start(const std::vector<std::string>& command, const Descriptors& descriptors) {
  std::vector<char*> words;
  for (const auto& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  const pid_t starter = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::setpgid(0, 0);
    ::prctl(PR_SET_PDEATHSIG, kStopSignal);
    if (::getppid() != starter) ::_exit(1);  // killed in between
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    if (descriptors.in >= 0) ::dup2(descriptors.in, 0);
    if (descriptors.out >= 0) ::dup2(descriptors.out, 1);
    if (descriptors.err >= 0) ::dup2(descriptors.err, 2);
    if (descriptors.kept >= 0) ::fcntl(descriptors.kept, F_SETFD, 0);
    ::execvp(words[0], words.data());
    ::_exit(127);
  }
  if (pid < 0) throw_io_error(command[0], "cannot start", errno);
  return pid;
}

int open_or_throw(const std::filesystem::path& file, int flags) {
  const int fd = ::open(file.c_str(), flags | O_CLOEXEC, 0666);
  if (fd < 0) throw_io_error(file, "cannot open", errno);
  return fd;
}

pid_t start_logged(const std::vector<std::string>& command, const std::filesystem::path& log,
                   int kept) {
  if (log.empty()) return start(command, {.kept = kept});
  const int out = open_or_throw(log, O_WRONLY | O_CREAT | O_APPEND);
  const pid_t pid = start(command, {.out = out, .err = out, .kept = kept});
  ::close(out);
  return pid;
}

// A file in memory that a process may write what it says into.
class Captured {
 public:
  Captured() : fd_(::memfd_create("output", MFD_CLOEXEC)) {
    if (fd_ < 0) throw_io_error("memory file", "cannot create", errno);
  }
  ~Captured() { ::close(fd_); }
  Captured(const Captured&) = delete;
  Captured& operator=(const Captured&) = delete;
  int fd() const { return fd_; }
  std::string text() const {
    std::string all(static_cast<size_t>(::lseek(fd_, 0, SEEK_END)), '\0');
    const ssize_t got = ::pread(fd_, all.data(), all.size(), 0);
    all.resize(got > 0 ? static_cast<size_t>(got) : 0);
    return all;
  }

 private:
  int fd_;
};

}  // namespace

JobProcess::JobProcess(const std::vector<std::string>& command, const std::filesystem::path& log,
                       int kept)
    : pid_(start_logged(command, log, kept)) {}

JobProcess::~JobProcess() {
  if (pid_ < 0) return;
  stop();
  wait_for(pid_);
}

std::optional<int> JobProcess::poll() {
  int status = 0;
  if (pid_ < 0 || ::waitpid(pid_, &status, WNOHANG) != pid_) return std::nullopt;
  pid_ = -1;
  return exit_code_of(status);
}

void JobProcess::stop() const {
  if (pid_ > 0) ::kill(pid_, kStopSignal);
}

void JobProcess::end() const {
  if (pid_ > 0) ::kill(pid_, SIGTERM);
}

std::vector<std::string> through_mpirun(int64_t ranks, const std::vector<std::string>& command) {
  std::vector<std::string> words = {"mpirun", "--oversubscribe",    "--bind-to", "none",
                                    "-np",    std::to_string(ranks)};
  words.insert(words.end(), command.begin(), command.end());
  return words;
}

Ended run_to_end(const std::vector<std::string>& command) {
  const Captured out, err;
  const int in = open_or_throw("/dev/null", O_RDONLY);
  const pid_t pid = start(command, {.in = in, .out = out.fd(), .err = err.fd()});
  ::close(in);
  Ended ended;
  ended.code = wait_for(pid);
  ended.out = out.text();
  ended.err = err.text();
  return ended;
}

}  // namespace nf::launch
