// Reading and writing the small values that settings, policies and answers are made of. Everything
// here reads to the end of its text: "5abc" is no number.
#pragma once

#include <charconv>
#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mps {

std::string_view trim(std::string_view text);
std::vector<std::string_view> split_lines(std::string_view text);
std::vector<std::string_view> split_whitespace(std::string_view text);

template <typename Number>
std::optional<Number> parse_number(std::string_view text) {
  Number value{};
  const auto* end = text.data() + text.size();
  auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc{} || stop != end) return std::nullopt;
  return value;
}

// "250ms", "3s", "2m", "1h"; a bare number has no meaning and is refused.
std::optional<std::chrono::milliseconds> parse_duration(std::string_view text);
std::string format_duration(std::chrono::milliseconds value);

// Bytes as Kubernetes writes them: "512Mi", "10Gi", "2G", "1073741824", "1.5Gi", "129e6", rounded
// down; what is more than 2^64-1 is that. Nothing else: no sign, no blanks, no thousandths ("m").
std::optional<std::uint64_t> parse_quantity(std::string_view text);
std::string format_mebibytes(std::uint64_t mebibytes);  // "10Gi" where it is whole, else "512Mi"

// The candidate that a misspelt word most likely meant, if one is near enough to be worth saying;
// never one for a word of more than 64 bytes.
std::optional<std::string_view> did_you_mean(std::string_view word,
                                             std::span<const std::string_view> candidates);

// RFC 3339 in UTC with milliseconds: "2026-11-20T23:22:15.182Z".
std::string format_time(std::chrono::system_clock::time_point time);
std::optional<std::chrono::system_clock::time_point> parse_time(std::string_view text);

// The first character of `text` that is not printable, or not UTF-8; tabs and line ends are fine.
// U+0085, U+2028 and U+2029 are not: they end a line for some programs and not for others.
struct OddCharacter {
  std::size_t offset = 0;
  std::size_t length = 1;  // in bytes; 1 of what is not UTF-8
  bool control = false;    // a control character, or none at all (U+FFFE); else it is not UTF-8
};
std::optional<OddCharacter> find_odd_character(std::string_view text);

// Text from outside made safe for a terminal, a log line and JSON: control characters, U+2028 and
// the like, and bytes that are no UTF-8 become "\xNN", and what is longer than `limit` bytes is cut
// with "…", never inside a character.
std::string printable(std::string_view text, std::size_t limit = 200);

}  // namespace mps
