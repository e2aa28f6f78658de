// Small datagrams between the ranks' watchdogs, apart from MPI: a rank that is frozen or stuck
// inside MPI is told from one that lives. Loss is harmless, the next one comes soon.
#pragma once

#include <netinet/in.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace nf::train {

// What a rank says about itself.
struct Heartbeat {
  uint64_t job = 0;  // drawn by rank 0: strangers' datagrams are dropped
  int32_t rank = -1;
  uint32_t section = 0, wait = 0;
  uint64_t step = 0;
  double seconds = 0;  // in this section or step
};

class HeartbeatSocket {
 public:
  HeartbeatSocket();  // any free UDP port; throws std::system_error
  ~HeartbeatSocket();
  HeartbeatSocket(const HeartbeatSocket&) = delete;
  HeartbeatSocket& operator=(const HeartbeatSocket&) = delete;

  uint16_t port() const { return port_; }
  // Where a peer listens: its host's name as gethostname() gave it there. nullopt when the name
  // does not resolve here.
  static std::optional<sockaddr_in> resolve(const std::string& host, uint16_t port);
  void send(const sockaddr_in& to, const Heartbeat& heartbeat) const;
  // Waits up to `milliseconds` for the first datagram, then takes all that are there.
  std::vector<Heartbeat> receive(int milliseconds) const;

 private:
  int fd_ = -1;
  uint16_t port_ = 0;
};

}  // namespace nf::train
