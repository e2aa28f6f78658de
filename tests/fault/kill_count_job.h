// The job that kill_count kills: a launcher and its ranks as real processes on the real data path.
// Rank 0 keeps the state, as in the trainer; what stands for the weights is one counter a sample.
#pragma once

#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/hash.h"
#include "core/jsonl.h"
#include "core/program.h"
#include "core/rng.h"
#include "data_pipeline/ledger.h"
#include "data_pipeline/loader.h"

namespace nf::test {

struct JobOptions {
  uint64_t kills = 1000, seed = 1, samples = 10'007, batch = 96, epochs = 3;
};
inline constexpr uint64_t kMicroBatches = 8, kCheckpointSteps = 2;

// What a checkpoint holds: one file, replaced atomically. `counts` stands for the weights.
struct State {
  uint64_t step = 0;
  std::vector<uint8_t> counts;
};

inline void save_state(const std::filesystem::path& run, const State& state) {
  std::string bytes(reinterpret_cast<const char*>(&state.step), sizeof state.step);
  bytes.append(state.counts.begin(), state.counts.end());
  bytes += to_hex(xxh3_64(as_bytes(bytes)));
  write_file_atomic(run / "state.bin", bytes);
}

inline State load_state(const std::filesystem::path& run, uint64_t samples) {
  State state;
  state.counts.assign(samples, 0);
  if (!std::filesystem::exists(run / "state.bin")) return state;
  const std::string bytes = read_file(run / "state.bin");
  if (bytes.size() != 8 + samples + 16 ||
      to_hex(xxh3_64(as_bytes(bytes).first(8 + samples))) != bytes.substr(8 + samples))
    throw Error(ExitCode::kWeights, "state.bin", "a checkpoint is torn");
  std::copy_n(bytes.data(), 8, reinterpret_cast<char*>(&state.step));
  std::copy_n(bytes.begin() + 8, samples, state.counts.begin());
  return state;
}

inline void put(int fd, const void* data, size_t size) {
  if (::send(fd, data, size, MSG_NOSIGNAL) != static_cast<ssize_t>(size)) ::_exit(5);
}
inline void get(int fd, void* data, size_t size) {
  if (size == 0) return;  // recv() would wait for a byte
  if (::recv(fd, data, size, MSG_WAITALL) != static_cast<ssize_t>(size)) ::_exit(5);
}

// One rank of one life of a job. Rank 0 keeps the state, as in the trainer.
class Rank {
 public:
  Rank(const JobOptions& o, const std::filesystem::path& data_set,
       const std::filesystem::path& run_dir, uint64_t number, uint64_t world,
       std::vector<int> sockets, PositionRng draws)
      : options_(o),
        run_(run_dir),
        peers_(std::move(sockets)),
        set_(data_set, "train"),
        sampler_({.samples = o.samples, .seed = 7}),
        plan_{o.batch, kMicroBatches, o.samples * o.epochs, number, world},
        loader_options_{.workers = static_cast<int>(draws.below(5)),
                        .prefetch = 1 + static_cast<int>(draws.below(8))},
        trace_(run_dir, number) {}

  void work() {
    const bool root = plan_.rank == 0;
    if (root) open_run();
    if (root) {
      for (const int peer : peers_) put(peer, &state_.step, 8);
    } else {
      get(peers_[0], &state_.step, 8);
    }
    data::AugmentOptions augment;
    augment.image_size = 16;
    data::Loader loader(set_, sampler_, plan_.plan(), augment, 7, loader_options_);
    loader.seek(state_.step * plan_.per_step());
    while (state_.step < plan_.steps()) step(loader);
  }

 private:
  void open_run() {
    for (const auto& entry : std::filesystem::directory_iterator(run_))
      if (entry.path().filename().string().find(".tmp.") != std::string::npos)
        std::filesystem::remove(entry.path());
    data::RunOrder order;
    order.sampler = sampler_.options();
    order.batch_size = options_.batch;
    order.micro_batches = kMicroBatches;
    order.end_position = plan_.end_position;
    data::write_run_order(run_, order);
    state_ = load_state(run_, options_.samples);
    ledger_ = std::make_unique<JsonlWriter>(run_ / "ledger.jsonl", [&](const Json& line) {
      return line.at("step").get<uint64_t>() <= state_.step;
    });
  }

  void step(data::Loader& loader) {
    std::vector<uint64_t> used;
    uint64_t digest = 0;
    for (uint64_t m = plan_.first(); m < plan_.last(); ++m) {
      const auto batch = loader.next();
      if (!batch || !batch->bad.empty()) ::_exit(1);
      trace_.append(state_.step + 1, batch->range.begin, options_.samples, batch->samples);
      digest += data::batch_digest(batch->range.begin, batch->samples);
      used.insert(used.end(), batch->samples.begin(), batch->samples.end());
    }
    char go = 0;
    if (plan_.rank == 0) {
      commit(used, digest);
      for (const int peer : peers_) put(peer, &go, 1);
    } else {
      const uint64_t head[2] = {used.size(), digest};
      put(peers_[0], head, sizeof head);
      put(peers_[0], used.data(), 8 * used.size());
      get(peers_[0], &go, 1);
      ++state_.step;
    }
  }

  // Root: everybody's samples go into the counters; then the ledger, then every other step a
  // checkpoint.
  void commit(std::vector<uint64_t> used, uint64_t digest) {
    for (const int peer : peers_) {
      uint64_t head[2];
      get(peer, head, sizeof head);
      const size_t before = used.size();
      used.resize(before + head[0]);
      get(peer, used.data() + before, 8 * head[0]);
      digest += head[1];
    }
    const uint64_t begin = state_.step * options_.batch;
    for (const uint64_t sample : used) ++state_.counts.at(sample);
    ++state_.step;
    ledger_->append(
        data::to_json(data::LedgerLine{state_.step, begin, begin + used.size(), digest}));
    if (state_.step % kCheckpointSteps != 0 && state_.step != plan_.steps()) return;
    ledger_->sync();
    save_state(run_, state_);
  }

  const JobOptions& options_;
  const std::filesystem::path run_;
  const std::vector<int> peers_;  // of the root: all others; of another: the root
  const data::ShardDataset set_;
  const data::Sampler sampler_;
  const data::TrainPlan plan_;
  const data::LoaderOptions loader_options_;
  data::TraceWriter trace_;
  std::unique_ptr<JsonlWriter> ledger_;
  State state_;
};

// Ends this process with the exit code of `body`, like a program's main.
[[noreturn]] inline void run_as_process(const std::function<void()>& body) {
  ::_exit(run_program("kill_count", [&] {
    body();
    return 0;
  }));
}

// The launcher: starts the ranks, and when one dies takes the others down, as mpirun does.
[[noreturn]] inline void launch(const JobOptions& o, const std::filesystem::path& set,
                                const std::filesystem::path& run, uint64_t world,
                                const PositionRng& draws) {
  ::setpgid(0, 0);
  std::vector<std::pair<int, int>> pairs(world, {-1, -1});
  for (uint64_t r = 1; r < world; ++r) {
    int both[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, both) != 0) ::_exit(1);
    pairs[r] = {both[0], both[1]};
  }
  std::vector<pid_t> ranks;
  const pid_t self = ::getpid();
  for (uint64_t r = 0; r < world; ++r) {
    const pid_t pid = ::fork();
    if (pid < 0) ::_exit(1);
    if (pid == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (::getppid() != self) ::_exit(5);  // the launcher died first
      std::vector<int> mine;
      for (uint64_t k = 1; k < world; ++k) {
        const auto [root_end, own_end] = pairs[k];
        if (r == 0) mine.push_back(root_end);
        if (r == k) mine.push_back(own_end);
        if (r != 0) ::close(root_end);
        if (r != k) ::close(own_end);
      }
      run_as_process([&] { Rank(o, set, run, r, world, mine, draws).work(); });
    }
    ranks.push_back(pid);
  }
  for (const auto& [a, b] : pairs) ::close(a), ::close(b);
  int code = 0;
  for (size_t left = ranks.size(); left > 0; --left) {
    int status = 0;
    ::wait(&status);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) continue;
    if (code == 0) code = WIFEXITED(status) ? WEXITSTATUS(status) : 5;
    for (const pid_t rank : ranks) ::kill(rank, SIGKILL);
  }
  ::_exit(code);
}

}  // namespace nf::test
