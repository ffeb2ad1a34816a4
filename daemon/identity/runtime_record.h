// What a container's runtime itself wrote down about it: the OCI config.json, and for Docker and
// Podman the name. It is this that makes a cgroup's name count.
//
// Tenants reach some of what is in there (CRI-O copies all of a pod's annotations, Docker and
// Podman take any): only what the runtime or the kubelet sets last is believed, by where the
// record lies. Threading: stateless, any thread; it blocks on files, each with a limit.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "identity/cgroup.h"
#include "identity/place.h"

namespace mps::identity {

using Labels = std::map<std::string, std::string>;

inline constexpr std::size_t k_record_limit = std::size_t{1024} * 1024;

struct Record {
  Runtime runtime = Runtime::unknown;
  std::string container_id{};
  std::string cgroups_path{};  // linux.cgroupsPath
  std::string pod_namespace{};
  std::string pod{};
  std::string pod_uid{};
  std::string container{};             // its name in the pod
  std::string name{};                  // Docker's, Podman's or nerdctl's
  std::optional<Labels> labels{};      // the pod's; none: not recorded, as with containerd
  std::optional<std::string> owner{};  // what made the pod
  std::string sandbox_id{};            // CRI-O's, whose record has the pod's labels
  std::filesystem::path file{};        // where it is from
};

// Where records are. Folders are relative to `root`.
struct RecordPlaces {
  std::filesystem::path root = "/";  // the node's: "/host", "/proc/1/root"
  // Tasks of containerd: <folder>/<containerd's namespace>/<id>/config.json.
  std::vector<std::string> containerd{
      "run/containerd/io.containerd.runtime.v2.task",
      "run/k3s/containerd/io.containerd.runtime.v2.task",
      "run/k0s/containerd/io.containerd.runtime.v2.task",
      "run/docker/containerd/daemon/io.containerd.runtime.v2.task",
      "var/snap/microk8s/common/run/containerd/io.containerd.runtime.v2.task"};
  // CRI-O and Podman: <folder>/<id>/userdata/config.json.
  std::vector<std::string> storage{"run/containers/storage/overlay-containers",
                                   "var/lib/containers/storage/overlay-containers"};
  // Podman's names: <folder>/containers.json.
  std::vector<std::string> storage_names{"var/lib/containers/storage/overlay-containers"};
  // Docker's names: <folder>/<id>/config.v2.json.
  std::vector<std::string> docker{"var/lib/docker/containers"};
  uid_t owner = 0;  // who must own them; another than root only for tests
};

// The first that is found. An Error: there is one that is not believed, or that says nothing
// useful. `id`: 64 hex digits.
Result<std::optional<Record>> find_record(const RecordPlaces& places, const std::string& id);

// The cgroup that a linux.cgroupsPath names: "/kubepods/pod…/…" as it is, systemd's
// "a-b.slice:docker:<id>" as "/a.slice/a-b.slice/docker-<id>.scope". None where it names none.
std::optional<std::string> cgroup_named_by(std::string_view cgroups_path);

// Whether the record is of the container in this cgroup, which is the container's own
// (ContainerPlace::cgroup).
bool confirms(const Record& record, const CgroupPath& cgroup, bool in_runtime_unit = false);

}  // namespace mps::identity
