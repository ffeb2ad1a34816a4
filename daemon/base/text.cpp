#include "base/text.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <limits>

#include "base/result.h"

namespace mps {

Error Error::from_errno(std::string_view what, int error_number) {
  std::array<char, 128> buffer{};
  return Error{std::string(what) + ": " + strerror_r(error_number, buffer.data(), buffer.size())};
}

namespace {

constexpr std::string_view k_blanks = " \t\r\n\v\f";

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j < row.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row[b.size()];
}

struct Unit {
  std::string_view suffix;
  double factor;
};

constexpr std::array<Unit, 4> k_time_units{{{"ms", 1}, {"s", 1e3}, {"m", 60e3}, {"h", 3600e3}}};

constexpr std::array<Unit, 11> k_byte_units{{{"Ki", 1024.0},
                                             {"Mi", 1048576.0},
                                             {"Gi", 1073741824.0},
                                             {"Ti", 1099511627776.0},
                                             {"Pi", 1125899906842624.0},
                                             {"k", 1e3},
                                             {"M", 1e6},
                                             {"G", 1e9},
                                             {"T", 1e12},
                                             {"P", 1e15},
                                             {"", 1}}};

// How many bytes the character at the beginning of `text` has in UTF-8; 0 for a control character
// (C0, DEL, C1) and for what is no UTF-8: cut short, overlong, a surrogate, beyond U+10FFFF.
std::size_t character_length(std::string_view text) {
  const auto byte = [&](std::size_t at) { return static_cast<unsigned char>(text[at]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return lead >= 0x20 && lead != 0x7f ? 1 : 0;
  const std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < length) return 0;
  std::uint32_t code = lead & (0xffU >> (length + 1));
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0U) != 0x80U) return 0;
    code = code << 6U | (byte(i) & 0x3fU);
  }
  constexpr std::array<std::uint32_t, 5> k_smallest{0, 0, 0xa0, 0x800, 0x10000};
  const bool surrogate = code >= 0xd800 && code <= 0xdfff;
  return code < k_smallest[length] || surrogate || code > 0x10ffff ? 0 : length;
}

template <std::size_t N>
std::optional<double> parse_with_unit(std::string_view text, const std::array<Unit, N>& units) {
  const auto digits = text.find_first_not_of("0123456789.");
  const auto number = text.substr(0, digits);
  const auto suffix = digits == std::string_view::npos ? std::string_view{} : text.substr(digits);
  // from_chars would take "inf", an exponent and a leading '.'; none of them is meant here.
  if (number.empty() || number.front() == '.' || number.back() == '.') return std::nullopt;
  const auto value = parse_number<double>(number);
  if (!value) return std::nullopt;
  for (const auto& unit : units) {
    if (unit.suffix == suffix) return *value * unit.factor;
  }
  return std::nullopt;
}

}  // namespace

std::string_view trim(std::string_view text) {
  const auto first = text.find_first_not_of(k_blanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(k_blanks) - first + 1);
}

std::vector<std::string_view> split_lines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const auto end = text.find('\n');
    lines.push_back(text.substr(0, end));
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 1);
  }
  return lines;
}

std::vector<std::string_view> split_whitespace(std::string_view text) {
  std::vector<std::string_view> words;
  for (auto start = text.find_first_not_of(k_blanks); start != std::string_view::npos;) {
    const auto end = text.find_first_of(k_blanks, start);
    words.push_back(text.substr(start, end - start));
    start = text.find_first_not_of(k_blanks, end);
  }
  return words;
}

std::optional<std::chrono::milliseconds> parse_duration(std::string_view text) {
  const auto value = parse_with_unit(text, k_time_units);
  // A year is longer than anything that is meant here, and far from overflow.
  if (!value || *value > 365.0 * 24 * 3600e3) return std::nullopt;
  return std::chrono::milliseconds(static_cast<std::int64_t>(std::llround(*value)));
}

std::string format_duration(std::chrono::milliseconds value) {
  const auto count = value.count();
  if (count % 1000 != 0) return std::to_string(count) + "ms";
  if (count % 60000 != 0 || count == 0) return std::to_string(count / 1000) + "s";
  if (count % 3600000 != 0) return std::to_string(count / 60000) + "m";
  return std::to_string(count / 3600000) + "h";
}

std::optional<std::uint64_t> parse_quantity(std::string_view text) {
  if (const auto whole = parse_number<std::int64_t>(text); whole && text.front() != '-') {
    return static_cast<std::uint64_t>(*whole);
  }
  const auto value = parse_with_unit(text, k_byte_units);
  if (!value || *value >= 9.2e18) return std::nullopt;
  return static_cast<std::uint64_t>(*value);
}

std::string format_mebibytes(std::uint64_t mebibytes) {
  if (mebibytes != 0 && mebibytes % 1024 == 0) return std::to_string(mebibytes / 1024) + "Gi";
  return std::to_string(mebibytes) + "Mi";
}

std::optional<std::string_view> did_you_mean(std::string_view word,
                                             std::span<const std::string_view> candidates) {
  std::optional<std::string_view> best;
  std::size_t best_distance = std::max<std::size_t>(1, word.size() / 3) + 1;
  for (const auto candidate : candidates) {
    const auto distance = edit_distance(word.substr(0, 64), candidate);
    if (distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

std::string format_time(std::chrono::system_clock::time_point time) {
  using std::chrono::duration_cast;
  const auto since_epoch =
      duration_cast<std::chrono::milliseconds>(time.time_since_epoch()).count();
  const std::time_t seconds = since_epoch / 1000;
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  std::array<char, 40> buffer{};
  const auto length = std::strftime(buffer.data(), buffer.size(), "%Y-%m-%dT%H:%M:%S", &parts);
  std::snprintf(buffer.data() + length, buffer.size() - length, ".%03dZ",
                static_cast<int>(since_epoch % 1000));
  return buffer.data();
}

std::optional<std::chrono::system_clock::time_point> parse_time(std::string_view text) {
  if (text.size() != 24 || text.back() != 'Z' || text[19] != '.') return std::nullopt;
  const std::string head(text.substr(0, 19));
  std::tm parts{};
  const char* end = strptime(head.c_str(), "%Y-%m-%dT%H:%M:%S", &parts);
  const auto millis = parse_number<int>(text.substr(20, 3));
  if (end == nullptr || *end != '\0' || !millis || *millis < 0) return std::nullopt;
  return std::chrono::system_clock::from_time_t(timegm(&parts)) +
         std::chrono::milliseconds(*millis);
}

std::optional<OddCharacter> find_odd_character(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const auto lead = static_cast<unsigned char>(text[at]);
    if (lead == '\t' || lead == '\n' || lead == '\r') {
      ++at;
      continue;
    }
    const auto length = character_length(text.substr(at));
    if (length == 0) {
      const bool c1 = lead == 0xc2 && at + 1 < text.size() &&
                      (static_cast<unsigned char>(text[at + 1]) & 0xe0U) == 0x80U;
      return OddCharacter{at, lead < 0x20 || lead == 0x7f || c1};
    }
    at += length;
  }
  return std::nullopt;
}

std::string printable(std::string_view text, std::size_t limit) {
  std::string out;
  std::size_t taken = 0;
  while (taken < text.size()) {
    const auto length = character_length(text.substr(taken));
    const auto step = length == 0 ? 1 : length;
    if (taken + step > limit) return out + "…";
    if (length == 0) {
      std::array<char, 5> escaped{};
      std::snprintf(escaped.data(), escaped.size(), "\\x%02x",
                    static_cast<unsigned char>(text[taken]));
      out += escaped.data();
    } else {
      out += text.substr(taken, length);
    }
    taken += step;
  }
  return out;
}

}  // namespace mps
