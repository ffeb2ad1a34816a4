#include "gate/share_socket.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "base/unix_socket.h"

namespace mps::gate {
namespace {

namespace fs = std::filesystem;

// SIOCUNIXFILE of linux/un.h, which cannot be included beside sys/un.h.
constexpr unsigned long k_siocunixfile = SIOCPROTOPRIVATE + 0;
constexpr int k_backlog = 4096;  // as much as the kernel allows (net.core.somaxconn)

// A container that has the share mounted for writing may have put a link in its place.
Result<UniqueFd> open_directory(const fs::path& path) {
  UniqueFd opened(::open(path.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!opened) return Error::from_errno("cannot open " + path.string(), errno);
  return opened;
}

Result<UniqueFd> listen_at(const fs::path& path) {
  const auto address = UnixAddress::of(path);
  if (!address) return address.error();
  auto made = seqpacket_socket();
  if (!made) return made;
  // Before anybody can connect: what is sent before it is set has no credentials.
  const int passes = 1;
  ::unlink(path.c_str());
  if (::setsockopt(made->get(), SOL_SOCKET, SO_PASSCRED, &passes, sizeof(passes)) != 0 ||
      ::bind(made->get(), address->get(), address->size()) != 0 ||
      ::chmod(path.c_str(), 0666) != 0 || ::listen(made->get(), k_backlog) != 0) {
    return Error::from_errno("cannot listen at " + path.string(), errno);
  }
  return made;
}

}  // namespace

bool is_in_place(const SharePlace& place) {
  const auto directory = open_directory(place.directory);
  struct stat ours {};
  struct stat there {};
  return directory && ::lstat(place.keep.c_str(), &ours) == 0 &&
         ::fstatat(directory->get(), place.name.c_str(), &there, AT_SYMLINK_NOFOLLOW) == 0 &&
         ours.st_ino == there.st_ino && ours.st_dev == there.st_dev;
}

bool listens_for(const SharePlace& place, int socket) {
  int listens = 0;
  socklen_t size = sizeof(listens);
  if (::getsockopt(socket, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) != 0 || listens == 0) {
    return false;
  }
  // The file that it was bound to, whatever is at that path now.
  const UniqueFd file(::ioctl(socket, k_siocunixfile));
  struct stat bound {};
  struct stat ours {};
  return file && ::fstat(file.get(), &bound) == 0 && ::lstat(place.keep.c_str(), &ours) == 0 &&
         bound.st_ino == ours.st_ino && bound.st_dev == ours.st_dev;
}

Result<void> put_in_place(const SharePlace& place) {
  const auto directory = open_directory(place.directory);
  if (!directory) return directory.error();
  const auto fresh = place.keep.string() + ".new";
  ::unlink(fresh.c_str());
  if (::link(place.keep.c_str(), fresh.c_str()) != 0) {
    return Error::from_errno("cannot link " + place.keep.string() + " to " + fresh, errno);
  }
  const auto* name = place.name.c_str();
  int moved = ::renameat(AT_FDCWD, fresh.c_str(), directory->get(), name);
  if (moved != 0 && errno == EISDIR && ::unlinkat(directory->get(), name, AT_REMOVEDIR) == 0) {
    moved = ::renameat(AT_FDCWD, fresh.c_str(), directory->get(), name);
  }
  if (moved != 0) {
    return Error::from_errno("cannot put a socket at " + (place.directory / name).string(), errno);
  }
  return {};
}

Result<UniqueFd> listen_in(const SharePlace& place) {
  // Before the one that may be there is given up.
  if (const auto directory = open_directory(place.directory); !directory) return directory.error();
  auto socket = listen_at(place.keep);
  if (!socket) return socket;
  if (auto put = put_in_place(place); !put) return put.error();
  return socket;
}

}  // namespace mps::gate
