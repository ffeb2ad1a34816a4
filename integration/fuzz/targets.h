// The fuzz targets: each takes any bytes and ends the process when an invariant is broken.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace mps::fuzz {

void admission(const std::uint8_t* data, std::size_t size);
void answers(const std::uint8_t* data, std::size_t size);
void gate(const std::uint8_t* data, std::size_t size);
void log_line(const std::uint8_t* data, std::size_t size);
void policy(const std::uint8_t* data, std::size_t size);

// assert() that a release build keeps.
inline void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "broken invariant: %s\n", what);
  std::abort();
}

}  // namespace mps::fuzz
