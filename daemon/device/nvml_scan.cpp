#include "device/nvml_scan.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "device/capability.h"

namespace mps::device::nvml {

namespace {

constexpr std::uint64_t k_mebibyte = 1024ULL * 1024;
constexpr unsigned k_max_devices = 256;
constexpr unsigned k_max_mig_devices = 64;

template <std::size_t N>
std::string text_of(const std::array<char, N>& buffer) {
  return {buffer.data(), strnlen(buffer.data(), N)};
}

// Reads one device. The first call that fails becomes the device's error; what it would have told
// stays unknown. What the device or the library does not have is no error.
class Reader {
 public:
  Reader(const Library& library, Handle handle, Device& device)
      : library_(library), handle_(handle), device_(device) {}

  // As ask(), for what says whether MPS can run here.
  template <typename Signature, typename... Arguments>
  bool ask_capability(const Entry<Signature>& entry, Arguments... arguments) {
    const auto code = library_.call(entry, handle_, arguments...);
    device_.capability_known = device_.capability_known && (code == k_success || is_lacking(code));
    return judge(entry.symbol, code);
  }

  template <typename Signature, typename... Arguments>
  bool ask(const Entry<Signature>& entry, Arguments... arguments) {
    return judge(entry.symbol, library_.call(entry, handle_, arguments...));
  }

  void read_name() {
    std::array<char, k_text_size> buffer{};
    if (ask(library_.name, buffer.data(), k_text_size)) device_.name = text_of(buffer);
  }

  void read_memory() {
    MemoryV2 memory{};
    memory.version = k_memory_v2;
    const auto code = library_.call(library_.memory_v2, handle_, &memory);
    if (code == k_success) {
      device_.memory_mebibytes = memory.total / k_mebibyte;
      device_.reserved_memory_mebibytes = memory.reserved / k_mebibyte;
    } else if (code == k_function_not_found || code == k_not_supported ||
               code == k_argument_version_mismatch) {
      Memory older{};
      if (ask(library_.memory, &older)) device_.memory_mebibytes = older.total / k_mebibyte;
    } else if (device_.error.empty()) {
      device_.error = library_.describe(library_.memory_v2.symbol, code);
    }
  }

  void read_pci() {
    PciInfo pci{};
    if (!ask(library_.pci, &pci)) return;
    device_.pci_bus_id = std::string(pci.bus_id, strnlen(pci.bus_id, sizeof(pci.bus_id)));
  }

  void read_compute_capability() {
    int major = 0;
    int minor = 0;
    if (!ask_capability(library_.compute_capability, &major, &minor) || major < 0 || minor < 0)
      return;
    device_.compute_capability_major = static_cast<unsigned>(major);
    device_.compute_capability_minor = static_cast<unsigned>(minor);
  }

  void read_sm_count_of_gpu() {
    unsigned cores = 0;
    if (!device_.compute_capability_major || !ask(library_.cores, &cores)) return;
    device_.sm_count = sm_count_of(cores, *device_.compute_capability_major,
                                   device_.compute_capability_minor.value_or(0));
  }

  void read_attributes_of_mig_device() {
    Attributes attributes{};
    if (!ask(library_.attributes, &attributes)) return;
    device_.sm_count = attributes.multiprocessor_count;
    if (device_.memory_mebibytes == 0) device_.memory_mebibytes = attributes.memory_size_mebibytes;
  }

  void read_compute_mode() {
    unsigned mode = 0;
    if (!ask_capability(library_.compute_mode, &mode) || mode >= k_compute_mode_count) return;
    device_.compute_mode = static_cast<ComputeMode>(mode);
  }

  void read_mig_mode() {
    unsigned current = 0;
    unsigned pending = 0;
    if (ask_capability(library_.mig_mode, &current, &pending))
      device_.mig_enabled = current == k_mig_enabled;
  }

  bool is_vgpu_guest() {
    unsigned mode = 0;
    return ask_capability(library_.virtualization, &mode) && mode == k_virtualization_vgpu_guest;
  }

 private:
  static bool is_lacking(Return code) {
    return code == k_not_supported || code == k_function_not_found;
  }

  bool judge(const char* symbol, Return code) {
    if (code == k_success) return true;
    if (!is_lacking(code) && device_.error.empty()) {
      device_.error = library_.describe(symbol, code);
    }
    return false;
  }

  const Library& library_;
  Handle handle_;
  Device& device_;
};

Result<std::string> uuid_of(const Library& library, Handle handle) {
  std::array<char, k_text_size> buffer{};
  const auto code = library.call(library.uuid, handle, buffer.data(), k_text_size);
  if (code != k_success) return Error{library.describe(library.uuid.symbol, code)};
  return text_of(buffer);
}

CapabilityFacts facts_of(const Device& device, bool vgpu_guest) {
  return {.vgpu_guest = vgpu_guest,
          .mig_enabled = device.mig_enabled,
          .major = device.compute_capability_major,
          .minor = device.compute_capability_minor,
          .compute_mode = device.compute_mode};
}

class Scanner {
 public:
  explicit Scanner(const Library& library) : library_(library) {}

  Result<Scan> run() {
    std::array<char, k_text_size> version{};
    if (library_.call(library_.driver_version, version.data(), k_text_size) == k_success) {
      scan_.driver_version = text_of(version);
    }
    unsigned count = 0;
    if (const auto code = library_.call(library_.count, &count); code != k_success) {
      return Error{library_.describe(library_.count.symbol, code)};
    }
    for (unsigned index = 0; index < std::min(count, k_max_devices); ++index) read_gpu(index);
    return std::move(scan_);
  }

 private:
  void read_gpu(unsigned index) {
    Handle handle = nullptr;
    if (const auto code = library_.call(library_.by_index, index, &handle); code != k_success) {
      scan_.nameless.push_back({index, library_.describe(library_.by_index.symbol, code)});
      return;
    }
    auto uuid = uuid_of(library_, handle);
    if (!uuid) {
      scan_.nameless.push_back({index, uuid.error().message});
      return;
    }
    Device device{.uuid = *uuid, .index = index};
    Reader reader(library_, handle, device);
    reader.read_name();
    reader.read_pci();
    reader.read_memory();
    reader.read_compute_capability();
    reader.read_sm_count_of_gpu();
    reader.read_compute_mode();
    reader.read_mig_mode();
    const bool vgpu_guest = reader.is_vgpu_guest();
    device.not_capable = why_not_capable(facts_of(device, vgpu_guest));
    const auto place = scan_.devices.size();
    scan_.devices.push_back(device);
    if (device.mig_enabled) read_mig_devices(handle, place, vgpu_guest);
  }

  void read_mig_devices(Handle gpu, std::size_t parent, bool vgpu_guest) {
    unsigned count = 0;
    Reader reader(library_, gpu, scan_.devices[parent]);
    if (!reader.ask(library_.mig_count, &count)) return;
    for (unsigned index = 0; index < std::min(count, k_max_mig_devices); ++index) {
      Handle handle = nullptr;
      const auto code = library_.call(library_.mig_by_index, gpu, index, &handle);
      if (code == k_not_found) continue;  // places without a MIG device
      if (code != k_success) {
        note_failure(parent, library_.describe(library_.mig_by_index.symbol, code));
        continue;
      }
      read_mig_device(handle, parent, index, vgpu_guest);
    }
  }

  void read_mig_device(Handle handle, std::size_t parent, unsigned mig_index, bool vgpu_guest) {
    auto uuid = uuid_of(library_, handle);
    if (!uuid) {
      note_failure(parent, uuid.error().message);
      return;
    }
    const auto& gpu = scan_.devices[parent];
    Device device{.uuid = *uuid,
                  .kind = Kind::mig,
                  .index = gpu.index,
                  .mig_index = mig_index,
                  .name = gpu.name + " MIG",
                  .pci_bus_id = gpu.pci_bus_id,
                  .compute_capability_major = gpu.compute_capability_major,
                  .compute_capability_minor = gpu.compute_capability_minor,
                  .capability_known = gpu.capability_known};
    Reader reader(library_, handle, device);
    reader.read_name();
    reader.read_memory();
    reader.read_attributes_of_mig_device();
    device.not_capable = why_not_capable(facts_of(device, vgpu_guest));
    scan_.devices.push_back(std::move(device));
  }

  // A MIG device that cannot be named is its parent's trouble.
  void note_failure(std::size_t parent, std::string error) {
    auto& device = scan_.devices[parent];
    if (device.error.empty()) device.error = std::move(error);
  }

  const Library& library_;
  Scan scan_;
};

}  // namespace

Result<Scan> scan(Library& library, const std::string& name) {
  auto session = Session::open(library, name);
  if (!session) return session.error();
  return Scanner(library).run();
}

Result<void> set_compute_mode(Library& library, const std::string& name, const std::string& uuid,
                              ComputeMode mode) {
  if (uuid.starts_with("MIG-")) {
    return Error{uuid + ": a MIG device has no compute mode of its own"};
  }
  auto session = Session::open(library, name);
  if (!session) return session.error();
  Handle handle = nullptr;
  if (const auto code = library.call(library.by_uuid, uuid.c_str(), &handle); code != k_success) {
    return Error{library.describe(library.by_uuid.symbol, code)}.in(uuid);
  }
  const auto code = library.call(library.set_compute_mode, handle, static_cast<unsigned>(mode));
  if (code != k_success)
    return Error{library.describe(library.set_compute_mode.symbol, code)}.in(uuid);
  return {};
}

}  // namespace mps::device::nvml
