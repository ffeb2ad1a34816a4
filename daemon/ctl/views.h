// The supervisor's JSON as text for a person. Pure, and tolerant: a field that is missing, since
// the supervisor is of another version, shows as "-".
#pragma once

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>

namespace mps::ctl {

using SystemTime = std::chrono::system_clock::time_point;

std::string status_text(const nlohmann::json& status, SystemTime now);
std::string devices_text(const nlohmann::json& devices, bool wide);
std::string instances_text(const nlohmann::json& instances, bool wide, SystemTime now);
std::string clients_text(const nlohmann::json& clients, bool wide, SystemTime now);
std::string admissions_text(const nlohmann::json& admissions, bool wide);
std::string waiting_text(const nlohmann::json& waiting, bool wide, SystemTime now);
// What it all comes to, against quotas and the devices' limits.
std::string use_text(const nlohmann::json& use);
std::string shares_text(const nlohmann::json& shares, bool wide, SystemTime now);
std::string share_created_text(const nlohmann::json& share);
std::string faults_text(const nlohmann::json& faults, bool wide, SystemTime now);
std::string fault_story(const nlohmann::json& fault);  // of one
std::string quarantine_text(const nlohmann::json& entries, SystemTime now);
std::string event_line(const nlohmann::json& event, bool wide);

// What a client may have: "25% 10Gi", "12.5% no memory limit", "none".
std::string limits_text(const nlohmann::json& limits);

// "12s", "5m", "3h", "2d" since a time of the API; "-" where it is none.
std::string age(const nlohmann::json& time, SystemTime now);

// "58s" until then; "0s" where it has passed.
std::string time_left(const nlohmann::json& time, SystemTime now);

std::string to_yaml(const nlohmann::json& value);

}  // namespace mps::ctl
