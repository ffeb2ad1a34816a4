#include "api/json.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "api/policy_json.h"
#include "base/text.h"
#include "fault/out_of_service_json.h"

namespace mps::api {

namespace {

using nlohmann::json;

json text_or_null(const std::string& text) {
  return text.empty() ? json(nullptr) : json(text);
}

template <typename T>
json number_or_null(const std::optional<T>& value) {
  return value ? json(*value) : json(nullptr);
}

json known_or_null(std::uint64_t value) {
  return value == 0 ? json(nullptr) : json(value);
}

json compute_capability(const device::Device& device) {
  if (!device.compute_capability_major || !device.compute_capability_minor) return nullptr;
  return std::to_string(*device.compute_capability_major) + "." +
         std::to_string(*device.compute_capability_minor);
}

json control_to_json(const std::optional<instance::ControlProcess>& control) {
  if (!control) return nullptr;
  return {{"pid", control->pid},
          {"startedAt", format_time(control->started_at)},
          {"adopted", control->adopted}};
}

json server_to_json(const std::optional<instance::Server>& server) {
  if (!server) return nullptr;
  return {{"pid", server->pid == 0 ? json(nullptr) : json(server->pid)},
          {"uid", number_or_null(server->uid)},
          {"status", instance::to_string(server->status)},
          {"cause", text_or_null(server->cause)},
          {"failedStarts", server->failed_starts}};
}

json channel_detail(const instance::ChannelView& channel) {
  return {{"holder", number_or_null(channel.holder)},
          {"holderName", text_or_null(channel.holder_name)},
          {"detail", text_or_null(channel.detail)}};
}

json limits_to_json(const instance::Snapshot& snapshot) {
  const auto& limits = snapshot.limits;
  return {{"activeThreadPercentage", limits.active_thread_percentage},
          {"pinnedDeviceMemoryMiB", number_or_null(limits.pinned_memory_mebibytes)},
          {"clientPriority", limits.client_priority == 0 ? "normal" : "below-normal"},
          {"confirmed", snapshot.limits_confirmed},
          {"from",
           {{"activeThreadPercentage", text_or_null(snapshot.percentage_from)},
            {"pinnedDeviceMemoryMiB", text_or_null(snapshot.memory_from)}}}};
}

// Limits that some policy lifts for everybody on the instance, and which.
void add_missing_ceilings(json& list, const instance::Snapshot& instance) {
  const auto add = [&](const char* limit, const std::string& from) {
    list.push_back({{"instance", instance.id}, {"limit", limit}, {"from", text_or_null(from)}});
  };
  const auto& limits = instance.limits;
  if (limits.active_thread_percentage >= 100.0) {
    add("activeThreadPercentage", instance.percentage_from);
  }
  if (!limits.pinned_memory_mebibytes) add("pinnedDeviceMemory", instance.memory_from);
}

// All of them, also those that NVML does not report.
json devices_out_to_json(const FaultDesk* faults) {
  auto list = json::array();
  if (faults == nullptr) return list;
  for (const auto& [device, entry] : faults->devices_out().entries) {
    list.push_back(fault::to_json(entry));
  }
  return list;
}

json out_of_service(const FaultDesk* faults, const device::Inventory& inventory,
                    const std::string& device) {
  if (faults == nullptr) return nullptr;
  const auto* entry = faults->devices_out().of(device, device::gpu_of(inventory, device));
  return entry == nullptr ? json(nullptr) : fault::to_json(*entry);
}

json findings_to_json(const AuditStatus& audit) {
  auto list = json::array();
  for (const auto& count : audit.counts) {
    if (count.standing == 0) continue;
    list.push_back({{"device", count.device}, {"kind", count.kind}, {"processes", count.standing}});
  }
  return list;
}

}  // namespace

json to_json(const Event& event) {
  return {{"id", event.id},           {"time", format_time(event.time)},
          {"kind", event.kind},       {"instance", event.instance},
          {"message", event.message}, {"data", event.data}};
}

json to_json(const device::Device& device) {
  return {{"uuid", device.uuid},
          {"id", device.short_name()},
          {"kind", device.kind == device::Kind::gpu ? "gpu" : "mig"},
          {"index", device.index},
          {"migIndex", number_or_null(device.mig_index)},
          {"name", device.name},
          {"pciBusId", text_or_null(device.pci_bus_id)},
          {"memoryMiB", known_or_null(device.memory_mebibytes)},
          {"reservedMemoryMiB", device.reserved_memory_mebibytes},
          {"smCount", known_or_null(device.sm_count)},
          {"computeCapability", compute_capability(device)},
          {"computeMode",
           device.compute_mode ? json(device::to_string(*device.compute_mode)) : json(nullptr)},
          {"migEnabled", device.mig_enabled},
          {"declared", device.declared},
          {"mpsCapable", device.not_capable.empty()},
          {"notCapableBecause", text_or_null(device.not_capable)},
          {"error", text_or_null(device.error)}};
}

json devices_to_json(const device::Inventory& inventory,
                     const std::vector<policy::DeviceFacts>& facts, const FaultDesk* faults) {
  auto list = json::array();
  for (const auto& device : inventory.devices) {
    auto entry = to_json(device);
    const auto fact = std::find_if(facts.begin(), facts.end(),
                                   [&device](const auto& one) { return one.uuid == device.uuid; });
    entry["maxClients"] = fact == facts.end() ? json(nullptr) : number_or_null(fact->max_clients);
    entry["exclusive"] = fact == facts.end() ? json(nullptr) : json(fact->exclusive);
    entry["outOfService"] = out_of_service(faults, inventory, device.uuid);
    list.push_back(std::move(entry));
  }
  return list;
}

json to_json(const instance::Snapshot& snapshot) {
  return {
      {"id", snapshot.id},
      {"device", snapshot.device},
      {"domain", snapshot.domain},
      {"state", instance::to_string(snapshot.state)},
      {"stateSince", format_time(snapshot.state_since)},
      {"control", control_to_json(snapshot.control)},
      {"server", server_to_json(snapshot.server)},
      {"channel", instance::to_string(snapshot.channel.state)},
      {"channelDetail", channel_detail(snapshot.channel)},
      {"restarts", snapshot.restarts},
      {"gate", instance::to_string(snapshot.gate)},
      {"bypass", instance::to_string(snapshot.bypass)},
      {"limits", limits_to_json(snapshot)},
      {"limitsDrifted", snapshot.limits_drifted},
      {"clients", snapshot.clients.size()},
      {"lastError", text_or_null(snapshot.last_error)},
      {"outOfService", text_or_null(snapshot.out_of_service)},
      {"pipeDirectory", snapshot.pipe_directory},
      {"unknownLogLines", snapshot.unknown_log_lines},
      {"nextStart", snapshot.next_start ? json(format_time(*snapshot.next_start)) : json(nullptr)},
      {"serverStatusKnown", snapshot.server_status_known}};
}

json to_json(const AgentStatus& status) {
  return {{"version", status.version},
          {"pid", status.pid},
          {"startedAt", format_time(status.started_at)},
          {"ready", status.ready},
          {"notReadyBecause", text_or_null(status.not_ready_because)},
          {"runDirectory", status.run_directory},
          {"stateDirectory", status.state_directory}};
}

std::vector<json> clients_to_json(const instance::Snapshot& snapshot, const SlotsByProcess& slots) {
  std::vector<json> list;
  for (const auto& client : snapshot.clients) {
    json entry({{"instance", snapshot.id},
                {"pid", client.pid},
                {"uid", client.uid},
                {"command", client.command},
                {"since", format_time(client.since)},
                {"connected", client.connected},
                {"adopted", client.adopted}});
    slots.add_to(entry, snapshot.id, {client.pid, client.start_ticks});
    list.push_back(std::move(entry));
  }
  return list;
}

json status_to_json(const Agent& agent, const EventLog& log) {
  auto status = to_json(agent.status());
  const auto inventory = agent.inventory();
  std::size_t clients = 0;
  auto states = json::object();
  auto errors = json::array();
  auto missing = json::array();
  const auto instances = agent.instances();
  for (const auto& instance : instances) {
    clients += instance.clients.size();
    add_missing_ceilings(missing, instance);
    const std::string state = instance::to_string(instance.state);
    states[state] = states.value(state, 0) + 1;
    if (instance.last_error.empty()) continue;
    errors.push_back({{"instance", instance.id}, {"message", instance.last_error}});
  }
  status["driverVersion"] = text_or_null(inventory.driver_version);
  status["devices"] = inventory.devices.size();
  status["devicesError"] = text_or_null(inventory.error);
  status["instances"] = instances.size();
  status["instancesByState"] = states;
  status["clients"] = clients;
  status["lastErrors"] = errors;
  status["outOfService"] = devices_out_to_json(agent.faults());
  status["noCeiling"] = missing;
  status["findings"] = findings_to_json(agent.audit());
  status["policies"] = to_json(agent.policies());
  status["lastEventId"] = log.last_id();
  status["journalWriteErrors"] = log.write_errors();
  return status;
}

std::string dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace mps::api
