#include "api/event_stream.h"

#include <algorithm>
#include <utility>

#include "api/json.h"

namespace mps::api {

bool EventFilter::passes(const Event& event) const {
  return (kind.empty() || kind == event.kind) && (instance.empty() || instance == event.instance);
}

std::deque<Event>::const_iterator first_after(const EventLog& log, std::uint64_t id) {
  return std::upper_bound(log.ring().begin(), log.ring().end(), id,
                          [](std::uint64_t value, const Event& event) { return value < event.id; });
}

EventStream::EventStream(EventLog& log, EventFilter filter, std::uint64_t since)
    : log_(log), filter_(std::move(filter)), last_(since) {
  subscription_ = log_.subscribe([this](const Event&) {
    if (wake_) wake_();
  });
}

EventStream::~EventStream() {
  log_.unsubscribe(subscription_);
}

// What fell out of the ring before it was read. At the start that is only told; later the reader
// has been too slow.
std::string EventStream::missed_line() {
  const auto& ring = log_.ring();
  if (ring.empty() || ring.front().id <= last_ + 1) return {};
  const auto from = std::to_string(last_ + 1);
  last_ = ring.front().id - 1;
  const auto range = "events " + from + " to " + std::to_string(last_);
  if (!started_) {
    return dump({{"kind", "events_missed"},
                 {"lastId", last_},
                 {"message", range + " are no longer kept"}}) +
           "\n";
  }
  ended_ = true;
  return dump({{"kind", "stream_lagged"},
               {"lastId", last_},
               {"message", "read too slowly, " + range + " were missed"}}) +
         "\n";
}

std::string EventStream::take(std::size_t limit) {
  if (ended_) return {};
  auto lines = missed_line();
  started_ = true;
  for (auto next = first_after(log_, last_);
       !ended_ && next != log_.ring().end() && lines.size() < limit; ++next) {
    last_ = next->id;
    if (filter_.passes(*next)) lines += dump(to_json(*next)) + "\n";
  }
  return lines;
}

}  // namespace mps::api
