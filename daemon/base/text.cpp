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

// What an amount of bytes is a multiple of: 2^60 at most, for `whole_part` and `fraction_part`.
struct ByteUnit {
  std::string_view suffix;
  std::uint64_t factor;
};

constexpr std::uint64_t k_kilo = 1000;

constexpr std::array<ByteUnit, 13> k_byte_units{
    {{"Ki", std::uint64_t{1} << 10U},
     {"Mi", std::uint64_t{1} << 20U},
     {"Gi", std::uint64_t{1} << 30U},
     {"Ti", std::uint64_t{1} << 40U},
     {"Pi", std::uint64_t{1} << 50U},
     {"Ei", std::uint64_t{1} << 60U},
     {"k", k_kilo},
     {"M", k_kilo* k_kilo},
     {"G", k_kilo* k_kilo* k_kilo},
     {"T", k_kilo* k_kilo* k_kilo* k_kilo},
     {"P", k_kilo* k_kilo* k_kilo* k_kilo* k_kilo},
     {"E", k_kilo* k_kilo* k_kilo* k_kilo* k_kilo* k_kilo},
     {"", 1}}};

struct Character {
  std::size_t length = 0;  // in bytes; 0: no UTF-8, cut short, overlong, a surrogate, too large
  bool control = false;
};

// C0, DEL, C1; what ends a line for some programs and not for others; and no characters.
bool is_control(std::uint32_t code) {
  return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x2028 || code == 0x2029 ||
         code == 0xfffe || code == 0xffff;
}

// The one that `text` begins with.
Character first_character(std::string_view text) {
  const auto byte = [&](std::size_t at) { return static_cast<unsigned char>(text[at]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return {1, is_control(lead)};
  const std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < length) return {};
  std::uint32_t code = lead & (0xffU >> (length + 1));
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0U) != 0x80U) return {};
    code = code << 6U | (byte(i) & 0x3fU);
  }
  constexpr std::array<std::uint32_t, 5> k_smallest{0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = code >= 0xd800 && code <= 0xdfff;
  if (code < k_smallest[length] || surrogate || code > 0x10ffff) return {};
  return {length, is_control(code)};
}

// How much of it, from its beginning, is ASCII without control characters: nearly all, nearly
// always.
std::size_t plain_prefix(std::string_view text) {
  const auto plain = [](char character) { return character >= ' ' && character <= '~'; };
  return static_cast<std::size_t>(std::find_if_not(text.begin(), text.end(), plain) - text.begin());
}

constexpr std::uint64_t k_most = std::numeric_limits<std::uint64_t>::max();
constexpr std::string_view k_digits = "0123456789";

// A decimal number and what stands behind it; nullopt where it does not begin with "1" or "1.5".
struct Decimal {
  std::string_view whole, fraction, suffix;
};

std::optional<Decimal> split_decimal(std::string_view text) {
  const auto size = [](std::string_view part) {
    return std::min(part.find_first_not_of(k_digits), part.size());
  };
  Decimal out;
  out.whole = text.substr(0, size(text));
  text.remove_prefix(out.whole.size());
  if (text.starts_with('.')) {
    text.remove_prefix(1);
    out.fraction = text.substr(0, size(text));
    if (out.fraction.empty()) return std::nullopt;
    text.remove_prefix(out.fraction.size());
  }
  out.suffix = text;
  return out.whole.empty() ? std::nullopt : std::optional(out);
}

std::uint64_t digit(char character) {
  return static_cast<std::uint64_t>(character - '0');
}

// digits × factor; k_most where it is more than that.
std::uint64_t whole_part(std::string_view digits, std::uint64_t factor) {
  std::uint64_t value = 0;
  for (const char character : digits) {
    if (value > (k_most - digit(character)) / 10) return k_most;
    value = value * 10 + digit(character);
  }
  return value > k_most / factor ? k_most : value * factor;
}

// 0.digits × factor, rounded down. Exact, as no double would be: dividing a rounded down number
// by ten and rounding down is as good as rounding down at the end.
std::uint64_t fraction_part(std::string_view digits, std::uint64_t factor) {
  std::uint64_t value = 0;
  for (auto at = digits.rbegin(); at != digits.rend(); ++at) {
    value = (value + digit(*at) * factor) / 10;
  }
  return value;
}

std::uint64_t multiply(std::string_view whole, std::string_view fraction, std::uint64_t factor) {
  const auto large = whole_part(whole, factor);
  const auto small = fraction_part(fraction, factor);
  return large > k_most - small ? k_most : large + small;
}

// With the decimal point moved. Three digits are more than any amount of memory needs.
std::optional<std::uint64_t> with_exponent(const Decimal& number) {
  auto text = number.suffix.substr(1);
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.remove_prefix(1);
  const auto exponent = text.size() <= 3 ? parse_number<std::uint16_t>(text) : std::nullopt;
  if (!exponent) return std::nullopt;
  std::string whole(number.whole);
  std::string fraction(number.fraction);
  if (negative) {
    const auto zeros = *exponent - std::min<std::size_t>(*exponent, whole.size());
    const auto moved = *exponent - zeros;
    fraction = std::string(zeros, '0') + whole.substr(whole.size() - moved) + fraction;
    whole.erase(whole.size() - moved);
  } else {
    fraction.resize(std::max<std::size_t>(*exponent, fraction.size()), '0');
    whole += fraction.substr(0, *exponent);
    fraction.erase(0, *exponent);
  }
  return multiply(whole, fraction, 1);
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
  const auto decimal = split_decimal(text);
  if (!decimal) return std::nullopt;
  const auto* unit = std::find_if(k_time_units.begin(), k_time_units.end(),
                                  [&](const auto& one) { return one.suffix == decimal->suffix; });
  const auto number = parse_number<double>(text.substr(0, text.size() - decimal->suffix.size()));
  if (unit == k_time_units.end() || !number) return std::nullopt;
  const auto value = *number * unit->factor;
  // A year is longer than anything that is meant here, and far from overflow.
  if (value > 365.0 * 24 * 3600e3) return std::nullopt;
  return std::chrono::milliseconds(static_cast<std::int64_t>(std::llround(value)));
}

std::string format_duration(std::chrono::milliseconds value) {
  const auto count = value.count();
  if (count % 1000 != 0) return std::to_string(count) + "ms";
  if (count % 60000 != 0 || count == 0) return std::to_string(count / 1000) + "s";
  if (count % 3600000 != 0) return std::to_string(count / 60000) + "m";
  return std::to_string(count / 3600000) + "h";
}

std::optional<std::uint64_t> parse_quantity(std::string_view text) {
  const auto decimal = split_decimal(text);
  if (!decimal) return std::nullopt;
  for (const auto& unit : k_byte_units) {
    if (unit.suffix == decimal->suffix) {
      return multiply(decimal->whole, decimal->fraction, unit.factor);
    }
  }
  const bool exponent = decimal->suffix.starts_with('e') || decimal->suffix.starts_with('E');
  return exponent ? with_exponent(*decimal) : std::nullopt;
}

std::string format_mebibytes(std::uint64_t mebibytes) {
  if (mebibytes != 0 && mebibytes % 1024 == 0) return std::to_string(mebibytes / 1024) + "Gi";
  return std::to_string(mebibytes) + "Mi";
}

std::optional<std::string_view> did_you_mean(std::string_view word,
                                             std::span<const std::string_view> candidates) {
  // Beyond that nothing is misspelt: it is something else.
  constexpr std::size_t k_longest_word = 64;
  if (word.size() > k_longest_word) return std::nullopt;
  std::optional<std::string_view> best;
  std::size_t best_distance = std::max<std::size_t>(1, word.size() / 3) + 1;
  for (const auto candidate : candidates) {
    // Each letter more or less is an edit.
    const auto longer = std::max(word.size(), candidate.size());
    if (longer - std::min(word.size(), candidate.size()) >= best_distance) continue;
    if (word == candidate) return candidate;
    const auto distance = edit_distance(word, candidate);
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
  for (auto at = plain_prefix(text); at < text.size(); at += plain_prefix(text.substr(at))) {
    const auto [length, control] = first_character(text.substr(at));
    const bool blank = text[at] == '\t' || text[at] == '\n' || text[at] == '\r';
    if (length == 0) return OddCharacter{at, 1, false};
    if (control && !blank) return OddCharacter{at, length, true};
    at += length;
  }
  return std::nullopt;
}

std::string printable(std::string_view text, std::size_t limit) {
  auto taken = std::min(plain_prefix(text), limit);
  std::string out(text.substr(0, taken));
  while (taken < text.size()) {
    const auto [length, control] = first_character(text.substr(taken));
    const auto step = length == 0 || control ? 1 : length;
    if (taken + step > limit) return out + "…";
    if (length == 0 || control) {
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
