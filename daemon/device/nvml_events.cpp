#include "device/nvml_events.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

namespace mps::device::nvml {

namespace {

constexpr unsigned k_max_mig_devices = 64;

std::optional<unsigned> instance_of(unsigned value) {
  if (value == k_no_instance) return std::nullopt;
  return value;
}

// An empty one where NVML does not say it.
std::string uuid_of(const Library& library, Handle handle) {
  std::array<char, k_text_size> text{};
  if (library.call(library.uuid, handle, text.data(), k_text_size) != k_success) return {};
  return {text.data(), strnlen(text.data(), text.size())};
}

// Whether the device has this instance, or the event names none.
bool is_instance(const Library& library, const Entry<NumberFunction>& entry, Handle device,
                 unsigned named) {
  unsigned id = 0;
  if (named == k_no_instance) return true;
  return library.call(entry, device, &id) == k_success && id == named;
}

}  // namespace

Result<EventSession> EventSession::open(Library& library, const std::string& name) {
  auto session = Session::open(library, name);
  if (!session) return session.error();
  if (library.event_wait.call == nullptr) {
    return Error{library.describe(library.event_wait.symbol, k_function_not_found)};
  }
  EventSet set = nullptr;
  const auto code = library.call(library.event_set_create, &set);
  if (code != k_success) return Error{library.describe(library.event_set_create.symbol, code)};
  return EventSession(library, std::move(*session), set);
}

EventSession::EventSession(EventSession&& other) noexcept
    : library_(other.library_),
      session_(std::move(other.session_)),
      set_(std::exchange(other.set_, nullptr)),
      gpus_(std::move(other.gpus_)) {}

EventSession::~EventSession() {
  if (set_ != nullptr) library_->call(library_->event_set_free, set_);
}

Result<void> EventSession::add(const std::string& gpu) {
  Handle handle = nullptr;
  auto code = library_->call(library_->by_uuid, gpu.c_str(), &handle);
  if (code != k_success) return Error{library_->describe(library_->by_uuid.symbol, code)};
  const auto types = types_of(handle);
  if (!types) return types.error();
  code = library_->call(library_->register_events, handle, *types, set_);
  if (code == k_not_supported && *types != k_xid_event) {  // what it has said notwithstanding
    code = library_->call(library_->register_events, handle, k_xid_event, set_);
  }
  if (code != k_success) {
    return Error{library_->describe(library_->register_events.symbol, code)};
  }
  gpus_.emplace(gpu, handle);
  return {};
}

Result<unsigned long long> EventSession::types_of(Handle handle) const {
  unsigned long long supported = 0;
  const auto code = library_->call(library_->event_types, handle, &supported);
  if (code == k_function_not_found) return k_xid_event;
  if (code != k_success) return Error{library_->describe(library_->event_types.symbol, code)};
  if ((supported & k_xid_event) == 0) return Error{"the device tells no Xid errors"};
  return supported & (k_xid_event | k_recovery_action_event);
}

Result<std::optional<Event>> EventSession::wait(std::chrono::milliseconds timeout) const {
  EventData data{};
  // What 0 would mean is told differently by different pages.
  const auto milliseconds = std::max<std::chrono::milliseconds::rep>(timeout.count(), 1);
  const auto code =
      library_->call(library_->event_wait, set_, &data, static_cast<unsigned>(milliseconds));
  if (code == k_timeout) return std::optional<Event>{};
  if (code != k_success) return Error{library_->describe(library_->event_wait.symbol, code)};
  if (data.type != k_xid_event && data.type != k_recovery_action_event) {
    return std::optional<Event>{};
  }
  Event event{.gpu = gpu_of(data.device)};
  if (event.gpu.empty()) return std::optional<Event>{};
  if (data.type == k_xid_event) event.xid = xid_of(data);
  return std::optional<Event>{std::move(event)};
}

std::string EventSession::gpu_of(Handle handle) const {
  for (const auto& [gpu, known] : gpus_) {
    if (known == handle) return gpu;
  }
  auto uuid = uuid_of(*library_, handle);
  return gpus_.contains(uuid) ? uuid : std::string();
}

XidSeen EventSession::xid_of(const EventData& data) const {
  return {.number = static_cast<unsigned>(data.data),
          .gpu_instance = instance_of(data.gpu_instance),
          .compute_instance = instance_of(data.compute_instance),
          .mig_uuid = mig_device(data),
          .time = std::chrono::system_clock::now()};
}

// Empty where it is none, or may be one of several.
std::string EventSession::mig_device(const EventData& data) const {
  unsigned count = 0;
  if (data.gpu_instance == k_no_instance ||
      library_->call(library_->mig_count, data.device, &count) != k_success) {
    return {};
  }
  std::string found;
  for (unsigned index = 0; index < std::min(count, k_max_mig_devices); ++index) {
    Handle device = nullptr;
    if (library_->call(library_->mig_by_index, data.device, index, &device) != k_success ||
        !is_instance(*library_, library_->gpu_instance, device, data.gpu_instance) ||
        !is_instance(*library_, library_->compute_instance, device, data.compute_instance)) {
      continue;
    }
    if (!found.empty()) return {};
    found = uuid_of(*library_, device);
  }
  return found;
}

std::optional<unsigned> EventSession::action(const std::string& gpu) const {
  const auto found = gpus_.find(gpu);
  if (found == gpus_.end()) return std::nullopt;
  FieldValue value{};
  value.field = k_recovery_action_field;
  if (library_->call(library_->fields, found->second, 1, &value) != k_success ||
      value.code != k_success || value.value_type != k_value_unsigned_int) {
    return std::nullopt;
  }
  unsigned action = 0;
  std::memcpy(&action, &value.value, sizeof action);
  return action;
}

}  // namespace mps::device::nvml
