// Shares made on demand, as the API asks for them.
#include <algorithm>
#include <utility>

#include "api/explain.h"
#include "app/supervisor.h"
#include "base/text.h"
#include "policy/effective.h"
#include "policy/subject.h"

namespace mps::app {

namespace {

using api::VerbError;

constexpr std::size_t k_named = 8;  // of the clients that keep a share from being deleted

VerbError conflict(std::string message) {
  return {VerbError::Kind::conflict, std::move(message)};
}

// "gpu0.shared", or the namespace's own where its policy says so.
std::string instance_for(const policy::Generation& policies, const std::string& subject,
                         const policy::DeviceFacts& device) {
  const auto found = policy::find_policy(policies, subject);
  const auto* policy = std::get_if<const policy::Policy*>(&found);
  const bool dedicated = !subject.empty() && policy != nullptr && policy::names(**policy, device) &&
                         (*policy)->isolation.value == policy::Isolation::dedicated;
  return policy::instance_id(device.name, dedicated ? policy::dedicated_domain(subject) : "shared");
}

std::string too_large(const share::Grant& grant, const policy::DeviceFacts& device) {
  const auto& memory = grant.pinned_memory_mebibytes;
  if (!memory || device.memory_mebibytes == 0 || *memory <= device.memory_mebibytes) return "";
  return format_mebibytes(*memory) + " is more than " + device.name + " has (" +
         format_mebibytes(device.memory_mebibytes) + ")";
}

// "pid 41 (unit a.service), pid 42 (…)"
std::string name_clients(const share::Ledger& ledger, const std::vector<share::SlotId>& slots) {
  std::string text;
  std::size_t named = 0;
  for (const auto& view : ledger.slots(ledger.slot_count())) {
    if (!std::binary_search(slots.begin(), slots.end(), view.slot.id)) continue;
    if (named++ == k_named)
      return text + " and " + std::to_string(slots.size() - k_named) + " more";
    text += (text.empty() ? "pid " : ", pid ") + std::to_string(view.slot.process.pid);
    const auto whose = ledger.admission_of(view.slot.process);
    if (whose && !whose->description.empty()) {
      text += " (" + printable(whose->description, 64) + ")";
    }
  }
  return text;
}

}  // namespace

std::vector<api::ShareView> Supervisor::shares() const {
  std::vector<api::ShareView> list;
  std::map<std::string, std::string> devices;
  for (const auto& instance : fleet_.snapshots()) {
    devices[instance.id] = instance.device;
    auto& view = list.emplace_back();
    view.share.id = admission::k_open_share;
    view.share.instance = instance.id;
    view.device = instance.device;
    view.directory = instance::Layout(settings_.run_dir, instance.id).open;
    view.is_open_share = true;
    tell_cdi(view);
  }
  if (!desk_) return list;
  for (const auto& [number, share] : desk_->shares()) {
    const instance::Layout layout(settings_.run_dir, share.instance);
    list.push_back({share, devices[share.instance], layout.shares / share.id, 0, false, "", ""});
    tell_cdi(list.back());
  }
  for (auto& view : list) {
    const auto name = admission::ledger_name(view.share.instance, view.share.id);
    view.clients = desk_->ledger().slots_of_share(name).size();
  }
  return list;
}

api::Agent::ShareResult Supervisor::create_share(const api::ShareOrder& order) {
  if (ending_) return conflict("the supervisor is ending");
  if (!desk_) return conflict("a share needs a gate, and no instance of this node has one");
  const auto chosen = api::choose_devices(device_facts(), order.device);
  if (!chosen) return VerbError{VerbError::Kind::not_found, chosen.error().message};
  if (chosen->size() != 1) {
    return conflict("device \"" + printable(order.device, 64) + "\" is " +
                    std::to_string(chosen->size()) + " devices; name one, such as " +
                    chosen->front().name);
  }
  const auto& device = chosen->front();
  if (auto why = too_large(order.grant, device); !why.empty()) return conflict(std::move(why));
  admission::ShareWish wish;
  wish.instance = instance_for(*policies_->reading().generation, order.subject, device);
  wish.subject = order.subject;
  wish.grant = order.grant;
  wish.ttl = order.ttl;
  const auto made = share_keeper_->create(wish);
  if (!made) return conflict(made.error().message);
  settle_cdi();
  for (auto& view : shares()) {
    if (!view.is_open_share && view.share.number == made->number) return std::move(view);
  }
  return VerbError{VerbError::Kind::failed, "share " + made->id + " was made, and is gone"};
}

api::Agent::VerbResult Supervisor::delete_share(const std::string& id, bool drain) {
  if (ending_) return conflict("the supervisor is ending");
  const auto* share = desk_ ? admission::find_share(desk_->shares(), id) : nullptr;
  if (share == nullptr) {
    return VerbError{VerbError::Kind::not_found, "no share \"" + printable(id, 64) + "\""};
  }
  const auto& ledger = desk_->ledger();
  const auto slots = ledger.slots_of_share(admission::ledger_name(share->instance, share->id));
  const auto clients = std::to_string(slots.size()) + (slots.size() == 1 ? " client" : " clients");
  if (!slots.empty() && !drain) {
    return conflict("share " + id + " has " + clients + ": " + name_clients(ledger, slots) +
                    "; with --drain nobody comes in any more and it ends with the last of them");
  }
  desk_->close_share(share->number);
  if (slots.empty()) return "share " + id + " has ended";
  return "share " + id + ": nobody comes in any more; it ends with the last of " + clients;
}

}  // namespace mps::app
