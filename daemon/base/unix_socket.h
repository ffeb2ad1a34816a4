// Unix sockets at a path, of the type that MPS uses. Stateless, any thread.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include <filesystem>

#include "base/result.h"
#include "base/unique_fd.h"

namespace mps {

class UnixAddress {
 public:
  // An Error where it is longer than a socket's address may be (107 bytes).
  static Result<UnixAddress> of(const std::filesystem::path& path);

  // As bind() and connect() take it.
  [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&address_); }
  [[nodiscard]] socklen_t size() const { return sizeof(address_); }

 private:
  sockaddr_un address_{};
};

// SOCK_SEQPACKET, non-blocking, closed at exec.
Result<UniqueFd> seqpacket_socket();

}  // namespace mps
