// A full disk, for tests.
#pragma once

#include <signal.h>
#include <sys/resource.h>

namespace mps::test {

// Files of this process can't grow beyond `limit` bytes, as on a full disk.
class NoRoom {
 public:
  explicit NoRoom(rlim_t limit) {
    previous_handler_ = ::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &previous_);
    const rlimit now{limit, previous_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &now);
  }
  ~NoRoom() {
    ::setrlimit(RLIMIT_FSIZE, &previous_);
    ::signal(SIGXFSZ, previous_handler_);
  }
  NoRoom(const NoRoom&) = delete;
  NoRoom& operator=(const NoRoom&) = delete;

 private:
  rlimit previous_{};
  void (*previous_handler_)(int) = nullptr;
};

}  // namespace mps::test
