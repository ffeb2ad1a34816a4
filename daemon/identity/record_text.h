// The texts that runtimes write about a container -> a Record. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "identity/runtime_record.h"

namespace mps::identity {

// Who wrote a config.json, which says which of its annotations tenants could not have made up.
enum class Writer {
  cri,         // containerd for Kubernetes: its namespace "k8s.io"
  containerd,  // containerd for anybody else: Docker, nerdctl
  storage,     // CRI-O or Podman
};

Result<Record> parse_oci_config(std::string_view text, Writer writer);

// The labels in the record of a CRI-O sandbox, less those that the kubelet adds itself.
std::optional<Labels> parse_sandbox_labels(std::string_view text);

// Docker's config.v2.json: the name, and what cri-dockerd keeps in labels.
Result<void> add_docker_config(Record& record, std::string_view text);

// containers.json: the name of container `id`; none where it is not there.
Result<std::optional<std::string>> parse_storage_name(std::string_view text, std::string_view id);

}  // namespace mps::identity
