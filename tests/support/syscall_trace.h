// Runs a piece of work in a child process and interferes at its n-th file system call: kills it
// there, lets the call fail, or lets a write be short. x86-64 Linux (ptrace).
#pragma once

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <stdexcept>

namespace nf::test {

enum class Interference { kNone, kKill, kNoSpace, kIoError, kShortWrite };

struct TraceResult {
  int calls = 0;        // file system calls until the end
  bool met = false;     // the n-th call came, and the interference applied to it
  bool killed = false;  // by the interference
  int exit_code = -1;   // of the work: 0 it returned, 1 it threw
};

// Calls that change what a file system holds, or say that it is safe.
inline bool changes_files(long call) {
  switch (call) {
    case SYS_write:
    case SYS_pwrite64:
    case SYS_openat:
    case SYS_open:
    case SYS_creat:
    case SYS_fsync:
    case SYS_fdatasync:
    case SYS_rename:
    case SYS_renameat:
    case SYS_renameat2:
    case SYS_mkdir:
    case SYS_mkdirat:
    case SYS_unlink:
    case SYS_unlinkat:
    case SYS_rmdir:
    case SYS_ftruncate:
    case SYS_fallocate:
    case SYS_close:
      return true;
    default:
      return false;
  }
}

// n counts from 0. The work runs in a forked child: whatever it needs must exist before.
inline TraceResult interfere(int n, Interference how, const std::function<void()>& work) {
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("fork failed");
  if (child == 0) {
    ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    ::raise(SIGSTOP);
    try {
      work();
    } catch (...) {
      ::_exit(1);
    }
    ::_exit(0);
  }
  TraceResult r;
  int status = 0;
  ::waitpid(child, &status, 0);
  if (!WIFSTOPPED(status) ||
      ::ptrace(PTRACE_SETOPTIONS, child, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL) != 0) {
    ::kill(child, SIGKILL);
    ::waitpid(child, &status, 0);
    throw std::runtime_error("ptrace is not permitted here");
  }
  bool entering = true, replace_result = false;
  long signal = 0;
  for (;;) {
    ::ptrace(PTRACE_SYSCALL, child, nullptr, signal);
    signal = 0;
    if (::waitpid(child, &status, 0) != child) throw std::runtime_error("waitpid failed");
    if (WIFEXITED(status)) {
      r.exit_code = WEXITSTATUS(status);
      return r;
    }
    if (WIFSIGNALED(status)) {
      r.killed = true;
      return r;
    }
    if (WSTOPSIG(status) != (SIGTRAP | 0x80)) {
      signal = WSTOPSIG(status);
      continue;
    }
    user_regs_struct regs{};
    ::ptrace(PTRACE_GETREGS, child, nullptr, &regs);
    if (entering && changes_files(static_cast<long>(regs.orig_rax))) {
      if (r.calls++ == n && how != Interference::kNone) {
        const long call = static_cast<long>(regs.orig_rax);
        const bool writes = call == SYS_write || call == SYS_pwrite64;
        if (how == Interference::kKill) {
          r.met = true;
          ::kill(child, SIGKILL);
        } else if (how == Interference::kShortWrite) {
          r.met = writes && regs.rdx > 1;
          if (r.met) regs.rdx /= 2;
          ::ptrace(PTRACE_SETREGS, child, nullptr, &regs);
        } else if (call != SYS_close) {
          r.met = replace_result = true;
          regs.orig_rax = ~0ull;  // no such call
          ::ptrace(PTRACE_SETREGS, child, nullptr, &regs);
        }
      }
    } else if (!entering && replace_result) {
      regs.rax = static_cast<unsigned long long>(
          -static_cast<long long>(how == Interference::kNoSpace ? ENOSPC : EIO));
      ::ptrace(PTRACE_SETREGS, child, nullptr, &regs);
      replace_result = false;
    }
    entering = !entering;
  }
}

}  // namespace nf::test
