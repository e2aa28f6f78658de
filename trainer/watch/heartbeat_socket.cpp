// See heartbeat_socket.h.
#include "trainer/watch/heartbeat_socket.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>

namespace nf::train {
namespace {

[[noreturn]] void throw_errno(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

std::string own_host() {
  std::array<char, 256> name{};
  gethostname(name.data(), name.size() - 1);
  return name.data();
}

}  // namespace

HeartbeatSocket::HeartbeatSocket() {
  fd_ = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd_ < 0) throw_errno("heartbeat socket");
  sockaddr_in any{};
  any.sin_family = AF_INET;
  any.sin_addr.s_addr = htonl(INADDR_ANY);
  socklen_t size = sizeof any;
  if (::bind(fd_, reinterpret_cast<const sockaddr*>(&any), sizeof any) != 0 ||
      ::getsockname(fd_, reinterpret_cast<sockaddr*>(&any), &size) != 0) {
    const int error = errno;
    ::close(fd_);
    errno = error;
    throw_errno("heartbeat socket");
  }
  port_ = ntohs(any.sin_port);
}

HeartbeatSocket::~HeartbeatSocket() { ::close(fd_); }

std::optional<sockaddr_in> HeartbeatSocket::resolve(const std::string& host, uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  if (host == own_host()) {
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
  }
  addrinfo hints{};
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(host.c_str(), nullptr, &hints, &found) != 0) return std::nullopt;
  std::memcpy(&address.sin_addr, &reinterpret_cast<const sockaddr_in*>(found->ai_addr)->sin_addr,
              sizeof address.sin_addr);
  ::freeaddrinfo(found);
  return address;
}

void HeartbeatSocket::send(const sockaddr_in& to, const Heartbeat& heartbeat) const {
  // A full buffer or an unreachable host loses one heartbeat; silence is what counts.
  [[maybe_unused]] const ssize_t sent =
      ::sendto(fd_, &heartbeat, sizeof heartbeat, MSG_DONTWAIT | MSG_NOSIGNAL,
               reinterpret_cast<const sockaddr*>(&to), sizeof to);
}

std::vector<Heartbeat> HeartbeatSocket::receive(int milliseconds) const {
  std::vector<Heartbeat> all;
  pollfd readable{fd_, POLLIN, 0};
  if (::poll(&readable, 1, milliseconds) <= 0) return all;
  for (;;) {
    Heartbeat h;
    const ssize_t n = ::recv(fd_, &h, sizeof h, MSG_DONTWAIT | MSG_TRUNC);
    if (n == sizeof h) all.push_back(h);
    if (n < 0) return all;
  }
}

}  // namespace nf::train
