// One line of JSON on stdout, at once, as whoever reads it waits for it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace mps::probe {

class JsonLine {
 public:
  JsonLine& text(std::string_view key, std::string_view value);
  JsonLine& number(std::string_view key, std::int64_t value);
  JsonLine& raw(std::string_view key, std::string_view value);  // a number or null as it stands
  void print() const;

 private:
  std::string members_;
};

}  // namespace mps::probe
