#include "api/shares.h"

#include <array>
#include <cmath>
#include <limits>

#include "api/explain.h"
#include "base/text.h"

namespace mps::api {

namespace {

using nlohmann::json;
using std::chrono::system_clock;

constexpr std::uint64_t k_mebibyte = 1024 * std::uint64_t{1024};
constexpr std::chrono::seconds k_shortest{1};
constexpr std::chrono::hours k_longest{24 * 366};
constexpr std::array<std::string_view, 5> k_fields{"device", "activeThreadPercentage",
                                                   "pinnedDeviceMemory", "namespace", "ttl"};

Error bad(std::string_view field, std::string_view reason, const json& value) {
  return {std::string(field) + ": " + std::string(reason) + ": " + printable(value.dump(), 64)};
}

Result<void> read_device(const json& value, ShareOrder& order) {
  if (value.is_number_unsigned()) {
    order.device = std::to_string(value.get<std::uint64_t>());
  } else if (value.is_string() && !value.get<std::string>().empty()) {
    order.device = value.get<std::string>();
  } else {
    return bad("device", "must be an index, a name or a UUID", value);
  }
  return {};
}

Result<void> read_percentage(const json& value, ShareOrder& order) {
  const auto number = value.is_number() ? value.get<double>() : 0.0;
  if (!(number > 0 && number <= 100)) {
    return bad("activeThreadPercentage", "must be above 0 and at most 100", value);
  }
  // MPS takes one decimal.
  order.grant.active_thread_percentage = std::max(0.1, std::floor(number * 10 + 1e-6) / 10);
  return {};
}

Result<void> read_memory(const json& value, ShareOrder& order) {
  const auto bytes =
      value.is_string() ? parse_quantity(value.get<std::string>()) : std::optional<std::uint64_t>();
  if (!bytes) return bad("pinnedDeviceMemory", "must be a quantity such as 10Gi", value);
  if (*bytes < k_mebibyte) return bad("pinnedDeviceMemory", "must be at least 1Mi", value);
  order.grant.pinned_memory_mebibytes = *bytes / k_mebibyte;
  return {};
}

Result<void> read_namespace(const json& value, ShareOrder& order) {
  const auto subject = value.is_string() ? parse_subject(value.get<std::string>())
                                         : Result<std::string>(Error{"must be text"});
  if (!subject) return Error{"namespace: " + subject.error().message};
  if (subject->find('*') != std::string::npos) {
    return bad("namespace", "must be one; without it the share is for whoever has it mounted",
               value);
  }
  order.subject = *subject;
  return {};
}

Result<void> read_ttl(const json& value, ShareOrder& order) {
  order.ttl = value.is_string() ? parse_duration(value.get<std::string>())
                                : std::optional<std::chrono::milliseconds>();
  if (!order.ttl) return bad("ttl", "must be a duration such as 90m or 8h", value);
  if (*order.ttl < k_shortest || *order.ttl > k_longest) {
    return bad("ttl", "must be 1s at least and 8784h at most", value);
  }
  return {};
}

json time_of(const std::optional<std::int64_t>& unix_milliseconds) {
  if (!unix_milliseconds) return nullptr;
  return format_time(system_clock::time_point(std::chrono::milliseconds(*unix_milliseconds)));
}

}  // namespace

Result<ShareOrder> order_from(const std::string& body) {
  using Reader = Result<void> (*)(const json&, ShareOrder&);
  constexpr std::array<Reader, k_fields.size()> readers{read_device, read_percentage, read_memory,
                                                        read_namespace, read_ttl};
  const auto value = json::parse(body, nullptr, false);
  if (!value.is_object()) return Error{"the body must be a JSON object"};
  ShareOrder order;
  for (const auto& [key, field] : value.items()) {
    const auto known = std::find(k_fields.begin(), k_fields.end(), key);
    if (known == k_fields.end()) {
      const auto near = did_you_mean(key, k_fields);
      return Error{"unknown field \"" + printable(key, 64) + "\" in the body" +
                   (near ? "; did you mean \"" + std::string(*near) + "\"?" : "")};
    }
    const auto reader = readers.at(static_cast<std::size_t>(known - k_fields.begin()));
    if (auto read = reader(field, order); !read) return read.error();
  }
  if (order.device.empty()) return Error{"device: is missing"};
  return order;
}

json to_json(const ShareView& view) {
  const auto& share = view.share;
  const auto& memory = share.grant.pinned_memory_mebibytes;
  json limits{{"activeThreadPercentage", share.grant.active_thread_percentage},
              {"pinnedDeviceMemoryMiB", memory ? json(*memory) : json(nullptr)}};
  return {{"id", share.id},
          {"instance", share.instance},
          {"device", view.device},
          {"namespace", share.subject.empty() ? json(nullptr) : json(share.subject)},
          {"limits", view.is_open_share ? json(nullptr) : std::move(limits)},
          {"state", share.closing ? "closing" : "open"},
          {"clients", view.clients},
          {"createdAt", view.is_open_share ? json(nullptr) : time_of(share.made_at)},
          {"expiresAt", time_of(share.expires_at)},
          {"directory", view.directory},
          {"pipeDirectory", view.directory + "/pipe"},
          {"cdiDevice", view.cdi_device.empty() ? json(nullptr) : json(view.cdi_device)},
          {"noCdiDevice", view.cdi_device.empty() ? json(view.no_cdi_because) : json(nullptr)}};
}

}  // namespace mps::api
