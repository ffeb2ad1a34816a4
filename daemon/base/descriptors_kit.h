// Many descriptors, for tests: a login shell's limit is 1024.
#pragma once

#include <sys/resource.h>

namespace mps::test {

// As many as this process may have at all, and how many that is.
inline rlim_t raise_descriptor_limit() {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  return limit.rlim_cur;
}

}  // namespace mps::test
