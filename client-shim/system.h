// The system calls that we make, made directly: the shim lives in programs that may have functions
// of these names themselves (their own `poll`, a preloaded `connect`, bash's `setenv`), and would
// be calling those, before main and before they are ready. As the calls: -1 is an error, with its
// errno.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

namespace mps::client::sys {

inline int socket(int family, int type) {
  return static_cast<int>(::syscall(SYS_socket, family, type, 0));
}
inline int connect(int descriptor, const sockaddr* address, socklen_t size) {
  return static_cast<int>(::syscall(SYS_connect, descriptor, address, size));
}
inline ssize_t send(int descriptor, const void* bytes, size_t size, int flags) {
  return ::syscall(SYS_sendto, descriptor, bytes, size, flags, nullptr, 0);
}
inline ssize_t receive(int descriptor, void* bytes, size_t size, int flags) {
  return ::syscall(SYS_recvfrom, descriptor, bytes, size, flags, nullptr, nullptr);
}
inline ssize_t write(int descriptor, const void* bytes, size_t size) {
  return ::syscall(SYS_write, descriptor, bytes, size);
}
inline int close(int descriptor) {
  return static_cast<int>(::syscall(SYS_close, descriptor));
}
inline int move_above(int descriptor, int lowest) {
  return static_cast<int>(::syscall(SYS_fcntl, descriptor, F_DUPFD_CLOEXEC, lowest));
}
inline bool is_there(const char* path) {
  return ::syscall(SYS_faccessat, AT_FDCWD, path, F_OK) == 0;
}

// `ms` below 0: without end.
inline int poll(pollfd* look, unsigned count, long long ms) {
  const timespec wait{static_cast<time_t>(ms / 1000), static_cast<long>(ms % 1000 * 1'000'000)};
  return static_cast<int>(
      ::syscall(SYS_ppoll, look, count, ms < 0 ? nullptr : &wait, nullptr, sizeof(long)));
}
inline timespec monotonic_time() {
  timespec now{};
  ::syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
  return now;
}
// Null: there is none.
inline void* memory(size_t size) {
  const long place = ::syscall(SYS_mmap, nullptr, size, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  // NOLINTNEXTLINE(performance-no-int-to-ptr): it is the kernel's word for one
  return place == -1 ? nullptr : reinterpret_cast<void*>(place);
}

}  // namespace mps::client::sys
