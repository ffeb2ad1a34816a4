#include "app/settings_yaml.h"

#include <algorithm>
#include <map>
#include <utility>

#include "base/text.h"

namespace mps::app {
namespace {

std::string describe(const YAML::Node& node) {
  if (node.IsMap()) return "a mapping";
  if (node.IsSequence()) return "a list";
  return "\"" + printable(node.IsScalar() ? node.Scalar() : std::string()) + "\"";
}

std::string place(std::string_view file, const YAML::Mark& mark) {
  const int line = std::max(mark.line, 0) + 1;
  const int column = std::max(mark.column, 0) + 1;
  return std::string(file) + ":" + std::to_string(line) + ":" + std::to_string(column) + ": ";
}

std::string join(const std::string& path, const std::string& key) {
  return path.empty() ? printable(key) : path + "." + printable(key);
}

const SettingsReader::Key* find_key(std::initializer_list<SettingsReader::Key> keys,
                                    std::string_view name) {
  const auto* found =
      std::find_if(keys.begin(), keys.end(), [name](const auto& key) { return key.name == name; });
  return found == keys.end() ? nullptr : found;
}

std::string unknown_key(std::initializer_list<SettingsReader::Key> keys, std::string_view name) {
  std::vector<std::string_view> names;
  names.reserve(keys.size());
  for (const auto& key : keys) names.push_back(key.name);
  const auto meant = did_you_mean(name, names);
  return meant ? "unknown key, did you mean " + std::string(*meant) : "unknown key";
}

}  // namespace

void SettingsReader::fail(const Field& field, std::string_view reason) {
  const auto path = field.path.empty() ? "" : field.path + ": ";
  fail_at(field.mark, path + std::string(reason) + ": " + describe(field.node));
}

void SettingsReader::fail_at(const YAML::Mark& mark, std::string_view reason) {
  if (errors_.size() == k_error_limit) {
    ++left_out_;
    return;
  }
  errors_.push_back(place(file_, mark) + std::string(reason));
}

std::vector<std::string> SettingsReader::take_errors() {
  if (left_out_ > 0) {
    errors_.push_back(file_ + ": and " + std::to_string(left_out_) + " more errors");
  }
  return std::exchange(errors_, {});
}

bool SettingsReader::read_mapping(const Field& field, std::initializer_list<Key> keys) {
  if (!field.node.IsMap()) {
    fail(field, "must be a mapping");
    return false;
  }
  std::map<std::string, int> lines;  // of the keys so far
  for (const auto& entry : field.node) {
    const Field key{field.path, entry.first, entry.first.Mark()};
    if (!entry.first.IsScalar()) {
      fail(key, "every key must be a word");
      continue;
    }
    const std::string& name = entry.first.Scalar();
    const bool empty = entry.second.IsNull();
    const Field value{join(field.path, name), entry.second,
                      empty ? entry.first.Mark() : entry.second.Mark()};
    const auto [earlier, first] = lines.try_emplace(name, entry.first.Mark().line + 1);
    const auto* known = find_key(keys, name);
    if (known == nullptr) {
      fail({value.path, entry.first, key.mark}, unknown_key(keys, name));
    } else if (!first) {
      fail({value.path, entry.second, key.mark},
           "given twice, first in line " + std::to_string(earlier->second));
    } else {
      known->read(value);
    }
  }
  return true;
}

bool SettingsReader::read_list(const Field& field, std::string_view what, std::size_t limit,
                               const Read& read) {
  if (!field.node.IsSequence()) {
    fail(field, what);
    return false;
  }
  if (field.node.size() > limit) {
    fail(field, "must have at most " + std::to_string(limit) + " entries, and has " +
                    std::to_string(field.node.size()));
    return false;
  }
  std::size_t index = 0;
  for (const auto& entry : field.node) {
    const auto path = field.path + "[" + std::to_string(index++) + "]";
    read({path, entry, entry.IsNull() ? field.mark : entry.Mark()});
  }
  return true;
}

std::optional<std::string> SettingsReader::text(const Field& field, std::string_view what) {
  if (field.node.IsScalar()) return field.node.Scalar();
  fail(field, what);
  return std::nullopt;
}

void SettingsReader::boolean(const Field& field, bool& out) {
  const auto word = text(field, "must be true or false");
  if (!word) return;
  if (*word != "true" && *word != "false") return fail(field, "must be true or false");
  out = *word == "true";
}

void SettingsReader::choice(const Field& field, std::string_view off, std::string_view on,
                            bool& out) {
  const auto what = "must be " + std::string(off) + " or " + std::string(on);
  const auto word = text(field, what);
  if (!word) return;
  if (*word != off && *word != on) return fail(field, what);
  out = *word == on;
}

bool SettingsReader::whole_number(const Field& field, std::uint64_t min, std::uint64_t max,
                                  unsigned& out) {
  const auto what =
      "must be a whole number from " + std::to_string(min) + " to " + std::to_string(max);
  const auto word = text(field, what);
  if (!word) return false;
  const auto value = parse_number<std::uint64_t>(*word);
  if (!value || *value < min || *value > max) {
    fail(field, what);
    return false;
  }
  out = static_cast<unsigned>(*value);
  return true;
}

void SettingsReader::duration(const Field& field, std::chrono::milliseconds min,
                              std::chrono::milliseconds max, std::chrono::milliseconds& out) {
  constexpr std::string_view what = "must be a time with its unit, such as 250ms, 3s or 2m";
  const auto word = text(field, what);
  if (!word) return;
  const auto value = parse_duration(*word);
  if (!value) return fail(field, what);
  if (*value < min || *value > max) {
    return fail(field, "must be between " + format_duration(min) + " and " + format_duration(max));
  }
  out = *value;
}

std::optional<std::uint64_t> SettingsReader::mebibytes(const Field& field) {
  constexpr std::uint64_t k_mebibyte = 1024 * 1024;
  constexpr std::uint64_t k_most = k_mebibyte * 1024 * 1024 * 1024;  // 1Pi, beyond any device
  constexpr std::string_view what = "must be an amount of memory, such as 512Mi or 10Gi";
  const auto word = text(field, what);
  if (!word) return std::nullopt;
  const auto bytes = parse_quantity(*word);
  if (!bytes) {
    fail(field, what);
    return std::nullopt;
  }
  if (*bytes < k_mebibyte || *bytes > k_most) {
    fail(field, "must be between 1Mi and 1Pi");
    return std::nullopt;
  }
  return *bytes / k_mebibyte;
}

}  // namespace mps::app
