#include "yaml/reader.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "base/text.h"

namespace mps::yaml {
namespace {

std::string describe(const Node& node) {
  if (node.is_mapping()) return "a mapping";
  if (node.is_list()) return "a list";
  return "\"" + printable(node.text) + "\"";
}

std::string join(const std::string& path, const std::string& key) {
  return path.empty() ? printable(key) : path + "." + printable(key);
}

Field value_field(const Field& mapping, const Node& key, const Node& value) {
  return {join(mapping.path, key.text), &value, value.is_null() ? key.mark : value.mark};
}

const Reader::Key* find_key(std::initializer_list<Reader::Key> keys, std::string_view name) {
  const auto* found =
      std::find_if(keys.begin(), keys.end(), [name](const auto& key) { return key.name == name; });
  return found == keys.end() ? nullptr : found;
}

std::string unknown_key(std::initializer_list<Reader::Key> keys, std::string_view name) {
  std::vector<std::string_view> names;
  names.reserve(keys.size());
  for (const auto& key : keys) names.push_back(key.name);
  const auto meant = did_you_mean(name, names);
  return meant ? "unknown key, did you mean " + std::string(*meant) : "unknown key";
}

// What readers of YAML 1.1 (Kubernetes' among them) or 1.2 take for a boolean or for nothing.
bool is_special_word(std::string_view text) {
  constexpr std::array<std::string_view, 11> words{"true", "false", "yes",  "no", "on", "off",
                                                   "y",    "n",     "null", "~",  ""};
  std::string small(text);
  std::transform(small.begin(), small.end(), small.begin(), [](char character) {
    return character >= 'A' && character <= 'Z' ? static_cast<char>(character + 32) : character;
  });
  return std::find(words.begin(), words.end(), small) != words.end();
}

// Numbers in any of the ways that some reader knows: 1_000, 0x1f, 1e3, .5, 12:30 (base 60), .inf.
// 1.2.3 is none.
bool looks_like_number(std::string_view text) {
  if (!text.empty() && (text.front() == '-' || text.front() == '+')) text.remove_prefix(1);
  if (text.empty()) return false;
  if (text == ".inf" || text == ".nan" || text == ".Inf" || text == ".NaN" || text == ".INF") {
    return true;
  }
  if (text.find_first_of("0123456789") == std::string_view::npos) return false;
  if (std::count(text.begin(), text.end(), '.') > 1) return false;
  if (text.starts_with("0x")) {
    return text.size() > 2 &&
           text.find_first_not_of("0123456789abcdefABCDEF_", 2) == std::string_view::npos;
  }
  const auto digits = text.starts_with("0o") || text.starts_with("0b") ? text.substr(2) : text;
  const auto rest = digits.find_first_not_of("0123456789_.:");
  if (rest == std::string_view::npos) return true;
  if (rest == 0 || (digits[rest] != 'e' && digits[rest] != 'E')) return false;
  auto exponent = digits.substr(rest + 1);
  if (!exponent.empty() && (exponent.front() == '-' || exponent.front() == '+')) {
    exponent.remove_prefix(1);
  }
  return !exponent.empty() && exponent.find_first_not_of("0123456789") == std::string_view::npos;
}

}  // namespace

std::string to_string(std::string_view file, const Mark& mark) {
  return printable(file, 255) + ":" + std::to_string(mark.line) + ":" + std::to_string(mark.column);
}

void Reader::fail(const Field& field, std::string_view reason) {
  const auto path = field.path.empty() ? "" : field.path + ": ";
  fail_at(field.mark, path + std::string(reason) + ": " + describe(*field.node));
}

void Reader::fail_at(const Mark& mark, std::string_view reason) {
  if (errors_.size() == k_error_limit) {
    ++left_out_;
    return;
  }
  errors_.push_back({mark, to_string(file_, mark) + ": " + std::string(reason)});
}

std::vector<std::string> Reader::take_errors() {
  std::stable_sort(errors_.begin(), errors_.end(),
                   [](const auto& a, const auto& b) { return a.mark < b.mark; });
  std::vector<std::string> texts;
  texts.reserve(errors_.size() + 1);
  for (auto& error : errors_) texts.push_back(std::move(error.text));
  if (left_out_ > 0) {
    texts.push_back(printable(file_, 255) + ": and " + std::to_string(left_out_) + " more errors");
  }
  errors_.clear();
  left_out_ = 0;
  return texts;
}

bool Reader::first_of_name(const Field& value, const Field& key, std::string_view name,
                           std::vector<std::pair<std::string_view, int>>& lines) {
  const auto earlier = std::find_if(lines.begin(), lines.end(),
                                    [name](const auto& line) { return line.first == name; });
  if (earlier == lines.end()) {
    lines.emplace_back(name, key.mark.line);
    return true;
  }
  fail({value.path, value.node, key.mark},
       "given twice, first in line " + std::to_string(earlier->second));
  return false;
}

bool Reader::read_mapping(const Field& field, std::initializer_list<Key> keys) {
  if (!field.node->is_mapping()) {
    fail(field, "must be a mapping");
    return false;
  }
  std::vector<std::pair<std::string_view, int>> lines;  // of the known keys so far
  for (const auto& [key, value] : field.node->fields) {
    const Field key_field{field.path, &key, key.mark};
    if (!key.is_scalar()) {
      fail(key_field, "every key must be a word");
      continue;
    }
    const auto* known = find_key(keys, key.text);
    const auto place = value_field(field, key, value);
    if (known == nullptr) {
      fail({place.path, &key, key.mark}, unknown_key(keys, key.text));
    } else if (first_of_name(place, key_field, key.text, lines)) {
      known->read(place);
    }
  }
  for (const auto& key : keys) {
    const auto given = [&key](const auto& line) { return line.first == key.name; };
    if (!key.required || std::any_of(lines.begin(), lines.end(), given)) continue;
    fail_at(field.mark, join(field.path, std::string(key.name)) + ": is missing");
  }
  return true;
}

bool Reader::read_pairs(const Field& field,
                        const std::function<void(const Field& key, const Field& value)>& read) {
  if (!field.node->is_mapping()) {
    fail(field, "must be a mapping");
    return false;
  }
  std::vector<std::pair<std::string_view, int>> lines;
  for (const auto& [key, value] : field.node->fields) {
    const Field key_field{field.path, &key, key.mark};
    if (!key.is_scalar()) {
      fail(key_field, "every key must be a word");
      continue;
    }
    const auto place = value_field(field, key, value);
    if (first_of_name(place, key_field, key.text, lines)) read({place.path, &key, key.mark}, place);
  }
  return true;
}

bool Reader::read_list(const Field& field, std::string_view what, std::size_t limit,
                       const Read& read) {
  if (!field.node->is_list()) {
    fail(field, what);
    return false;
  }
  const auto& entries = field.node->entries;
  if (entries.size() > limit) {
    fail(field, "must have at most " + std::to_string(limit) + " entries, and has " +
                    std::to_string(entries.size()));
    return false;
  }
  std::size_t index = 0;
  for (const auto& entry : entries) {
    const auto path = field.path + "[" + std::to_string(index++) + "]";
    read({path, &entry, entry.is_null() ? field.mark : entry.mark});
  }
  return true;
}

std::optional<std::string> Reader::text(const Field& field, std::string_view what) {
  if (field.node->is_scalar()) return field.node->text;
  fail(field, what);
  return std::nullopt;
}

std::optional<std::string> Reader::strict_text(const Field& field, std::string_view what) {
  const auto& node = *field.node;
  const bool other =
      node.is_null() || (node.is_scalar() && !node.quoted &&
                         (is_special_word(node.text) || looks_like_number(node.text)));
  if (!other) return text(field, what);
  fail(field, "must be text: put it in quotes, as YAML takes it for something else");
  return std::nullopt;
}

void Reader::boolean(const Field& field, bool& out) {
  choice(field, "false", "true", out);
}

void Reader::choice(const Field& field, std::string_view off, std::string_view on, bool& out) {
  const bool is_boolean = on == "true";
  const auto what = is_boolean ? std::string("must be true or false")
                               : "must be " + std::string(off) + " or " + std::string(on);
  const auto word = text(field, what);
  if (!word) return;
  if (*word != off && *word != on) return fail(field, what);
  out = *word == on;
}

// 010 is 8 for readers of YAML 1.1.
bool Reader::refuse_octal(const Field& field) {
  const std::string_view word = field.node->text;
  const bool number = word.find_first_not_of("0123456789.") == std::string_view::npos;
  if (field.node->quoted || !number || word.size() < 2 || word[0] != '0' || word[1] == '.') {
    return false;
  }
  fail(field, "must not begin with 0, as YAML may take it for an octal number");
  return true;
}

std::optional<std::string> Reader::number_text(const Field& field, std::string_view what) {
  auto word = text(field, what);
  if (!word || !field.node->quoted) {
    return word && refuse_octal(field) ? std::nullopt : word;
  }
  const bool number = parse_number<double>(*word).has_value();
  fail(field, number ? "must be a number, without quotes" : what);
  return std::nullopt;
}

bool Reader::whole_number(const Field& field, std::uint64_t min, std::uint64_t max, unsigned& out) {
  const auto what =
      "must be a whole number from " + std::to_string(min) + " to " + std::to_string(max);
  const auto word = number_text(field, what);
  if (!word) return false;
  const auto value = parse_number<std::uint64_t>(*word);
  if (!value || *value < min || *value > max) {
    fail(field, what);
    return false;
  }
  out = static_cast<unsigned>(*value);
  return true;
}

bool Reader::percentage(const Field& field, double max, double& out) {
  const auto what =
      "must be above 0 and at most " + std::to_string(static_cast<std::uint64_t>(max));
  const auto word = number_text(field, what);
  if (!word) return false;
  const bool plain = word->find_first_not_of("0123456789.") == std::string::npos;
  const auto value = plain ? parse_number<double>(*word) : std::nullopt;
  if (!value || *value <= 0 || *value > max) {
    fail(field, what);
    return false;
  }
  // The control daemon keeps and prints one; what it prints is compared with what was set. The text
  // is judged, as a double has room for decimals that are not there any more.
  const auto point = std::min(word->find('.'), word->size());
  if (word->find_first_not_of('0', point + 2) != std::string::npos) {
    fail(field, "must have one decimal at most");
    return false;
  }
  out = std::round(*value * 10) / 10;
  return true;
}

bool Reader::duration(const Field& field, std::chrono::milliseconds min,
                      std::chrono::milliseconds max, std::chrono::milliseconds& out) {
  constexpr std::string_view what = "must be a time with its unit, such as 250ms, 3s or 2m";
  const auto word = text(field, what);
  if (!word) return false;
  const auto value = parse_duration(*word);
  if (!value) {
    fail(field, what);
    return false;
  }
  if (*value < min || *value > max) {
    fail(field, "must be between " + format_duration(min) + " and " + format_duration(max));
    return false;
  }
  out = *value;
  return true;
}

std::optional<std::uint64_t> Reader::mebibytes(const Field& field) {
  constexpr std::uint64_t k_mebibyte = 1024 * 1024;
  constexpr std::uint64_t k_most = k_mebibyte * 1024 * 1024 * 1024;  // 1Pi, beyond any device
  constexpr std::string_view what = "must be an amount of memory, such as 512Mi or 10Gi";
  constexpr std::string_view thousandths = "; m would be thousandths of a byte";
  const auto word = text(field, what);
  if (!word || refuse_octal(field)) return std::nullopt;
  const auto bytes = parse_quantity(*word);
  if (!bytes) {
    const bool milli = word->ends_with('m') && parse_quantity(word->substr(0, word->size() - 1));
    fail(field, milli ? std::string(what).append(thousandths) : what);
    return std::nullopt;
  }
  if (*bytes < k_mebibyte || *bytes > k_most) {
    fail(field, "must be between 1Mi and 1Pi");
    return std::nullopt;
  }
  return *bytes / k_mebibyte;
}

}  // namespace mps::yaml
