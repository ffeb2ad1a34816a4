#include "wire.h"

#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace mps::sim {
namespace {

struct Attachment {
  int type;
  const void* data;
  std::size_t size;
};

bool send_with(int socket, std::string_view bytes, const Attachment* attachment) {
  iovec part{const_cast<char*>(bytes.data()), bytes.size()};
  alignas(cmsghdr) std::array<char, 64> control{};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  if (attachment != nullptr) {
    header.msg_control = control.data();
    header.msg_controllen = CMSG_SPACE(attachment->size);
    cmsghdr* item = CMSG_FIRSTHDR(&header);
    item->cmsg_level = SOL_SOCKET;
    item->cmsg_type = attachment->type;
    item->cmsg_len = CMSG_LEN(attachment->size);
    std::memcpy(CMSG_DATA(item), attachment->data, attachment->size);
  }
  ssize_t sent = 0;
  do {
    sent = ::sendmsg(socket, &header, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  return sent == static_cast<ssize_t>(bytes.size());
}

void take_attachments(msghdr& header, Message& message) {
  for (cmsghdr* item = CMSG_FIRSTHDR(&header); item != nullptr; item = CMSG_NXTHDR(&header, item)) {
    if (item->cmsg_level != SOL_SOCKET) continue;
    if (item->cmsg_type == SCM_CREDENTIALS) {
      message.credentials.emplace();
      std::memcpy(&*message.credentials, CMSG_DATA(item), sizeof(ucred));
    } else if (item->cmsg_type == SCM_RIGHTS) {
      const std::size_t count = (item->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (std::size_t index = 0; index < count; ++index) {
        int descriptor = -1;
        std::memcpy(&descriptor, CMSG_DATA(item) + index * sizeof(int), sizeof(int));
        message.descriptor.reset(descriptor);
      }
    }
  }
}

std::optional<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return std::nullopt;
  }
  path.copy(address.sun_path, path.size());
  return address;
}

}  // namespace

bool send_bytes(int socket, std::string_view bytes) {
  return send_with(socket, bytes, nullptr);
}

bool send_as_self(int socket, std::string_view bytes) {
  const ucred self{::getpid(), ::geteuid(), ::getegid()};
  const Attachment attachment{SCM_CREDENTIALS, &self, sizeof self};
  return send_with(socket, bytes, &attachment);
}

bool send_descriptor(int socket, std::string_view bytes, int descriptor) {
  const Attachment attachment{SCM_RIGHTS, &descriptor, sizeof descriptor};
  return send_with(socket, bytes, &attachment);
}

std::optional<Message> receive(int socket, std::size_t limit) {
  Message message;
  message.bytes.resize(limit);
  iovec part{message.bytes.data(), limit};
  alignas(cmsghdr) std::array<char, 256> control{};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  ssize_t count = 0;
  do {
    count = ::recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
  } while (count < 0 && errno == EINTR);
  if (count == 0) errno = 0;
  if (count <= 0) return std::nullopt;
  message.bytes.resize(static_cast<std::size_t>(count));
  take_attachments(header, message);
  return message;
}

void pass_credentials(int socket) {
  const int on = 1;
  (void)::setsockopt(socket, SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
}

UniqueFd connect_to(const std::string& path) {
  const auto address = address_of(path);
  if (!address) return UniqueFd{};
  UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!socket) return socket;
  pass_credentials(socket.get());
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0) {
    return UniqueFd{};
  }
  return socket;
}

UniqueFd listen_at(const std::string& path) {
  const auto address = address_of(path);
  if (!address) return UniqueFd{};
  UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  (void)::unlink(path.c_str());
  if (!socket ||
      ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0 ||
      ::listen(socket.get(), 128) != 0) {
    return UniqueFd{};
  }
  return socket;
}

}  // namespace mps::sim
