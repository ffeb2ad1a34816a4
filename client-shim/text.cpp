#include "text.h"

#include <stdio.h>
#include <string.h>

namespace mps::client {

bool format(char* out, size_t size, const char* pattern, ...) {
  va_list values;
  va_start(values, pattern);
  const bool fits = format_list(out, size, pattern, values);
  va_end(values);
  return fits;
}

bool format_list(char* out, size_t size, const char* pattern, va_list values) {
  const int wanted = vsnprintf(out, size, pattern, values);
  return wanted >= 0 && static_cast<size_t>(wanted) < size;
}

bool copy(char* out, size_t size, const char* from, size_t length) {
  out[0] = '\0';
  if (length >= size) return false;
  memcpy(out, from, length);
  out[length] = '\0';
  return true;
}

bool equal(const char* a, const char* b) {
  return strcmp(a, b) == 0;
}

bool starts_with(const char* text, const char* beginning) {
  return strncmp(text, beginning, strlen(beginning)) == 0;
}

namespace {

char lower(char letter) {
  return letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter - 'A' + 'a') : letter;
}

}  // namespace

bool starts_with_ignoring_case(const char* text, const char* beginning, size_t length) {
  for (size_t i = 0; i < length; ++i) {
    if (text[i] == '\0' || lower(text[i]) != lower(beginning[i])) return false;
  }
  return true;
}

long long whole_number(const char* text, size_t length) {
  if (length == 0 || length > 15) return -1;
  long long value = 0;
  for (size_t i = 0; i < length; ++i) {
    if (text[i] < '0' || text[i] > '9') return -1;
    value = value * 10 + (text[i] - '0');
  }
  return value;
}

long long duration_ms(const char* text) {
  struct Unit {
    const char* name;
    long long ms;
  };
  static constexpr Unit units[] = {{"ms", 1}, {"s", 1000}, {"m", 60'000}, {"h", 3'600'000}};
  const size_t digits = strspn(text, "0123456789");
  const long long count = whole_number(text, digits);
  if (count < 0) return -1;
  const char* unit = text + digits;
  if (count == 0 && *unit == '\0') return 0;
  for (const auto& known : units) {
    if (!equal(unit, known.name)) continue;
    return count <= k_longest_wait_ms / known.ms ? count * known.ms : -1;
  }
  return -1;
}

void make_printable(char* text) {
  for (; *text != '\0'; ++text) {
    const auto byte = static_cast<unsigned char>(*text);
    if (byte < 0x20 || byte == 0x7f) *text = '?';
  }
}

}  // namespace mps::client
