#include "identity/overrides.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "base/text.h"
#include "identity/trusted_file.h"

namespace mps::identity {
namespace {

using nlohmann::json;

Result<Labels> read_labels(const json& value) {
  Labels labels;
  if (!value.is_object()) return Error{"labels: must be an object"};
  for (const auto& [key, label] : value.items()) {
    if (!label.is_string()) return Error{"labels." + printable(key) + ": must be text"};
    labels.emplace(key, label.get<std::string>());
  }
  return labels;
}

Result<void> read_field(Record& record, const std::string& key, const json& value) {
  if (key == "labels") {
    auto labels = read_labels(value);
    if (!labels) return labels.error();
    record.labels = std::move(*labels);
    return {};
  }
  if (!value.is_string()) return Error{printable(key) + ": must be text"};
  auto text = value.get<std::string>();
  if (key == "namespace") {
    record.pod_namespace = std::move(text);
  } else if (key == "pod") {
    record.pod = std::move(text);
  } else if (key == "container") {
    record.container = std::move(text);
  } else if (key == "owner") {
    record.owner = std::move(text);
  } else {
    return Error{printable(key) + ": unknown field"};
  }
  return {};
}

Result<Record> read_entry(const json& entry) {
  Record record;
  if (!entry.is_object()) return Error{"must be an object"};
  for (const auto& [key, value] : entry.items()) {
    if (auto read = read_field(record, key, value); !read) return read.error();
  }
  if (record.pod_namespace.empty()) return Error{"namespace: is missing"};
  return record;
}

}  // namespace

Result<std::optional<Record>> parse_overrides(std::string_view text,
                                              const std::string& container_id,
                                              const std::string& pod_uid) {
  const auto document = parse_json(text);
  if (!document) return document.error();
  if (!document->is_object()) return Error{"is not a JSON object"};
  for (const auto& key : {container_id, pod_uid}) {
    const auto entry = key.empty() ? document->end() : document->find(key);
    if (entry == document->end()) continue;
    auto record = read_entry(*entry);
    if (!record) return Error{key + ": " + record.error().message};
    record->container_id = container_id;
    record->pod_uid = pod_uid;
    return std::optional<Record>(std::move(*record));
  }
  return std::optional<Record>();
}

Result<std::optional<Record>> find_override(const std::filesystem::path& file, uid_t owner,
                                            const std::string& container_id,
                                            const std::string& pod_uid) {
  if (file.empty()) return std::optional<Record>();
  const auto text = read_trusted(file, k_record_limit, owner);
  if (!text) return text.error();
  if (!*text) return std::optional<Record>();
  auto record = parse_overrides(**text, container_id, pod_uid);
  if (!record) return Error{file.string() + " " + record.error().message};
  if (*record) (*record)->file = file;
  return record;
}

}  // namespace mps::identity
