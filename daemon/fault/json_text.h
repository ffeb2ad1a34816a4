// Texts and times in the JSON of this room: a text that is empty is null there.
#pragma once

#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

#include "fault/incident_json.h"

namespace mps::fault {

inline nlohmann::json or_null(const std::string& text) {
  return text.empty() ? nlohmann::json(nullptr) : nlohmann::json(text);
}

// These throw, as nlohmann does, where there is something else.
inline std::string text_at(const nlohmann::json& json, const char* key) {
  const auto& text = json.at(key);
  return text.is_null() ? std::string() : text.get<std::string>();
}

inline Time time_at(const nlohmann::json& json, const char* key) {
  const auto time = time_from(json.at(key));
  if (!time) throw std::invalid_argument(key);
  return *time;
}

}  // namespace mps::fault
