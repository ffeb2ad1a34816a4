#include "api/event_stream.h"

#include <algorithm>
#include <utility>

#include "api/json.h"

namespace mps::api {

namespace {

std::string notice_line(const char* kind, std::uint64_t last_id, const std::string& message,
                        std::uint64_t count = 0) {
  nlohmann::json notice{{"kind", kind}, {"lastId", last_id}, {"message", message}};
  if (count > 0) notice["count"] = count;
  return dump(notice) + "\n";
}

}  // namespace

bool EventFilter::passes(const Event& event) const {
  return (kind.empty() || kind == event.kind) && (instance.empty() || instance == event.instance);
}

std::deque<Event>::const_iterator first_after(const EventLog& log, std::uint64_t id) {
  return std::upper_bound(log.ring().begin(), log.ring().end(), id,
                          [](std::uint64_t value, const Event& event) { return value < event.id; });
}

std::uint64_t known_place(const EventLog& log, std::uint64_t since) {
  return since > log.last_id() ? 0 : since;
}

EventStream::EventStream(EventLog& log, EventFilter filter, std::uint64_t since)
    : log_(log), filter_(std::move(filter)), last_(known_place(log, since)) {
  if (last_ != since) {
    notice_ = notice_line("ids_restarted", 0,
                          "event " + std::to_string(since) +
                              " is not known: ids began anew, and all events that are kept follow");
  }
  subscription_ = log_.subscribe([this](const Event&) {
    if (wake_) wake_();
  });
}

EventStream::~EventStream() {
  log_.unsubscribe(subscription_);
}

// What fell out of the ring before it was read: not kept since the start, or overtaken by a burst.
std::string EventStream::missed_line() {
  const auto& ring = log_.ring();
  if (ring.empty() || ring.front().id <= last_ + 1) return {};
  const auto from = last_ + 1;
  last_ = ring.front().id - 1;
  const auto count = ring.front().id - from;
  const auto range = "events " + std::to_string(from) + " to " + std::to_string(last_);
  if (!started_) return notice_line("events_missed", last_, range + " are no longer kept", count);
  return notice_line("stream_lagged", last_, "read too slowly, " + range + " were missed", count);
}

std::string EventStream::take(std::size_t limit) {
  auto lines = std::exchange(notice_, {}) + missed_line();
  started_ = true;
  for (auto next = first_after(log_, last_); next != log_.ring().end() && lines.size() < limit;
       ++next) {
    last_ = next->id;
    if (filter_.passes(*next)) lines += dump(to_json(*next)) + "\n";
  }
  return lines;
}

}  // namespace mps::api
