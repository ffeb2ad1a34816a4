#include "api/metrics.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <string_view>

namespace mps::api {

namespace {

using instance::ChannelState;
using instance::GateState;
using instance::Snapshot;
using instance::State;

constexpr std::array k_states{State::stopped,    State::starting, State::ready,  State::faulted,
                              State::recovering, State::backoff,  State::failed, State::draining};
constexpr std::array k_gates{GateState::standing, GateState::direct, GateState::down};
constexpr std::array k_channels{ChannelState::ok, ChannelState::busy, ChannelState::blocked,
                                ChannelState::unanswered};

std::string escaped(std::string_view value) {
  std::string out;
  for (const char character : value) {
    if (character == '\n') {
      out += "\\n";
      continue;
    }
    if (character == '\\' || character == '"') out.push_back('\\');
    out.push_back(character);
  }
  return out;
}

std::string number(std::uint64_t value) {
  return std::to_string(value);
}

std::string number(double value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.10g", value);
  return text.data();
}

class Exposition {
 public:
  void family(std::string_view name, std::string_view type, std::string_view help) {
    name_ = "mps_supervisor_" + std::string(name);
    text_ += "# HELP " + name_ + " " + std::string(help) + "\n";
    text_ += "# TYPE " + name_ + " " + std::string(type) + "\n";
  }
  template <typename Value>
  void sample(const std::string& labels, Value value) {
    sample_of("", labels, value);
  }
  // Of a histogram: one of its samples.
  template <typename Value>
  void sample_of(std::string_view suffix, const std::string& labels, Value value) {
    text_ += name_ + std::string(suffix) + (labels.empty() ? "" : "{" + labels + "}") + " " +
             number(value) + "\n";
  }
  std::string take() { return std::move(text_); }

 private:
  std::string name_;
  std::string text_;
};

std::string label(std::string_view name, std::string_view value) {
  return std::string(name) + "=\"" + escaped(value) + "\"";
}

std::string labels_of(const Snapshot& instance) {
  return label("device", instance.device) + "," + label("domain", instance.domain);
}

// One sample per instance and value of an enumeration: 1 for the value that holds.
template <typename Enumeration, std::size_t N>
void one_hot(Exposition& out, const std::vector<Snapshot>& instances, std::string_view name,
             const std::array<Enumeration, N>& values, Enumeration (*value_of)(const Snapshot&)) {
  for (const auto& instance : instances) {
    for (const auto value : values) {
      out.sample(labels_of(instance) + "," + label(name, instance::to_string(value)),
                 std::uint64_t{value == value_of(instance) ? 1U : 0U});
    }
  }
}

void per_instance(Exposition& out, const std::vector<Snapshot>& instances,
                  std::uint64_t (*value_of)(const Snapshot&)) {
  for (const auto& instance : instances) out.sample(labels_of(instance), value_of(instance));
}

void instance_limits(Exposition& out, const std::vector<Snapshot>& instances) {
  out.family("instance_thread_limit_percent", "gauge",
             "What each client may have of the SMs; absent where there is no limit.");
  for (const auto& instance : instances) {
    const auto percentage = instance.limits.active_thread_percentage;
    if (percentage < 100.0) out.sample(labels_of(instance), percentage);
  }
  out.family("instance_memory_limit_bytes", "gauge",
             "What each client may have of the memory; absent where there is no limit.");
  for (const auto& instance : instances) {
    const auto& mebibytes = instance.limits.pinned_memory_mebibytes;
    if (mebibytes) out.sample(labels_of(instance), *mebibytes * 1024 * 1024);
  }
  out.family("instance_limits_confirmed", "gauge",
             "1 if the limits were read back since the daemon's start.");
  per_instance(out, instances, [](const Snapshot& instance) -> std::uint64_t {
    return instance.limits_confirmed ? 1 : 0;
  });
}

void of_policies(Exposition& out, const PolicyStatus& policies) {
  const auto& generation = *policies.generation;
  const auto changed =
      std::chrono::duration_cast<std::chrono::seconds>(policies.changed_at.time_since_epoch());
  out.family("policy_generation", "gauge", "The number of the policies in force.");
  out.sample("", std::uint64_t{generation.number});
  out.family("policy_info", "gauge", "The hash of the policies in force; always 1.");
  out.sample(label("hash", generation.hash), std::uint64_t{1});
  out.family("policy_files", "gauge", "Files in the policy directory.");
  out.sample("", std::uint64_t{generation.files.size()});
  out.family("policy_bad_files", "gauge", "Of these, files with errors.");
  out.sample("", std::uint64_t{generation.bad_files()});
  out.family("policy_directory_readable", "gauge", "1 if the policy directory could be read.");
  out.sample("", std::uint64_t{policies.error.empty() ? 1U : 0U});
  out.family("policy_changed_timestamp_seconds", "gauge",
             "When the policies in force came into force.");
  out.sample("", static_cast<std::uint64_t>(std::max<std::int64_t>(0, changed.count())));
}

std::string labels_of(const PlaceUse& place) {
  return label("device", place.device) + "," + label("domain", place.domain) + "," +
         label("namespace", place.subject);
}

std::string labels_of(const NamespaceUse& use) {
  return label("device", use.device) + "," + label("namespace", use.subject);
}

void per_place(Exposition& out, const std::vector<PlaceUse>& places,
               std::uint64_t (*value_of)(const PlaceUse&)) {
  for (const auto& place : places) out.sample(labels_of(place), value_of(place));
}

void of_refusals(Exposition& out, const std::map<share::Code, std::uint64_t>& refused) {
  out.family("refused_total", "counter", "Requests to come in that were refused.");
  for (auto number = 0; number <= static_cast<int>(share::Code::too_many_waiting); ++number) {
    const auto code = static_cast<share::Code>(number);
    const auto found = refused.find(code);
    out.sample(label("code", share::to_string(code)),
               found == refused.end() ? std::uint64_t{0} : found->second);
  }
}

void of_admissions(Exposition& out, const AdmissionStatus& status) {
  if (!status.gated) return;
  out.family("admissions", "gauge", "Containers that may have clients.");
  per_place(out, status.places,
            [](const PlaceUse& place) -> std::uint64_t { return place.admissions; });
  out.family("admitted_clients", "gauge", "Processes that were let in and have not ended.");
  per_place(out, status.places, [](const PlaceUse& place) { return place.clients; });
  out.family("waiting_clients", "gauge", "Processes that wait to be let in.");
  per_place(out, status.places,
            [](const PlaceUse& place) -> std::uint64_t { return place.waiting; });
  out.family("adopted_clients", "gauge",
             "Clients that nothing explains, of an earlier supervisor.");
  for (const auto& device : status.devices) {
    out.sample(label("device", device.device), device.adopted);
  }
  out.family("granted_thread_percent", "gauge",
             "The sum of what clients may have of the SMs; one without a limit counts as 100.");
  for (const auto& use : status.namespaces) {
    out.sample(labels_of(use), use.use.active_thread_percentage);
  }
  out.family("granted_memory_bytes", "gauge", "The sum of what clients may have of the memory.");
  for (const auto& use : status.namespaces) {
    out.sample(labels_of(use), use.use.pinned_memory_mebibytes * 1024 * 1024);
  }
  of_refusals(out, status.refused);
}

void of_audit(Exposition& out, const AuditStatus& audit) {
  if (audit.devices.empty()) return;
  const auto labels = [](const AuditCount& count) {
    return label("device", count.device) + "," + label("kind", count.kind);
  };
  out.family("audit_known", "gauge",
             "1 if NVML says who uses the device, so that all kinds can be found.");
  for (const auto& device : audit.devices) {
    out.sample(label("device", device.device), std::uint64_t{device.known ? 1U : 0U});
  }
  out.family("audit_findings", "gauge", "Processes that break the rules now.");
  for (const auto& count : audit.counts) out.sample(labels(count), count.standing);
  out.family("audit_found_total", "counter", "Processes found to break the rules.");
  for (const auto& count : audit.counts) out.sample(labels(count), count.found);
}

// Bounded as the devices and their domains are, times the six kinds.
std::string labels_of(const fault::Keeper::Counts::key_type& what) {
  const auto& [device, domain, kind] = what;
  return label("device", device) + "," + label("domain", domain) + "," +
         label("kind", fault::to_string(kind));
}

void of_recoveries(Exposition& out, const FaultDesk& faults) {
  out.family("recovery_seconds", "histogram", "From a fault until newcomers were let in again.");
  for (const auto& [what, times] : faults.times()) {
    const auto labels = labels_of(what);
    for (std::size_t i = 0; i < times.k_bounds.size(); ++i) {
      const auto bound = number(static_cast<double>(times.k_bounds[i]) / 1000.0);
      out.sample_of("_bucket", labels + "," + label("le", bound), times.up_to[i]);
    }
    out.sample_of("_bucket", labels + "," + label("le", "+Inf"), times.count);
    out.sample_of("_sum", labels, static_cast<double>(times.sum.count()) / 1000.0);
    out.sample_of("_count", labels, times.count);
  }
}

void of_faults(Exposition& out, const FaultDesk& faults) {
  out.family("incidents_total", "counter", "Incidents that are over.");
  for (const auto& [what, count] : faults.counts()) out.sample(labels_of(what), count);
  of_recoveries(out, faults);
  std::map<std::string, std::uint64_t> kept_out;
  for (const auto& [number, entry] : faults.quarantine().entries) ++kept_out[entry.key.subject];
  out.family("quarantined", "gauge", "Who is kept out: namespaces, and workloads of them.");
  for (const auto& [subject, count] : kept_out) out.sample(label("namespace", subject), count);
  out.family(
      "device_out_of_service", "gauge",
      "1 for each device that MPS must not run on before it was reset, or the node rebooted.");
  for (const auto& [device, entry] : faults.devices_out().entries) {
    out.sample(label("device", device) + "," + label("needs", fault::need_of(entry)),
               std::uint64_t{1});
  }
}

}  // namespace

std::string render_metrics(const AgentStatus& status, const std::vector<Snapshot>& instances,
                           const JournalCounts& journal, const PolicyStatus& policies,
                           const AdmissionStatus& admissions, const AuditStatus& audit,
                           const FaultDesk* faults) {
  Exposition out;
  out.family("build_info", "gauge", "The version of the supervisor; always 1.");
  out.sample(label("version", status.version), std::uint64_t{1});
  out.family("ready", "gauge", "1 if every device that is in service has an instance that serves.");
  out.sample("", std::uint64_t{status.ready ? 1U : 0U});
  out.family("instance_state", "gauge", "1 for the state that the instance is in.");
  one_hot<State>(out, instances, "state", k_states,
                 [](const Snapshot& instance) { return instance.state; });
  out.family("channel_state", "gauge", "1 for the state of the instance's command channel.");
  one_hot<ChannelState>(out, instances, "state", k_channels,
                        [](const Snapshot& instance) { return instance.channel.state; });
  out.family("gate_state", "gauge", "1 for what stands between programs and the instance.");
  one_hot<GateState>(out, instances, "state", k_gates,
                     [](const Snapshot& instance) { return instance.gate; });
  out.family("instance_clients", "gauge", "Processes that are clients of the instance.");
  per_instance(out, instances,
               [](const Snapshot& instance) -> std::uint64_t { return instance.clients.size(); });
  out.family("instance_restarts_total", "counter",
             "Control daemons started again after one that was ready.");
  per_instance(out, instances, [](const Snapshot& instance) { return instance.restarts; });
  out.family("limits_drifted_total", "counter", "Limits found changed by somebody else.");
  per_instance(out, instances, [](const Snapshot& instance) { return instance.limits_drifted; });
  out.family("unknown_log_lines_total", "counter",
             "Lines of the daemon's log with unknown wording.");
  per_instance(out, instances, [](const Snapshot& instance) { return instance.unknown_log_lines; });
  instance_limits(out, instances);
  of_admissions(out, admissions);
  of_audit(out, audit);
  if (faults != nullptr) of_faults(out, *faults);
  of_policies(out, policies);
  out.family("events_total", "counter", "Events recorded in the life of the journal.");
  out.sample("", journal.events);
  out.family("journal_write_errors_total", "counter", "Writes to the journal that failed.");
  out.sample("", journal.write_errors);
  return out.take();
}

}  // namespace mps::api
