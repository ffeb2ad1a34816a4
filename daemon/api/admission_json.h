// Admissions as the API shows them: camelCase fields, null for what is not there. Pure.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <tuple>

#include "api/admissions.h"

namespace mps::api {

// Arrays; of one namespace, or where that is empty of all.
nlohmann::json admissions_to_json(const AdmissionStatus& status, std::string_view subject = {});
nlohmann::json waiting_to_json(const AdmissionStatus& status, std::string_view subject = {});

// GET /v1/admissions/use: what it all comes to, by namespace and by device.
nlohmann::json use_to_json(const AdmissionStatus& status);

// For the clients of instances: who has a slot. Lives no longer than the status.
class SlotsByProcess {
 public:
  explicit SlotsByProcess(const AdmissionStatus& status);
  // The fields of that process's slot; null, each, where it has none or an adopted one.
  void add_to(nlohmann::json& client, const std::string& instance,
              const share::Process& process) const;

 private:
  using Key = std::tuple<std::string_view, pid_t, std::uint64_t>;
  std::map<Key, const share::Slot*> slots_;
  std::map<share::AdmissionId, const share::Admission*> admissions_;
};

}  // namespace mps::api
