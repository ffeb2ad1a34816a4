#include "identity/record_text.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "base/text.h"
#include "identity/trusted_file.h"

namespace mps::identity {
namespace {

using nlohmann::json;

constexpr std::size_t k_label_count = 1024;

const json* member(const json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() ? nullptr : &*found;
}

std::string text_of(const json* object, const char* key) {
  const auto* value = object == nullptr ? nullptr : member(*object, key);
  const auto* text = value == nullptr ? nullptr : value->get_ptr<const std::string*>();
  return text == nullptr ? std::string() : *text;
}

std::optional<Labels> labels_of(const json& object) {
  if (!object.is_object() || object.size() > k_label_count) return std::nullopt;
  Labels labels;
  for (const auto& [key, value] : object.items()) {
    const auto* text = value.get_ptr<const std::string*>();
    if (text == nullptr) return std::nullopt;
    if (key.starts_with("io.kubernetes.pod.") || key.starts_with("io.kubernetes.container.")) {
      continue;
    }
    labels.emplace(key, *text);
  }
  return labels;
}

Result<json> parse_object(std::string_view text) {
  auto document = parse_json(text);
  if (document && !document->is_object()) return Error{"is not a JSON object"};
  return document;
}

// containerd sets these after all that a pod may pass on to it.
void add_cri(Record& record, const json* annotations) {
  const auto type = text_of(annotations, "io.kubernetes.cri.container-type");
  record.pod_namespace = text_of(annotations, "io.kubernetes.cri.sandbox-namespace");
  record.pod = text_of(annotations, "io.kubernetes.cri.sandbox-name");
  record.pod_uid = text_of(annotations, "io.kubernetes.cri.sandbox-uid");
  record.container = text_of(annotations, "io.kubernetes.cri.container-name");
  if (record.container.empty() && type == "sandbox") record.container = "POD";
  record.sandbox_id = text_of(annotations, "io.kubernetes.cri.sandbox-id");
}

// CRI-O sets these after the pod's own annotations, which are all there too.
void add_crio(Record& record, const json* annotations) {
  record.runtime = Runtime::crio;
  record.pod_namespace = text_of(annotations, "io.kubernetes.pod.namespace");
  record.pod = text_of(annotations, "io.kubernetes.pod.name");
  record.pod_uid = text_of(annotations, "io.kubernetes.pod.uid");
  record.container = text_of(annotations, "io.kubernetes.container.name");
  record.sandbox_id = text_of(annotations, "io.kubernetes.cri-o.SandboxID");
}

}  // namespace

Result<Record> parse_oci_config(std::string_view text, Writer writer) {
  const auto document = parse_object(text);
  if (!document) return document.error();
  Record record;
  record.cgroups_path = text_of(member(*document, "linux"), "cgroupsPath");
  const auto* annotations = member(*document, "annotations");
  if (writer != Writer::storage) record.runtime = Runtime::containerd;
  if (writer == Writer::cri) add_cri(record, annotations);
  if (writer == Writer::containerd) record.name = text_of(annotations, "nerdctl/name");
  if (writer == Writer::storage) {
    record.runtime = Runtime::podman;
    if (text_of(annotations, "io.container.manager") == "cri-o") add_crio(record, annotations);
  }
  return record;
}

std::optional<Labels> parse_sandbox_labels(std::string_view text) {
  const auto document = parse_object(text);
  if (!document) return std::nullopt;
  const auto inner = text_of(member(*document, "annotations"), "io.kubernetes.cri-o.Labels");
  const auto labels = parse_object(inner);
  return labels ? labels_of(*labels) : std::nullopt;
}

Result<void> add_docker_config(Record& record, std::string_view text) {
  const auto document = parse_object(text);
  if (!document) return document.error();
  record.runtime = Runtime::docker;
  record.name = text_of(&*document, "Name");
  if (record.name.starts_with('/')) record.name.erase(0, 1);
  const auto* config = member(*document, "Config");
  const auto* labels = config == nullptr ? nullptr : member(*config, "Labels");
  record.pod_namespace = text_of(labels, "io.kubernetes.pod.namespace");
  record.pod = text_of(labels, "io.kubernetes.pod.name");
  record.pod_uid = text_of(labels, "io.kubernetes.pod.uid");
  record.container = text_of(labels, "io.kubernetes.container.name");
  return {};
}

Result<std::optional<std::string>> parse_storage_name(std::string_view text, std::string_view id) {
  const auto document = parse_json(text);
  if (!document) return document.error();
  if (!document->is_array()) return Error{"is not a JSON array"};
  for (const auto& entry : *document) {
    if (text_of(&entry, "id") != id) continue;
    const auto* names = member(entry, "names");
    if (names == nullptr || !names->is_array() || names->empty()) break;
    const auto* name = names->front().get_ptr<const std::string*>();
    if (name != nullptr) return std::optional<std::string>(*name);
  }
  return std::optional<std::string>();
}

}  // namespace mps::identity
