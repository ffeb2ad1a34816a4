// The calls of the gate that can fail for reasons outside of it, so that tests can make each of
// them fail. Results as the calls themselves give them: -1 is an error, its number in errno.
// One thread.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include "base/unique_fd.h"

namespace mps::gate {

inline constexpr std::size_t k_descriptors = 253;  // most of one message (SCM_MAX_FD)

// One message as it came. Its descriptors are closed with it, or by the next receive().
struct Received {
  std::size_t size = 0;
  bool cut = false;      // the message was longer than the buffer
  bool missing = false;  // descriptors came beside it that could not be taken
  std::optional<ucred> credentials{};
  std::array<int, k_descriptors> descriptors{};
  std::size_t descriptor_count = 0;

  Received() = default;
  ~Received() { clear(); }
  Received(const Received&) = delete;
  Received& operator=(const Received&) = delete;
  void clear();
  [[nodiscard]] std::span<const int> fds() const { return {descriptors.data(), descriptor_count}; }
};

class System {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  virtual ~System() = default;

  virtual TimePoint now();
  virtual int accept(int listener);  // non-blocking, close-on-exec
  // Of who connected, also if it ended since. `exact`: the kernel's own word (from 6.5 on); else it
  // is whoever has the pid now.
  virtual int pidfd_of(int socket, const ucred& peer, bool& exact);
  virtual bool has_ended(int pidfd);
  virtual std::string cgroup_of(pid_t pid);  // /proc's text; empty: not to be had
  virtual int socket();
  virtual int connect(int socket, int directory);  // to `control` in that directory
  // The size. An end is 0 without credentials, an empty message is 0 with them, where the socket
  // passes these. MSG_DONTWAIT.
  virtual ssize_t receive(int socket, std::span<char> buffer, Received& received);
  // The same, and the message stays; until discard().
  virtual ssize_t peek(int socket, std::span<char> buffer, Received& received);
  virtual void discard(int socket);
  virtual ssize_t send(int socket, std::span<const char> bytes, const ucred* credentials,
                       std::span<const int> descriptors);
  virtual int watch(int epoll, int operation, int descriptor, unsigned events,
                    unsigned long long data);
};

}  // namespace mps::gate
