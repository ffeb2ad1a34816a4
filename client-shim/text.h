// Text in buffers of fixed size, and numbers out of it: what mps-run and the shim need of a
// standard library that neither may bring along. Nothing here allocates, reads a locale or fails
// silently: what does not fit is said. One thread or many; no state.
#pragma once

#include <stdarg.h>
#include <stddef.h>

namespace mps::client {

// Formats as snprintf does. False: it did not fit, and what is there is cut.
[[gnu::format(printf, 3, 4)]] bool format(char* out, size_t size, const char* pattern, ...);
[[gnu::format(printf, 3, 0)]] bool format_list(char* out, size_t size, const char* pattern,
                                               va_list values);

template <size_t N>
struct Text {
  char data[N] = {};

  [[gnu::format(printf, 2, 3)]] bool print(const char* pattern, ...) {
    va_list values;
    va_start(values, pattern);
    const bool fits = format_list(data, N, pattern, values);
    va_end(values);
    return fits;
  }
  [[nodiscard]] bool empty() const { return data[0] == '\0'; }
  [[nodiscard]] const char* c_str() const { return data; }
};

// `length` bytes of `from`. False: they did not fit, and nothing is there.
bool copy(char* out, size_t size, const char* from, size_t length);

[[nodiscard]] bool equal(const char* a, const char* b);
[[nodiscard]] bool starts_with(const char* text, const char* beginning);
[[nodiscard]] bool starts_with_ignoring_case(const char* text, const char* beginning,
                                             size_t length);

// A whole number of decimal digits and nothing else; -1: it is none, or above 10^15.
[[nodiscard]] long long whole_number(const char* text, size_t length);

// Milliseconds of "500ms", "30s", "5m", "2h"; "0". -1: it is none of these, or above 24 h.
[[nodiscard]] long long duration_ms(const char* text);
inline constexpr long long k_longest_wait_ms = 24LL * 60 * 60 * 1000;

// What an agent or a user said may end on a terminal: control characters become '?'.
void make_printable(char* text);

}  // namespace mps::client
