// Shares as CDI devices.
#include "app/supervisor.h"
#include "instance/layout.h"

namespace mps::app {

// Of those that take newcomers: a share that is closing is no device any more.
std::vector<cdi::Spec> Supervisor::wanted_cdi() const {
  const auto facts = device_facts();
  const auto visible = [this, &facts](const std::string& uuid) {
    policy::DeviceFacts device;
    device.uuid = uuid;
    for (const auto& known : facts) {
      if (known.uuid == uuid) device = known;
    }
    return visible_devices(device, inventory_.devices.size());
  };
  std::vector<cdi::Spec> wanted;
  const auto devices = fleet_.devices();
  for (const auto& [id, device] : devices) {
    const instance::Layout layout(settings_.run_dir, id);
    wanted.push_back({id, layout.open, std::nullopt, visible(device)});
  }
  if (!desk_) return wanted;
  for (const auto& [number, share] : desk_->shares()) {
    const auto device = devices.find(share.instance);
    if (share.closing || device == devices.end()) continue;
    const instance::Layout layout(settings_.run_dir, share.instance);
    wanted.push_back({share.id, layout.shares / share.id, share.grant, visible(device->second)});
  }
  return wanted;
}

void Supervisor::settle_cdi() {
  if (!cdi_ || ending_) return;
  const auto wanted = wanted_cdi();
  for (const auto& spec : wanted) {
    // A device is not to be there before what it mounts.
    std::error_code ignored;
    if (spec.grant || std::filesystem::exists(spec.folder, ignored)) continue;
    (void)instance::Layout(settings_.run_dir, spec.name).make();
  }
  std::set<std::string> failed;
  for (const auto& trouble : cdi_->settle(wanted)) {
    if (failed.insert(trouble).second && !cdi_failed_.contains(trouble)) {
      say("cdi_failed", trouble);
    }
  }
  cdi_failed_ = std::move(failed);
}

void Supervisor::tell_cdi(api::ShareView& view) const {
  const auto& name = view.is_open_share ? view.share.instance : view.share.id;
  if (!cdi_) {
    view.no_cdi_because = "CDI is off (cdiDir)";
  } else if (cdi_->has(name)) {
    view.cdi_device = cdi::device_of(name);
  } else {
    const auto why = cdi_->why_not(name);
    view.no_cdi_because = why.empty() ? "it takes no newcomers" : why;
  }
}

}  // namespace mps::app
