#include "device_model.h"

#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <sstream>

namespace mps::sim {
namespace {

constexpr const char* k_default_devices = "GPU-00000000-0000-4000-8000-000000000000";

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, ',');) parts.push_back(part);
  return parts;
}

// A shorter one, as tests like to write it, is filled up with zeros.
std::optional<std::array<std::uint8_t, 16>> read_uuid(const std::string& text) {
  std::string digits;
  for (const char letter : text.substr(4)) {
    if (letter == '-') continue;
    if (std::isxdigit(static_cast<unsigned char>(letter)) == 0) return std::nullopt;
    digits += letter;
  }
  if (digits.empty() || digits.size() > 32) return std::nullopt;
  digits.resize(32, '0');
  std::array<std::uint8_t, 16> bytes{};
  for (std::size_t index = 0; index < bytes.size(); ++index) {
    const auto value = std::strtoul(digits.substr(index * 2, 2).c_str(), nullptr, 16);
    bytes[index] = static_cast<std::uint8_t>(value);
  }
  return bytes;
}

std::optional<Device> device_named(const std::string& uuid, const Steering& steering) {
  auto device = device_of_uuid(uuid);
  if (!device) return std::nullopt;
  device->name = steering.text("device_name", "Simulated GPU");
  device->multiprocessors = static_cast<unsigned>(steering.number("sm_count", 132));
  device->memory = static_cast<std::uint64_t>(steering.number("memory_mib", 144384)) << 20U;
  return device;
}

std::optional<std::string> uuid_of(const std::string& entry, const std::vector<std::string>& all) {
  if (!entry.empty() && entry.find_first_not_of("0123456789") == std::string::npos) {
    const std::size_t ordinal = std::strtoul(entry.c_str(), nullptr, 10);
    return ordinal < all.size() ? std::optional(all[ordinal]) : std::nullopt;
  }
  if (!entry.starts_with("GPU-") && !entry.starts_with("MIG-")) return std::nullopt;
  for (const std::string& uuid : all) {
    if (uuid.starts_with(entry)) return uuid;
  }
  return entry;
}

}  // namespace

std::optional<Device> device_of_uuid(const std::string& uuid) {
  if (!uuid.starts_with("GPU-") && !uuid.starts_with("MIG-")) return std::nullopt;
  const auto bytes = read_uuid(uuid);
  if (!bytes) return std::nullopt;
  Device device;
  device.uuid = *bytes;
  device.is_mig = uuid.starts_with("MIG-");
  return device;
}

std::string uuid_text(const Device& device) {
  std::string text = device.is_mig ? "MIG" : "GPU";
  for (std::size_t index = 0; index < device.uuid.size(); ++index) {
    std::array<char, 4> digits{};
    (void)std::snprintf(digits.data(), digits.size(), "%02x",
                        static_cast<unsigned>(device.uuid[index]));
    if (index == 0 || index == 4 || index == 6 || index == 8 || index == 10) text += '-';
    text += digits.data();
  }
  return text;
}

std::string uuid_words(const Device& device) {
  std::string text;
  for (std::size_t word = 0; word < 4; ++word) {
    std::uint32_t value = 0;
    std::memcpy(&value, device.uuid.data() + word * 4, sizeof value);
    std::array<char, 16> digits{};
    (void)std::snprintf(digits.data(), digits.size(), "0x%x", value);
    text += (word == 0 ? "" : "-") + std::string(digits.data());
  }
  return text;
}

std::vector<Device> visible_devices(const Steering& steering) {
  const auto all = split(steering.text("devices", k_default_devices));
  const std::string wanted = environment("CUDA_VISIBLE_DEVICES", "all");
  std::vector<Device> devices;
  for (const std::string& entry : wanted == "all" ? all : split(wanted)) {
    const auto uuid = uuid_of(entry, all);
    const auto device = uuid ? device_named(*uuid, steering) : std::nullopt;
    if (!device) break;
    devices.push_back(*device);
  }
  return devices;
}

}  // namespace mps::sim
