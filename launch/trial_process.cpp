// See trial_process.h.
#include "launch/trial_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "core/atomic_file.h"

namespace nf::launch {
namespace {

// mpirun hands it on to the ranks and waits; at SIGTERM it would kill them after a second.
constexpr int kStopSignal = SIGUSR1;

int exit_code_of(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

pid_t start(const std::vector<std::string>& command, const std::filesystem::path& log, int flags,
            int kept) {
  std::vector<char*> words;
  for (const auto& word : command) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0666);
  if (out < 0) throw_io_error(log, "cannot open", errno);
  const pid_t controller = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::setpgid(0, 0);
    ::prctl(PR_SET_PDEATHSIG, kStopSignal);
    if (::getppid() != controller) ::_exit(1);  // killed in between
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    if (kept >= 0) ::fcntl(kept, F_SETFD, 0);
    ::dup2(out, 1);
    ::dup2(out, 2);
    ::execvp(words[0], words.data());
    ::_exit(127);
  }
  const int why = errno;
  ::close(out);
  if (pid < 0) throw_io_error(command[0], "cannot start", why);
  return pid;
}

}  // namespace

TrialProcess::TrialProcess(const std::vector<std::string>& command,
                           const std::filesystem::path& log, int kept)
    : pid_(start(command, log, O_APPEND, kept)) {}

TrialProcess::~TrialProcess() {
  if (pid_ < 0) return;
  stop();
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

std::optional<int> TrialProcess::poll() {
  int status = 0;
  if (pid_ < 0 || ::waitpid(pid_, &status, WNOHANG) != pid_) return std::nullopt;
  pid_ = -1;
  return exit_code_of(status);
}

void TrialProcess::stop() const {
  if (pid_ > 0) ::kill(pid_, kStopSignal);
}

int run_to_end(const std::vector<std::string>& command, const std::filesystem::path& out) {
  const pid_t pid = start(command, out, O_TRUNC, -1);
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return exit_code_of(status);
}

}  // namespace nf::launch
