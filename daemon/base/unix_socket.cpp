#include "base/unix_socket.h"

#include <cerrno>
#include <cstring>
#include <string>

namespace mps {

Result<UnixAddress> UnixAddress::of(const std::filesystem::path& path) {
  UnixAddress made;
  auto& address = made.address_;
  const auto& text = path.native();
  address.sun_family = AF_UNIX;
  if (text.size() >= sizeof(address.sun_path)) {
    return Error{text + " is too long for a socket address (" + std::to_string(text.size()) +
                 " of at most 107 bytes): use a shorter runDir"};
  }
  std::memcpy(address.sun_path, text.data(), text.size());
  return made;
}

Result<UniqueFd> seqpacket_socket() {
  UniqueFd made(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!made) return Error::from_errno("socket", errno);
  return made;
}

}  // namespace mps
