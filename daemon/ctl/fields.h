// The supervisor's JSON, field by field, as text for a person. Tolerant: what is missing is empty.
// Pure.
#pragma once

#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace mps::ctl {

// What stands there; null where nothing does.
const nlohmann::json& field(const nlohmann::json& value, std::initializer_list<const char*> path);

std::string dump(const nlohmann::json& value);
std::string text(const nlohmann::json& value);  // "yes" and "no" for what is true or false
std::string text(const nlohmann::json& value, std::initializer_list<const char*> path);
std::string mebibytes(const nlohmann::json& value);   // "10Gi"
std::string percentage(const nlohmann::json& value);  // "12.5%"

// A line of a list of things and what they are; nothing where the value is empty.
void labelled(std::string& out, std::string_view label, const std::string& value);

}  // namespace mps::ctl
