// A session of NVML with an event set: which GPUs tell their errors, and the next error. Blocks as
// NVML does: only for the listening thread.
#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "base/result.h"
#include "device/error_source.h"
#include "device/nvml_library.h"

namespace mps::device::nvml {

struct Event {
  std::string gpu{};
  std::optional<XidSeen> xid{};  // none: the recovery action has changed
};

class EventSession {
 public:
  static Result<EventSession> open(Library& library, const std::string& name);
  EventSession(EventSession&& other) noexcept;
  EventSession& operator=(EventSession&&) = delete;
  EventSession(const EventSession&) = delete;
  EventSession& operator=(const EventSession&) = delete;
  ~EventSession();

  // An Error where this GPU tells no errors, and why. A GPU is added once, and stays.
  Result<void> add(const std::string& gpu);
  [[nodiscard]] const std::map<std::string, Handle>& gpus() const { return gpus_; }

  // nullopt: nothing came, or nothing that is ours. An Error: this session is of no more use.
  Result<std::optional<Event>> wait(std::chrono::milliseconds timeout) const;
  // nullopt: this driver does not tell, or not now.
  [[nodiscard]] std::optional<unsigned> action(const std::string& gpu) const;

 private:
  EventSession(Library& library, Session session, EventSet set)
      : library_(&library), session_(std::move(session)), set_(set) {}
  [[nodiscard]] Result<unsigned long long> types_of(Handle handle) const;
  [[nodiscard]] std::string gpu_of(Handle handle) const;
  [[nodiscard]] XidSeen xid_of(const EventData& data) const;
  [[nodiscard]] std::string mig_device(const EventData& data) const;

  Library* library_;
  Session session_;  // goes after the set
  EventSet set_;     // null where moved from
  std::map<std::string, Handle> gpus_;
};

}  // namespace mps::device::nvml
