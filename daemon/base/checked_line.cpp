#include "base/checked_line.h"

#include <boost/crc.hpp>
#include <cstddef>
#include <cstdio>

namespace mps {

namespace {

constexpr std::size_t k_crc_digits = 8;

std::string crc_of(std::string_view text) {
  boost::crc_32_type crc;
  crc.process_bytes(text.data(), text.size());
  std::string digits(k_crc_digits + 1, '\0');
  (void)std::snprintf(digits.data(), digits.size(), "%08x", static_cast<unsigned>(crc.checksum()));
  digits.resize(k_crc_digits);
  return digits;
}

}  // namespace

std::string checked_line(std::string_view text) {
  return crc_of(text) + " " + std::string(text) + "\n";
}

std::optional<std::string_view> checked_text(std::string_view line) {
  if (line.size() <= k_crc_digits || line[k_crc_digits] != ' ') return std::nullopt;
  const auto text = line.substr(k_crc_digits + 1);
  if (line.substr(0, k_crc_digits) != crc_of(text)) return std::nullopt;
  return text;
}

}  // namespace mps
