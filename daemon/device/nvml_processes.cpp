#include "device/nvml_processes.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <utility>

namespace mps::device::nvml {

namespace {

constexpr std::uint64_t k_mebibyte = 1024ULL * 1024;
// A prime, so that no number of entries of one size fills it as another number of another size.
constexpr unsigned k_usual = 509;
constexpr unsigned k_most = 8192;
constexpr unsigned k_newcomers = 64;  // between two calls
constexpr int k_tries = 3;
constexpr std::size_t k_two_fields = 16;
constexpr std::size_t k_four_fields = sizeof(ProcessInfo);
constexpr std::size_t k_five_fields = 32;
constexpr std::size_t k_last_field = 8;
// What no entry ends in: the last byte of each is the highest of a memory size or an instance's id.
constexpr unsigned char k_untouched = 0xA5;

using Entries = std::array<Entry<ProcessesFunction>, 3>;

bool is_lacking(Return code) {
  return code == k_not_supported || code == k_function_not_found;
}

// The size of each of `count` entries: what was written ends with the last one, or with the room
// for them where a library clears what it does not use. None: nothing that is known.
std::optional<std::size_t> size_of_each(const std::vector<unsigned char>& room, unsigned count) {
  const auto end = std::find_if(room.rbegin(), room.rend(),
                                [](unsigned char byte) { return byte != k_untouched; });
  const auto written = static_cast<std::size_t>(room.rend() - end);
  for (const auto size : {k_two_fields, k_four_fields, k_five_fields}) {
    if (written == count * size || written == room.size() / k_five_fields * size) return size;
  }
  if (written + k_last_field == count * k_five_fields) return k_five_fields;
  return std::nullopt;
}

ProcessInfo read_entry(const unsigned char* from, std::size_t size) {
  ProcessInfo info{0, k_memory_not_available, k_no_instance, k_no_instance};
  std::memcpy(&info, from, std::min(size, sizeof info));
  return info;
}

class Lister {
 public:
  Lister(const Library& library, Handle handle, bool mig) : library_(library), handle_(handle) {
    if (!mig) return;
    read_instance(library.gpu_instance, gpu_instance_);
    read_instance(library.compute_instance, compute_instance_);
  }

  Result<std::vector<GpuProcess>> all() {
    const auto code = take(library_.processes, false);
    if (code != k_success) return why(library_.processes, code);
    // Where a driver has no such list, MPS's own list of its clients is all there is.
    const auto of_mps = take(library_.mps_processes, true);
    if (of_mps != k_success && !is_lacking(of_mps)) return why(library_.mps_processes, of_mps);
    if (trouble_) return *trouble_;
    std::vector<GpuProcess> list;
    for (const auto& [pid, process] : found_) list.push_back(process);
    return list;
  }

 private:
  void read_instance(const Entry<NumberFunction>& entry, unsigned& id) {
    unsigned told = 0;
    if (library_.call(entry, handle_, &told) == k_success) id = told;
  }

  [[nodiscard]] Error why(const Entries& entries, Return code) const {
    return Error{library_.describe(entries.front().symbol, code)};
  }

  // By the newest entry point that there is.
  Return take(const Entries& entries, bool mps) {
    Return code = k_function_not_found;
    for (const auto& entry : entries) {
      code = take(entry, mps);
      if (code != k_function_not_found) break;
    }
    return code;
  }

  Return take(const Entry<ProcessesFunction>& entry, bool mps) {
    unsigned capacity = k_usual;
    Return code = k_insufficient_size;
    for (int i = 0; i < k_tries && code == k_insufficient_size && capacity <= k_most; ++i) {
      // Room for the widest, whatever this one writes.
      std::vector<unsigned char> room(capacity * k_five_fields, k_untouched);
      unsigned count = capacity;
      code = library_.call(entry, handle_, &count, static_cast<void*>(room.data()));
      if (code == k_success) note_all(entry, room, std::min(count, capacity), mps);
      capacity = std::min(count, k_most) + k_newcomers;
    }
    return code;
  }

  void note_all(const Entry<ProcessesFunction>& entry, const std::vector<unsigned char>& room,
                unsigned count, bool mps) {
    if (count == 0) return;
    const auto size = size_of_each(room, count);
    if (!size) {
      trouble_ = Error{std::string(entry.symbol) + ": its answer has a layout that is not known"};
      return;
    }
    for (std::size_t i = 0; i < count; ++i) note(read_entry(room.data() + i * *size, *size), mps);
  }

  void note(const ProcessInfo& info, bool mps) {
    if (!is_here(gpu_instance_, info.gpu_instance) ||
        !is_here(compute_instance_, info.compute_instance)) {
      return;
    }
    auto& process = found_[info.pid];
    process.pid = static_cast<pid_t>(info.pid);
    process.mps_client = process.mps_client || mps;
    if (info.used_memory == k_memory_not_available) return;
    const std::uint64_t mebibytes = info.used_memory / k_mebibyte;
    process.memory_mebibytes =
        std::max<std::uint64_t>(process.memory_mebibytes.value_or(0), mebibytes);
  }

  // What does not say where it is, is where it was asked for.
  static bool is_here(unsigned here, unsigned there) {
    return here == k_no_instance || there == k_no_instance || here == there;
  }

  const Library& library_;
  Handle handle_;
  unsigned gpu_instance_ = k_no_instance;
  unsigned compute_instance_ = k_no_instance;
  std::map<unsigned, GpuProcess> found_;
  std::optional<Error> trouble_;
};

DeviceProcesses processes_of(const Library& library, const std::string& uuid) {
  Handle handle = nullptr;
  const auto code = library.call(library.by_uuid, uuid.c_str(), &handle);
  if (code != k_success) return {uuid, {}, library.describe(library.by_uuid.symbol, code)};
  auto list = Lister(library, handle, uuid.starts_with("MIG-")).all();
  if (!list) return {uuid, {}, list.error().message};
  return {uuid, std::move(*list), {}};
}

}  // namespace

Result<std::vector<DeviceProcesses>> processes(Library& library, const std::string& name,
                                               const std::vector<std::string>& uuids) {
  auto session = Session::open(library, name);
  if (!session) return session.error();
  std::vector<DeviceProcesses> answers;
  answers.reserve(uuids.size());
  for (const auto& uuid : uuids) answers.push_back(processes_of(library, uuid));
  return answers;
}

}  // namespace mps::device::nvml
