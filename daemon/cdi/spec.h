// A share as a device of the Container Device Interface: what docker and podman read to put it into
// a container (https://github.com/cncf-tags/container-device-interface, SPEC.md). Pure.
//
// Only what its version 0.3.0 has: podman 4.3 turns down a file with more, or of a higher version,
// and with it the device.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "share/records.h"

namespace mps::cdi {

inline constexpr std::string_view k_kind = "mps-supervisor.dev/share";

struct Spec {
  std::string name;                     // "s12"; of an open share its instance's: "gpu0.shared"
  std::filesystem::path folder;         // the share's, absolute
  std::optional<share::Grant> grant{};  // none: the policies say
  std::string visible_devices{};        // for CUDA_VISIBLE_DEVICES; empty: whatever it is
  bool operator==(const Spec&) const = default;
};

// Letters, digits and "_-.:", the first a letter and the last no sign: what 0.3.0 allows.
bool is_device_name(std::string_view name);
// "mps-supervisor.dev/share=s12"
std::string device_of(std::string_view name);
// "mps-supervisor.dev-share-s12.json"
std::string file_of(std::string_view name);
// The name in that; none: no file of ours.
std::optional<std::string> name_in(std::string_view file);
// "/run/mps-share/s12": where it is in the container.
std::string place_of(std::string_view name);

std::string encode(const Spec& spec);
// The share's folder, of a file as the above makes it; none: it is another's.
std::optional<std::filesystem::path> folder_in(std::string_view text);

}  // namespace mps::cdi
