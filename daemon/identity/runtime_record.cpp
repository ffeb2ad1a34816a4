#include "identity/runtime_record.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "identity/record_text.h"
#include "identity/trusted_file.h"

namespace mps::identity {
namespace {

namespace fs = std::filesystem;
using MaybeRecord = Result<std::optional<Record>>;

constexpr std::size_t k_names_limit = 8 * k_record_limit;  // all containers of the node
constexpr std::size_t k_namespaces = 64;
constexpr std::string_view k_kubernetes = "k8s.io";

// Kubernetes' own first, the others by name.
std::vector<std::string> namespaces_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  fs::directory_iterator entry(folder, error);
  while (!error && entry != fs::directory_iterator{} && names.size() < k_namespaces) {
    names.push_back(entry->path().filename().string());
    entry.increment(error);
  }
  std::sort(names.begin(), names.end());
  const auto own = std::find(names.begin(), names.end(), k_kubernetes);
  if (own != names.end()) std::rotate(names.begin(), own, own + 1);
  return names;
}

MaybeRecord read_config(const RecordPlaces& places, const fs::path& file, const std::string& id,
                        Writer writer) {
  const auto text = read_trusted(file, k_record_limit, places.owner);
  if (!text) return text.error();
  if (!*text) return std::optional<Record>();
  auto record = parse_oci_config(**text, writer);
  if (!record) return Error{file.string() + " " + record.error().message};
  record->container_id = id;
  record->file = file;
  return std::optional<Record>(std::move(*record));
}

// Docker's containers are containerd's too; only Docker knows the name.
Result<void> add_docker(const RecordPlaces& places, Record& record) {
  for (const auto& folder : places.docker) {
    const auto file = places.root / folder / record.container_id / "config.v2.json";
    const auto text = read_trusted(file, k_record_limit, places.owner);
    if (!text) return text.error();
    if (!*text) continue;
    const auto added = add_docker_config(record, **text);
    if (!added) return Error{file.string() + " " + added.error().message};
    return {};
  }
  return {};
}

MaybeRecord find_in_containerd(const RecordPlaces& places, const std::string& id) {
  for (const auto& folder : places.containerd) {
    const auto tasks = places.root / folder;
    for (const auto& name : namespaces_in(tasks)) {
      const auto writer = name == k_kubernetes ? Writer::cri : Writer::containerd;
      auto record = read_config(places, tasks / name / id / "config.json", id, writer);
      if (!record) return record;
      if (!*record) continue;
      if (writer == Writer::containerd) {
        if (const auto added = add_docker(places, **record); !added) return added.error();
      }
      return record;
    }
  }
  return std::optional<Record>();
}

Result<void> add_podman_name(const RecordPlaces& places, Record& record) {
  for (const auto& folder : places.storage_names) {
    const auto file = places.root / folder / "containers.json";
    const auto text = read_trusted(file, k_names_limit, places.owner);
    if (!text) return text.error();
    if (!*text) continue;
    auto name = parse_storage_name(**text, record.container_id);
    if (!name) return Error{file.string() + " " + name.error().message};
    if (!*name) continue;
    record.name = std::move(**name);
    return {};
  }
  return {};
}

// A container's own record has only the kubelet's labels: the pod's are in its sandbox's.
void add_crio_labels(const RecordPlaces& places, const std::string& folder, Record& record) {
  const auto& id = record.sandbox_id;
  // It names a file: nothing but an id may.
  if (id.size() != 64 || id.find_first_not_of("0123456789abcdef") != std::string::npos) return;
  const auto file = places.root / folder / id / "userdata/config.json";
  const auto text = read_trusted(file, k_record_limit, places.owner);
  if (text && *text) record.labels = parse_sandbox_labels(**text);
}

MaybeRecord find_in_storage(const RecordPlaces& places, const std::string& id) {
  for (const auto& folder : places.storage) {
    const auto file = places.root / folder / id / "userdata/config.json";
    auto record = read_config(places, file, id, Writer::storage);
    if (!record) return record;
    if (!*record) continue;
    if ((*record)->runtime == Runtime::crio) add_crio_labels(places, folder, **record);
    if ((*record)->runtime == Runtime::podman) {
      if (const auto added = add_podman_name(places, **record); !added) return added.error();
    }
    return record;
  }
  return std::optional<Record>();
}

}  // namespace

MaybeRecord find_record(const RecordPlaces& places, const std::string& id) {
  auto record = find_in_containerd(places, id);
  if (!record || *record) return record;
  return find_in_storage(places, id);
}

}  // namespace mps::identity
