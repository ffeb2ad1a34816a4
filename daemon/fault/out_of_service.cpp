#include "fault/out_of_service.h"

#include <algorithm>
#include <utility>

#include "base/text.h"

namespace mps::fault {

namespace {

constexpr std::chrono::seconds k_action_patience{5};  // as a tracker's, for what belongs together

Consequence by_table(unsigned xid) {
  return judge(xid, std::nullopt);
}

bool is_known_boot(const std::string& then, const std::string& now) {
  return !then.empty() && !now.empty();
}

// For one more. A node has far fewer devices than this; only MIG devices can be made without end.
void make_room(const DevicesOut& out, const std::string& device, DeviceChanges& changes) {
  if (out.entries.contains(device) || out.entries.size() < k_out_limit) return;
  const auto oldest = std::min_element(
      out.entries.begin(), out.entries.end(),
      [](const auto& a, const auto& b) { return a.second.since < b.second.since; });
  changes.emplace_back(DeviceReturned{
      oldest->first, "no more than " + std::to_string(k_out_limit) + " can be kept in mind"});
}

}  // namespace

const char* need_of(const OutOfService& entry) {
  return entry.needs == Consequence::out_until_reboot ? "reboot" : "reset";
}

std::string reason_of(const OutOfService& entry) {
  std::string text = entry.xid ? describe_xid(*entry.xid) : std::string();
  if (entry.action) {
    text += (text.empty() ? "" : ", ") + std::string("recovery action ") + to_string(*entry.action);
  }
  return text;
}

std::string describe(const OutOfService& entry) {
  const bool reset = entry.needs == Consequence::out_until_reset;
  return printable(entry.device) + " is out of service since " + format_time(entry.since) +
         " until " + (reset ? "it is reset" : "the node is rebooted") + ": " + reason_of(entry) +
         (entry.incident == 0 ? "" : ", incident " + id_of(entry.incident));
}

void DevicesOut::apply(const DeviceChange& change) {
  if (const auto* taken = std::get_if<DeviceTakenOut>(&change)) {
    if (entries.contains(taken->entry.device) || entries.size() < k_out_limit) {
      entries[taken->entry.device] = taken->entry;
    }
  } else if (const auto* returned = std::get_if<DeviceReturned>(&change)) {
    entries.erase(returned->device);
  } else if (const auto* said = std::get_if<DriverOverruled>(&change)) {
    overruled.erase(said->gpu);
    if (said->action != RecoveryAction::none && overruled.size() < k_out_limit) {
      overruled[said->gpu] = *said;
    }
  }
}

const OutOfService* DevicesOut::of(const std::string& device, const std::string& gpu) const {
  for (const auto& name : {gpu, device}) {
    const auto found = entries.find(name);
    if (found != entries.end()) return &found->second;
  }
  return nullptr;
}

// ---- ways back ----

DeviceChanges after_boot(const DevicesOut& out, const std::string& boot_id) {
  DeviceChanges changes;
  for (const auto& [device, entry] : out.entries) {
    if (!is_known_boot(entry.boot_id, boot_id) || entry.boot_id == boot_id) continue;
    changes.emplace_back(DeviceReturned{device, "the node was booted since"});
  }
  for (const auto& [gpu, said] : out.overruled) {
    if (!is_known_boot(said.boot_id, boot_id) || said.boot_id == boot_id) continue;
    changes.emplace_back(DriverOverruled{gpu, RecoveryAction::none, ""});
  }
  return changes;
}

DeviceChanges without_the_gone(const DevicesOut& out, const std::set<std::string>& devices) {
  DeviceChanges changes;
  for (const auto& [device, entry] : out.entries) {
    const bool is_mig = device != entry.gpu;
    if (!is_mig || !devices.contains(entry.gpu) || devices.contains(device)) continue;
    changes.emplace_back(DeviceReturned{device, "there is no such MIG device any more"});
  }
  return changes;
}

DeviceChanges put_back(const DevicesOut& out, const std::string& device, const std::string& gpu,
                       const std::string& why) {
  DeviceChanges changes;
  for (const auto& name : std::set<std::string>{device, gpu}) {
    const auto found = out.entries.find(name);
    if (found == out.entries.end()) continue;
    const auto& entry = found->second;
    changes.emplace_back(DeviceReturned{name, why});
    if (!entry.action) continue;
    changes.emplace_back(DriverOverruled{entry.gpu, *entry.action, entry.boot_id});
  }
  return changes;
}

// ---- what the driver says ----

DeviceChanges DeviceJudge::on_xid(const DevicesOut& out, const Trouble& trouble) {
  if (!takes_out(by_table(trouble.xid))) return {};
  if (!tells_actions_.contains(trouble.gpu)) return by_number(out, trouble);
  const auto [waiting, is_first] = pending_.try_emplace(trouble.gpu, trouble);
  // Of several devices of the GPU it is all of it, since one of them is remembered.
  if (!is_first) {
    auto& known = waiting->second;
    if (by_table(trouble.xid) > by_table(known.xid)) known.xid = trouble.xid;
    if (known.device != trouble.device) known.device = known.gpu;
  }
  return {};
}

DeviceChanges DeviceJudge::by_number(const DevicesOut& out, const Trouble& trouble) const {
  const auto needs = by_table(trouble.xid);
  const auto* known = out.of(trouble.device, trouble.gpu);
  if (known != nullptr && known->needs >= needs) return {};
  OutOfService entry;
  const auto same = out.entries.find(trouble.device);
  if (same != out.entries.end()) {
    entry = same->second;
  } else {
    entry = {trouble.device, trouble.gpu, needs, {}, {}, trouble.at, trouble.incident, boot_id_};
  }
  entry.needs = needs;
  entry.xid = trouble.xid;
  DeviceChanges changes;
  make_room(out, entry.device, changes);
  changes.emplace_back(DeviceTakenOut{std::move(entry)});
  return changes;
}

DeviceChanges DeviceJudge::on_action(const DevicesOut& out, const std::string& gpu,
                                     RecoveryAction action, std::uint64_t incident, Time at) {
  if (tells_actions_.size() < k_out_limit) tells_actions_.insert(gpu);
  const auto xid = take_pending(gpu);
  if (action == RecoveryAction::unknown) return xid ? by_number(out, *xid) : DeviceChanges{};
  if (takes_out(judge(std::nullopt, action))) return by_action(out, gpu, action, xid, incident, at);
  DeviceChanges changes;
  for (const auto& [device, entry] : out.entries) {
    if (entry.gpu != gpu) continue;
    changes.emplace_back(DeviceReturned{device, "the driver asks for nothing any more"});
  }
  if (out.overruled.contains(gpu)) changes.emplace_back(DriverOverruled{gpu});
  return changes;
}

DeviceChanges DeviceJudge::by_action(const DevicesOut& out, const std::string& gpu,
                                     RecoveryAction action, const std::optional<Trouble>& xid,
                                     std::uint64_t incident, Time at) const {
  const auto overruled = out.overruled.find(gpu);
  const bool is_overruled = overruled != out.overruled.end();
  if (is_overruled && overruled->second.action == action && !xid) return {};
  OutOfService entry{gpu, gpu, {}, {}, {}, xid ? xid->at : at, incident, boot_id_};
  // Of its MIG device's own, where that is what it began with.
  const auto known = std::find_if(out.entries.begin(), out.entries.end(),
                                  [&gpu](const auto& one) { return one.second.gpu == gpu; });
  const auto same = out.entries.find(gpu);
  if (same != out.entries.end()) {
    entry = same->second;
  } else if (known != out.entries.end()) {
    entry.xid = known->second.xid;
  }
  entry.action = action;
  entry.needs = judge(std::nullopt, action);
  if (!entry.xid && xid) entry.xid = xid->xid;
  if (entry.incident == 0) entry.incident = xid && xid->incident != 0 ? xid->incident : incident;
  DeviceChanges changes;
  if (is_overruled) changes.emplace_back(DriverOverruled{gpu});
  if (same != out.entries.end() && same->second == entry) return changes;
  make_room(out, gpu, changes);
  changes.emplace_back(DeviceTakenOut{std::move(entry)});
  return changes;
}

std::optional<DeviceJudge::Trouble> DeviceJudge::take_pending(const std::string& gpu) {
  auto taken = pending_.extract(gpu);
  return taken ? std::optional(std::move(taken.mapped())) : std::nullopt;
}

std::optional<Time> DeviceJudge::deadline() const {
  std::optional<Time> first;
  for (const auto& [gpu, trouble] : pending_) {
    const auto due = trouble.at + k_action_patience;
    if (!first || due < *first) first = due;
  }
  return first;
}

// A clock that was set back does not make anybody wait longer.
DeviceChanges DeviceJudge::tick(const DevicesOut& out, Time now) {
  DeviceChanges changes;
  auto state = out;
  for (auto at = pending_.begin(); at != pending_.end();) {
    if (now >= at->second.at && now < at->second.at + k_action_patience) {
      ++at;
      continue;
    }
    for (auto& change : by_number(state, at->second)) {
      state.apply(change);
      changes.push_back(std::move(change));
    }
    at = pending_.erase(at);
  }
  return changes;
}

}  // namespace mps::fault
