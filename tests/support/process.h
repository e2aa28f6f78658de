// Runs the real programs from tests: output captured, exit code kept, nothing left behind.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/paths.h"

namespace nf::test {

inline std::string slurp(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

struct Outcome {
  int code = -1;  // exit code, or 128 + signal
  std::string out, err;
};

// A started program in a process group of its own, killed with the object.
class Process {
 public:
  Process(const std::vector<std::string>& argv, const std::filesystem::path& out,
          const std::filesystem::path& err) {
    pid_ = fork();
    if (pid_ < 0) throw std::runtime_error("fork failed");
    if (pid_ > 0) {
      setpgid(pid_, pid_);
      return;
    }
    setpgid(0, 0);
    const auto redirect = [](const std::filesystem::path& file, int fd) {
      const int f = open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
      dup2(f, fd);
      close(f);
    };
    redirect(out, 1);
    redirect(err, 2);
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    std::vector<char*> args;
    for (const auto& a : argv) args.push_back(const_cast<char*>(a.c_str()));
    args.push_back(nullptr);
    execvp(args[0], args.data());
    _exit(127);
  }
  ~Process() {
    if (!done_) {
      kill(-pid_, SIGKILL);
      wait();
    }
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t pid() const { return pid_; }
  bool running() {
    if (done_) return false;
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) != pid_) return true;
    finish(status);
    return false;
  }
  int wait() {
    if (!done_) {
      int status = 0;
      while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
      }
      finish(status);
    }
    return code_;
  }
  void signal(int number) { kill(pid_, number); }

  // Direct children, such as the ranks of an mpirun.
  std::vector<pid_t> children() const {
    std::vector<pid_t> out;
    std::ifstream in("/proc/" + std::to_string(pid_) + "/task/" + std::to_string(pid_) +
                     "/children");
    for (pid_t p; in >> p;) out.push_back(p);
    return out;
  }

 private:
  void finish(int status) {
    done_ = true;
    code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  pid_t pid_ = -1;
  bool done_ = false;
  int code_ = -1;
};

inline Outcome run(const std::vector<std::string>& argv) {
  const TempDir temp;
  Outcome o;
  {
    Process p(argv, temp / "out", temp / "err");
    o.code = p.wait();
  }
  o.out = slurp(temp / "out");
  o.err = slurp(temp / "err");
  return o;
}

inline std::vector<std::string> mpirun(int ranks, std::vector<std::string> command) {
  std::vector<std::string> argv = {"mpirun", "--oversubscribe",    "--bind-to", "none",
                                   "-np",    std::to_string(ranks)};
  argv.insert(argv.end(), command.begin(), command.end());
  return argv;
}

// A packed data set of drawn shapes: `train` and `holdout` splits. Throws when a program fails.
inline void make_shapes_dataset(const std::filesystem::path& folder, int per_class, int holdout,
                                int size = 32) {
  const std::string images = folder.string() + ".images";
  const auto must = [](const Outcome& o) {
    if (o.code != 0) throw std::runtime_error("exit " + std::to_string(o.code) + ": " + o.err);
  };
  must(run({(std::filesystem::path(NF_BIN_DIR).parent_path() / "bench/draw_images").string(),
            "--output", images, "--per-class", std::to_string(per_class), "--size",
            std::to_string(size)}));
  must(run({program("nf-pack").string(), "--input", images, "--output", folder.string(), "--split",
            "train", "--holdout", std::to_string(holdout), "--shard-samples", "64"}));
  std::filesystem::remove_all(images);
}

}  // namespace nf::test
