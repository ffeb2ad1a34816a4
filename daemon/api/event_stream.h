// The events of a log as lines of JSON, from an id on and then as they come. It keeps no queue of
// its own: it is a place in the log's ring, so a reader that falls behind costs nothing, and one
// that falls out of the ring is told what it missed and goes on.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "api/event_log.h"
#include "api/http.h"

namespace mps::api {

struct EventFilter {
  std::string kind;      // empty: all
  std::string instance;  // empty: all

  [[nodiscard]] bool passes(const Event& event) const;
};

// The place in `log`'s ring of the first event behind `id`.
std::deque<Event>::const_iterator first_after(const EventLog& log, std::uint64_t id);

// `since` if `log` has come so far; else 0: it is of another journal, whose ids went further.
std::uint64_t known_place(const EventLog& log, std::uint64_t since);

class EventStream : public LineSource {
 public:
  // Begins behind `since`. `log` must outlive the stream.
  EventStream(EventLog& log, EventFilter filter, std::uint64_t since);
  ~EventStream() override;
  EventStream(const EventStream&) = delete;
  EventStream& operator=(const EventStream&) = delete;

  std::string take(std::size_t limit) override;
  [[nodiscard]] bool ended() const override { return false; }
  void on_more(std::function<void()> wake) override { wake_ = std::move(wake); }

 private:
  std::string missed_line();

  EventLog& log_;
  EventFilter filter_;
  std::uint64_t last_;
  std::uint64_t subscription_ = 0;
  bool started_ = false;
  std::string notice_;  // to be said first
  std::function<void()> wake_;
};

}  // namespace mps::api
