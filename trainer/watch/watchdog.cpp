// See watchdog.h.
#include "trainer/watch/watchdog.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>

#include "core/atomic_file.h"
#include "core/error.h"
#include "core/jsonl.h"
#include "trainer/watch/process_state.h"

namespace nf::train {
namespace {

constexpr auto kBeat = std::chrono::milliseconds(400);
// The thread itself stood still this long: the whole machine was suspended, nobody is to blame.
constexpr auto kSuspended = std::chrono::seconds(2);
constexpr double kStepFactor = 10;

std::string own_host() {
  std::array<char, 64> name{};
  gethostname(name.data(), name.size() - 1);
  return name.data();
}

double seconds(std::chrono::steady_clock::duration d) {
  return std::chrono::duration<double>(d).count();
}

std::string tenths(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f s", value);
  return text;
}

std::string where(const Activity::View& v) {
  std::string text = "section ";
  text.append(name(v.section)).append(", step ").append(std::to_string(v.step));
  if (v.wait != Wait::kNone) text.append(", waiting for ").append(name(v.wait));
  return text;
}

Activity::View view_of(const Heartbeat& h) {
  return {static_cast<Section>(std::min(h.section, static_cast<uint32_t>(Section::kEnd))),
          static_cast<Wait>(std::min(h.wait, static_cast<uint32_t>(Wait::kRanks))), h.step,
          h.seconds};
}

Json to_json(const Suspect& s) {
  return {{"rank", s.rank},
          {"host", s.host},
          {"step", s.last.step},
          {"section", name(s.last.section)},
          {"waiting_for", name(s.last.wait)},
          {"seconds_in_section", s.last.seconds},
          {"silent_seconds", s.silent_seconds}};
}

}  // namespace

std::string to_json_text(const HangReport& r) {
  Json ranks = Json::array();
  for (const Suspect& s : r.ranks) ranks.push_back(to_json(s));
  return Json{{"what", r.what},
              {"witness", r.witness},
              {"suspect", r.suspect.rank >= 0 ? to_json(r.suspect) : Json(nullptr)},
              {"ranks", ranks}}
             .dump(2) +
         "\n";
}

Watchdog::Watchdog(Communicator& comm, const Activity& activity, WatchOptions options)
    : activity_(activity),
      options_(std::move(options)),
      rank_(comm.rank()),
      world_(comm.size()),
      parent_(::getppid()),
      launcher_well_(Clock::now()) {
  exchange_addresses(comm);
  thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
}

Watchdog::~Watchdog() {
  thread_.request_stop();
  if (thread_.joinable()) thread_.join();
  beat();  // the last word: leaving on purpose, if the section is "end"
}

void Watchdog::exchange_addresses(Communicator& comm) {
  struct Card {
    std::array<char, 64> host;
    uint64_t job;
    uint16_t port;
  };
  Card own{};
  const std::string host = own_host();
  std::copy_n(host.data(), std::min(host.size(), own.host.size() - 1), own.host.data());
  own.port = socket_.port();
  own.job = static_cast<uint64_t>(Clock::now().time_since_epoch().count()) ^
            (static_cast<uint64_t>(::getpid()) << 40);
  std::vector<Card> all(static_cast<size_t>(world_));
  comm.all_gather(reinterpret_cast<const std::byte*>(&own),
                  reinterpret_cast<std::byte*>(all.data()),
                  std::vector<size_t>(all.size(), sizeof(Card)));
  job_ = all[0].job;
  const auto now = Clock::now();
  for (int r = 0; r < world_; ++r) {
    const Card& card = all[static_cast<size_t>(r)];
    Peer peer;
    peer.host = card.host.data();
    peer.last = now;
    if (rank_ == 0 || r == 0) peer.address = HeartbeatSocket::resolve(peer.host, card.port);
    peers_.push_back(std::move(peer));
  }
}

void Watchdog::run(const std::stop_token& stop) {
  auto last = Clock::now();
  while (!stop.stop_requested()) {
    beat();
    listen();
    const auto now = Clock::now();
    if (now - last > kSuspended) {
      for (Peer& p : peers_) p.last = now;
      launcher_well_ = now;
    }
    last = now;
    if (stop.stop_requested()) return;
    if (auto hang = judge()) {
      fire(*hang);
      return;
    }
  }
}

// Everyone to rank 0, rank 0 to everyone.
void Watchdog::beat() {
  const Activity::View v = activity_.view();
  const Heartbeat h{
      job_,   rank_,    static_cast<uint32_t>(v.section), static_cast<uint32_t>(v.wait),
      v.step, v.seconds};
  for (int r = 0; r < world_; ++r) {
    const auto& peer = peers_[static_cast<size_t>(r)];
    if (r != rank_ && peer.address && (rank_ == 0 || r == 0)) socket_.send(*peer.address, h);
  }
}

void Watchdog::listen() {
  const auto end = Clock::now() + kBeat;
  for (auto now = Clock::now(); now < end; now = Clock::now()) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - now).count();
    for (const Heartbeat& h : socket_.receive(static_cast<int>(left) + 1)) {
      if (h.job != job_ || h.rank < 0 || h.rank >= world_ || h.rank == rank_) continue;
      const std::lock_guard lock(mutex_);
      Peer& peer = peers_[static_cast<size_t>(h.rank)];
      peer.heard = true;
      peer.last = Clock::now();
      peer.view = view_of(h);
    }
  }
}

double Watchdog::limit(const Activity::View& v) const {
  if (v.section != Section::kStep) return options_.section_seconds;
  if (steps_ < 3) return options_.section_seconds;  // the first steps warm up caches and plans
  return std::max(options_.least_step_seconds, kStepFactor * slowest_step_);
}

// mutex_ held.
std::optional<int> Watchdog::silent_rank(Clock::time_point now) const {
  for (int r = 0; r < world_; ++r) {
    const Peer& p = peers_[static_cast<size_t>(r)];
    if (r == rank_ || (rank_ != 0 && r != 0) || !p.heard) continue;
    // Rank 0 is missed by all others at the same time: one after the other speaks up.
    const double patience = options_.silence_seconds + (rank_ == 0 ? 0.0 : 0.3 * (rank_ - 1));
    if (seconds(now - p.last) > patience && p.view.section != Section::kEnd) return r;
  }
  return std::nullopt;
}

// Rank 0 alone, mutex_ held: who stands still by its own fault; -1: all wait for each other.
std::optional<int> Watchdog::stuck_rank() const {
  bool all_wait = true;
  for (int r = 0; r < world_; ++r) {
    const Activity::View v = r == rank_ ? activity_.view() : peers_[static_cast<size_t>(r)].view;
    const bool late = v.section != Section::kEnd && v.seconds > limit(v);
    if (late && v.wait != Wait::kRanks) return r;
    all_wait = all_wait && v.wait == Wait::kRanks && v.section != Section::kEnd &&
               v.seconds > limit(v) + options_.silence_seconds;
  }
  if (all_wait && world_ > 1) return -1;
  return std::nullopt;
}

std::optional<HangReport> Watchdog::judge() {
  const std::lock_guard lock(mutex_);
  if (auto launcher = judge_launcher()) return launcher;
  const auto now = Clock::now();
  if (const auto r = silent_rank(now)) {
    const Peer& p = peers_[static_cast<size_t>(*r)];
    return report("rank " + std::to_string(*r) + " on " + p.host + " gives no sign of life for " +
                      tenths(seconds(now - p.last)) + " (last seen in " + where(p.view) + ")",
                  *r);
  }
  if (rank_ != 0) return std::nullopt;
  const auto r = stuck_rank();
  if (!r) return std::nullopt;
  if (*r < 0) return report("all ranks wait for each other", -1);
  const Activity::View v = *r == 0 ? activity_.view() : peers_[static_cast<size_t>(*r)].view;
  return report("rank " + std::to_string(*r) + " on " + peers_[static_cast<size_t>(*r)].host +
                    " stands still for " + tenths(v.seconds) + " (" + where(v) + "; its limit is " +
                    tenths(limit(v)) + ")",
                *r);
}

// mutex_ held.
std::optional<HangReport> Watchdog::judge_launcher() {
  if (!options_.watch_launcher) return std::nullopt;
  const auto now = Clock::now();
  const bool gone = ::getppid() != parent_;
  if (!gone && process_state(parent_) != 'T') {
    launcher_well_ = now;
    return std::nullopt;
  }
  if (!gone && seconds(now - launcher_well_) < options_.silence_seconds) return std::nullopt;
  const std::string who = "the launcher, process " + std::to_string(parent_);
  HangReport out = report(gone ? who + ", is gone" : who + ", is stopped", -1);
  out.stopped_launcher = !gone;
  return out;
}

// mutex_ held.
HangReport Watchdog::report(std::string what, int rank) const {
  HangReport out;
  out.what = std::move(what);
  out.witness = rank_;
  const auto now = Clock::now();
  for (int r = 0; r < world_; ++r) {
    const Peer& p = peers_[static_cast<size_t>(r)];
    const bool self = r == rank_;
    if (!self && !p.heard) continue;
    out.ranks.push_back(
        {r, p.host, self ? activity_.view() : p.view, self ? 0.0 : seconds(now - p.last)});
    if (r == rank) out.suspect = out.ranks.back();
  }
  return out;
}

void Watchdog::fire(const HangReport& r) {
  if (options_.on_hang) return options_.on_hang(r);
  const std::string text = "error: rank " + std::to_string(rank_) + ": " + r.what +
                           "\nhint: look at that host, then run the same command again; nothing "
                           "after the last checkpoint is kept\n";
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
  std::string path;
  {
    const std::lock_guard lock(mutex_);
    path = report_path_;
  }
  if (!path.empty()) {
    // On a thread of its own: the file system may be what hangs.
    std::thread([path, json = to_json_text(r)] {
      try {
        write_file_atomic(path, json);
      } catch (const std::exception&) {  // the message on stderr has to do
      }
    }).detach();
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
  }
  if (r.stopped_launcher) ::kill(parent_, SIGKILL);
  ::_exit(static_cast<int>(ExitCode::kRank));  // MPI_Abort could wait for the lost rank
}

void Watchdog::learn_step(double s) {
  if (s > slowest_step_) slowest_step_ = s;
  ++steps_;
}

void Watchdog::set_report_path(const std::string& path) {
  const std::lock_guard lock(mutex_);
  report_path_ = path;
}

void Watchdog::set_limits(double silence_seconds, double section_seconds) {
  const std::lock_guard lock(mutex_);
  options_.silence_seconds = silence_seconds;
  options_.least_step_seconds = silence_seconds;
  options_.section_seconds = section_seconds;
}

std::vector<int> Watchdog::unheard() const {
  const std::lock_guard lock(mutex_);
  std::vector<int> out;
  for (int r = 1; r < world_ && rank_ == 0; ++r)
    if (!peers_[static_cast<size_t>(r)].heard) out.push_back(r);
  return out;
}

}  // namespace nf::train
