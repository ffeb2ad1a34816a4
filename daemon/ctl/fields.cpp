#include "ctl/fields.h"

#include <cmath>
#include <cstdint>

#include "base/text.h"
#include "ctl/table.h"

namespace mps::ctl {

using nlohmann::json;

const json& field(const json& value, std::initializer_list<const char*> path) {
  static const json none;
  const json* at = &value;
  for (const char* name : path) {
    if (!at->is_object()) return none;
    const auto found = at->find(name);
    if (found == at->end()) return none;
    at = &*found;
  }
  return *at;
}

std::string dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string text(const json& value) {
  if (value.is_null()) return "";
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  return dump(value);
}

std::string text(const json& value, std::initializer_list<const char*> path) {
  return text(field(value, path));
}

std::string mebibytes(const json& value) {
  return value.is_number_unsigned() ? format_mebibytes(value.get<std::uint64_t>()) : "";
}

std::string percentage(const json& value) {
  if (!value.is_number()) return "";
  const auto number = value.get<double>();
  if (number == std::floor(number) && std::abs(number) < 1e6) {
    return std::to_string(static_cast<int>(number)) + "%";
  }
  return dump(value) + "%";
}

void labelled(std::string& out, std::string_view label, const std::string& value) {
  if (value.empty()) return;
  out += padded(label, 11) + printable(value) + "\n";
}

}  // namespace mps::ctl
