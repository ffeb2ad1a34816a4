#include "device/compute_mode_ledger.h"

#include <nlohmann/json.hpp>

#include "base/file.h"

namespace mps::device {

namespace {

constexpr std::size_t k_max_size = 1024UL * 1024;

Error damaged(const std::filesystem::path& file, const std::string& reason) {
  return {file.string() + ": " + reason +
          "; it says which compute modes to put back: mend it, or remove it to leave them as they "
          "are"};
}

}  // namespace

Result<ComputeModeLedger> ComputeModeLedger::open(const std::filesystem::path& file) {
  ComputeModeLedger ledger;
  ledger.file_ = file;
  const auto text = read_file(file, k_max_size);
  if (!text) return text.error();
  if (text->empty()) return ledger;
  const auto json = nlohmann::json::parse(*text, nullptr, false);
  if (!json.is_object()) return damaged(file, "is no JSON object");
  for (const auto& [uuid, value] : json.items()) {
    const auto mode =
        value.is_string() ? parse_compute_mode(value.get<std::string>()) : std::nullopt;
    if (!mode) return damaged(file, "no compute mode: " + value.dump());
    ledger.original_[uuid] = *mode;
  }
  return ledger;
}

Result<void> ComputeModeLedger::remember(const std::string& uuid, ComputeMode before) {
  if (!original_.emplace(uuid, before).second) return {};
  auto saved = save();
  if (!saved) original_.erase(uuid);
  return saved;
}

Result<void> ComputeModeLedger::forget(const std::string& uuid) {
  const auto entry = original_.extract(uuid);
  if (entry.empty()) return {};
  auto saved = save();
  if (!saved) original_.emplace(entry.key(), entry.mapped());
  return saved;
}

Result<void> ComputeModeLedger::save() const {
  auto json = nlohmann::json::object();
  for (const auto& [uuid, mode] : original_) json[uuid] = to_string(mode);
  return replace_file(file_, json.dump(2) + "\n");
}

}  // namespace mps::device
