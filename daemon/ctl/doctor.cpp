#include "ctl/doctor.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "ctl/doctor_checks.h"
#include "ctl/doctor_facts.h"

namespace mps::ctl {

namespace {

std::string padded(std::string text, std::size_t width) {
  if (text.size() < width) text.append(width - text.size(), ' ');
  return text;
}

std::string counted(const Findings& findings, Severity severity) {
  const auto count = std::ranges::count(findings, severity, &Finding::severity);
  return std::to_string(count) + " " + to_string(severity) + (count == 1 ? "" : "s");
}

}  // namespace

const char* to_string(Severity severity) {
  switch (severity) {
    case Severity::ok:
      return "ok";
    case Severity::note:
      return "note";
    case Severity::warning:
      return "warning";
    case Severity::error:
      return "error";
  }
  return "unknown";
}

Findings run_doctor(const DoctorOptions& options) {
  return evaluate(gather_facts(options));
}

std::string to_text(const Findings& findings) {
  std::size_t width = 0;
  for (const auto& finding : findings) width = std::max(width, finding.check.size());
  constexpr std::size_t k_severity_width = 9;
  std::string text;
  for (const auto& finding : findings) {
    text += padded(to_string(finding.severity), k_severity_width) +
            padded(finding.check, width + 2) + finding.message + "\n";
    if (!finding.advice.empty()) {
      text += std::string(k_severity_width + width + 2, ' ') + "-> " + finding.advice + "\n";
    }
  }
  return text + counted(findings, Severity::error) + ", " + counted(findings, Severity::warning) +
         ", " + counted(findings, Severity::note) + "\n";
}

nlohmann::json to_json(const Findings& findings) {
  auto array = nlohmann::json::array();
  for (const auto& finding : findings) {
    array.push_back({{"severity", to_string(finding.severity)},
                     {"check", finding.check},
                     {"message", finding.message},
                     {"advice", finding.advice}});
  }
  return array;
}

int exit_status(const Findings& findings) {
  return std::ranges::count(findings, Severity::error, &Finding::severity) > 0 ? 1 : 0;
}

}  // namespace mps::ctl
