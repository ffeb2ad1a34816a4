#include "identity/place.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "base/text.h"
#include "identity/path_parts.h"

namespace mps::identity {
namespace {

constexpr std::size_t k_id_size = 64;
constexpr std::size_t k_uid_size = 36;  // 8-4-4-4-12
constexpr std::size_t k_bare_uid_size = 32;
constexpr std::size_t k_unit_size = 255;

bool is_hex(char character) {
  return (character >= '0' && character <= '9') || (character >= 'a' && character <= 'f');
}

bool is_all_hex(std::string_view text) {
  return std::all_of(text.begin(), text.end(), is_hex);
}

bool is_container_id(std::string_view text) {
  return text.size() == k_id_size && is_all_hex(text);
}

bool drop_suffix(std::string_view& text, std::string_view suffix) {
  if (!text.ends_with(suffix)) return false;
  text.remove_suffix(suffix.size());
  return true;
}

// "…pod<uid>", at the end of the name; systemd's slices have "_" where the uid has "-".
std::optional<std::string> pod_uid_of(std::string_view name) {
  drop_suffix(name, ".slice");
  for (const auto size : {k_uid_size, k_bare_uid_size}) {
    if (name.size() < size + 3) continue;
    auto uid = std::string(name.substr(name.size() - size));
    const auto before = name.substr(0, name.size() - size);
    if (before != "pod" && !before.ends_with("-pod")) continue;
    std::replace(uid.begin(), uid.end(), '_', '-');
    if (size == k_bare_uid_size && is_all_hex(uid)) return uid;
    bool formed = size == k_uid_size;
    for (std::size_t at = 0; at < uid.size() && formed; ++at) {
      const bool dash = at == 8 || at == 13 || at == 18 || at == 23;
      formed = dash ? uid[at] == '-' : is_hex(uid[at]);
    }
    if (formed) return uid;
  }
  return std::nullopt;
}

struct Named {
  Runtime runtime = Runtime::unknown;
  std::string_view id;
};

Runtime runtime_of(std::string_view prefix, std::string_view parent) {
  if (prefix == "cri-containerd" || prefix == "nerdctl") return Runtime::containerd;
  if (prefix == "crio") return Runtime::crio;
  if (prefix == "docker") return Runtime::docker;
  if (prefix == "libpod" || prefix == "libpod-payload") return Runtime::podman;
  if (!prefix.empty()) return Runtime::unknown;
  if (parent == "docker") return Runtime::docker;
  return pod_uid_of(parent) ? Runtime::containerd : Runtime::unknown;
}

// "<id>", "<prefix>-<id>", each with ".scope" or without.
std::optional<Named> container_of(std::string_view name, std::string_view parent) {
  drop_suffix(name, ".scope");
  if (name.size() < k_id_size) return std::nullopt;
  const auto id = name.substr(name.size() - k_id_size);
  auto prefix = name.substr(0, name.size() - k_id_size);
  if (!is_container_id(id)) return std::nullopt;
  if (!prefix.empty() && !drop_suffix(prefix, "-")) return std::nullopt;
  return Named{runtime_of(prefix, parent), id};
}

// systemd puts "_" before names that would be confused with the kernel's own files.
std::optional<std::string> unit_of(std::string_view name) {
  constexpr std::array<std::string_view, 5> k_kinds{".service", ".scope", ".socket", ".mount",
                                                    ".swap"};
  if (name.starts_with('_')) name.remove_prefix(1);
  const auto is_of = [&](std::string_view kind) {
    return name.ends_with(kind) && name.size() > kind.size();
  };
  const auto is_fine = [](char character) {
    return (character >= 'a' && character <= 'z') || (character >= 'A' && character <= 'Z') ||
           (character >= '0' && character <= '9') ||
           std::string_view(":-_.\\@").find(character) != std::string_view::npos;
  };
  if (name.size() > k_unit_size || std::none_of(k_kinds.begin(), k_kinds.end(), is_of) ||
      !std::all_of(name.begin(), name.end(), is_fine)) {
    return std::nullopt;
  }
  return std::string(name);
}

std::optional<uid_t> user_of(std::string_view name) {
  constexpr std::string_view k_prefix = "user-";
  if (!name.starts_with(k_prefix) || !drop_suffix(name, ".slice")) return std::nullopt;
  const auto digits = name.substr(k_prefix.size());
  if (digits.size() > 1 && digits.starts_with('0')) return std::nullopt;
  return parse_number<uid_t>(digits);
}

// Runtimes that put containers below themselves: with the cgroupfs driver and a parent that the
// kubelet names as systemd would.
bool is_runtime_unit(std::string_view unit) {
  constexpr std::array<std::string_view, 9> k_units{
      "containerd.service", "crio.service",        "docker.service",
      "k3s.service",        "k3s-agent.service",   "kubelet.service",
      "rke2-agent.service", "rke2-server.service", "k0scontroller.service"};
  return std::find(k_units.begin(), k_units.end(), unit) != k_units.end();
}

// What is below these and says no more must not pass for a user's own.
bool is_containers(std::string_view name) {
  drop_suffix(name, ".slice");
  return name == "docker" || name == "libpod_parent" || name == "lxc" || name == "buildkit" ||
         name.starts_with("lxc.payload") || name == "kubepods" || name.starts_with("kubepods-") ||
         name.ends_with("-kubepods") || name.find("-kubepods-") != std::string_view::npos;
}

class Scan {
 public:
  explicit Scan(std::string_view path) : path_(path), parts_(components(path)) {}

  Place run() {
    for (std::size_t at = 0; at < parts_.size(); ++at) {
      if (auto place = look_at(at)) return std::move(*place);
    }
    if (runtime_unit_) return *runtime_unit_;
    if (containers_) return ContainerPlace{.cgroup = std::string(path_)};
    return NoPlace{};
  }

 private:
  std::optional<Place> look_at(std::size_t at) {
    const auto name = parts_[at].name;
    if (auto place = literal_slice(at)) return place;
    if (auto uid = pod_uid_of(name)) return in_pod(at, std::move(*uid));
    if (!is_podmans_pod(at)) {
      if (const auto named = container_of(name, parent(at))) return container(at, *named, {});
    }
    containers_ = containers_ || is_containers(name);
    if (runtime_unit_) return std::nullopt;
    if (const auto uid = user_of(name)) return session(at, *uid);
    if (auto unit = unit_of(name)) return in_unit(at, std::move(*unit));
    return std::nullopt;
  }

  [[nodiscard]] std::string_view parent(std::size_t at) const {
    return at == 0 ? std::string_view{} : parts_[at - 1].name;
  }
  [[nodiscard]] std::string up_to(std::size_t at) const {
    return std::string(path_.substr(0, parts_[at].end));
  }

  [[nodiscard]] ContainerPlace container(std::size_t at, const Named& named,
                                         std::string uid) const {
    return {.runtime = named.runtime,
            .container_id = std::string(named.id),
            .pod_uid = std::move(uid),
            .cgroup = up_to(at),
            .in_runtime_unit = runtime_unit_.has_value()};
  }

  [[nodiscard]] Place in_pod(std::size_t at, std::string uid) const {
    if (at + 1 < parts_.size()) {
      if (const auto named = container_of(parts_[at + 1].name, parts_[at].name)) {
        return container(at + 1, *named, std::move(uid));
      }
    }
    return ContainerPlace{.pod_uid = std::move(uid),
                          .cgroup = up_to(at),
                          .in_runtime_unit = runtime_unit_.has_value()};
  }

  // "<slice>:<prefix>:<id>", which the cgroupfs driver takes for a name when systemd's was meant.
  [[nodiscard]] std::optional<Place> literal_slice(std::size_t at) const {
    const auto name = parts_[at].name;
    const auto first = name.find(':');
    const auto last = name.rfind(':');
    if (first == last || !is_container_id(name.substr(last + 1))) return std::nullopt;
    const auto prefix = name.substr(first + 1, last - first - 1);
    return container(at, {runtime_of(prefix, {}), name.substr(last + 1)},
                     pod_uid_of(name.substr(0, first)).value_or(""));
  }

  // Podman's pods are cgroups with a bare id, around their containers'.
  [[nodiscard]] bool is_podmans_pod(std::size_t at) const {
    return parent(at) == "libpod_parent" && at + 1 < parts_.size() &&
           parts_[at + 1].name.starts_with("libpod-");
  }

  [[nodiscard]] Place session(std::size_t at, uid_t uid) const {
    SessionPlace place{.uid = uid, .unit = {}, .app = {}, .cgroup = up_to(at)};
    if (at + 1 == parts_.size()) return place;
    const auto unit = unit_of(parts_[at + 1].name);
    if (!unit) return place;
    place.unit = *unit;
    place.cgroup = up_to(at + 1);
    for (auto below = at + 2; below < parts_.size() && place.app.empty(); ++below) {
      place.app = unit_of(parts_[below].name).value_or("");
    }
    return place;
  }

  std::optional<Place> in_unit(std::size_t at, std::string unit) {
    UnitPlace place{.unit = std::move(unit), .cgroup = up_to(at)};
    if (!is_runtime_unit(place.unit)) return place;
    runtime_unit_ = std::move(place);
    return std::nullopt;
  }

  std::string_view path_;
  std::vector<Component> parts_;
  std::optional<UnitPlace> runtime_unit_;
  bool containers_ = false;
};

}  // namespace

const char* to_string(Runtime runtime) {
  switch (runtime) {
    case Runtime::unknown:
      return "unknown";
    case Runtime::containerd:
      return "containerd";
    case Runtime::crio:
      return "crio";
    case Runtime::docker:
      return "docker";
    case Runtime::podman:
      return "podman";
  }
  return "unknown";
}

Place place_of(std::string_view path) {
  return Scan(path).run();
}

}  // namespace mps::identity
