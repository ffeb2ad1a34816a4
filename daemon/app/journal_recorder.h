// The instances' view of the journal: records their events, and recalls from it what a new
// supervisor must know of the time before it.
#pragma once

#include <deque>
#include <functional>
#include <optional>
#include <string>

#include "api/event_log.h"
#include "instance/recorder.h"

namespace mps::app {

// Pure: what these events (in order) leave of an instance: its daemon, clients that have not gone,
// and whether the server's start was failing.
instance::Remembered recall(const std::deque<api::Event>& events, const std::string& instance);

class JournalRecorder : public instance::Recorder {
 public:
  explicit JournalRecorder(api::EventLog& log) : log_(log) {}

  // Told of each event. Of one that may begin an incident before it is recorded, and with it how
  // far the log was read: should we be killed in between, it is read again, and recognized; the
  // other way round the incident would be lost. Of the others behind it: that a fault is over is
  // what a new supervisor must know first.
  using Listener = std::function<void(const std::string& instance, const instance::Emit& event)>;
  void on_event(Listener listener) { listener_ = std::move(listener); }

  void record(const std::string& instance, const instance::Emit& event,
              const std::optional<instance::ReadPosition>& position) override;
  [[nodiscard]] std::optional<std::uint64_t> position(const std::string& instance,
                                                      const std::string& log) const override;
  [[nodiscard]] instance::Remembered remember(const std::string& instance) const override;

 private:
  api::EventLog& log_;
  Listener listener_;
};

}  // namespace mps::app
