#include "json_line.h"

#include <cstdio>

namespace mps::probe {
namespace {

std::string quoted(std::string_view text) {
  std::string result = "\"";
  for (const char letter : text) {
    if (letter == '"' || letter == '\\') result += '\\';
    result += letter >= ' ' ? letter : '?';
  }
  return result + "\"";
}

}  // namespace

JsonLine& JsonLine::raw(std::string_view key, std::string_view value) {
  members_ += (members_.empty() ? "" : ", ") + quoted(key) + ": ";
  members_ += value;
  return *this;
}

JsonLine& JsonLine::text(std::string_view key, std::string_view value) {
  return raw(key, quoted(value));
}

JsonLine& JsonLine::number(std::string_view key, std::int64_t value) {
  return raw(key, std::to_string(value));
}

void JsonLine::print() const {
  (void)std::puts(("{" + members_ + "}").c_str());
  (void)std::fflush(stdout);
}

}  // namespace mps::probe
