#include "api/event_log.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <utility>
#include <variant>
#include <vector>

#include "api/journal_file.h"
#include "api/journal_record.h"

namespace mps::api {

namespace {

constexpr std::size_t k_waiting_limit = 4 * 1024 * 1024;  // bytes that wait for room on the disk

struct Waiting {
  Event key;  // id, instance and position only: what a checkpoint is made of
  std::string line;
};

Event key_of(const Event& event) {
  Event key;
  key.id = event.id;
  key.instance = event.instance;
  key.position = event.position;
  return key;
}

// What the lines of a journal add up to.
struct Recovered {
  explicit Recovered(std::size_t ring_limit) : limit(ring_limit) {}

  void line(std::string_view text) {
    const auto record = decode(text);
    if (!record) {
      ++skipped;
    } else if (const auto* checkpoint = std::get_if<Checkpoint>(&*record)) {
      state.last_id = std::max(state.last_id, checkpoint->last_id);
      for (const auto& [name, position] : checkpoint->positions) state.positions[name] = position;
    } else {
      event(std::get<Event>(*record));
    }
  }

  void event(const Event& event) {
    if (event.id <= state.last_id) {
      ++skipped;
      return;
    }
    state.note(event);
    ring.push_back(event);
    if (ring.size() > limit) ring.pop_front();
  }

  std::size_t limit;
  Checkpoint state;
  std::deque<Event> ring;
  std::uint64_t skipped = 0;
};

}  // namespace

struct EventLog::Impl {
  Impl(EventLogSettings settings_in, JournalFile file_in, Recovered recovered)
      : settings(std::move(settings_in)),
        file(std::move(file_in)),
        ring(std::move(recovered.ring)),
        known(recovered.state),
        written(std::move(recovered.state)),
        skipped(recovered.skipped) {}

  void flush();
  bool write(const std::string& line);
  bool rotate();
  void not_written(const std::string& why);
  void wait_for_room(const Event& event, std::string line);
  void announce(const Event& event);

  EventLogSettings settings;
  JournalFile file;
  std::deque<Event> ring;
  Checkpoint known;    // all events
  Checkpoint written;  // those in the file: a checkpoint must not be ahead of it
  std::deque<Waiting> waiting;
  std::size_t waiting_bytes = 0;
  std::uint64_t write_errors = 0;
  std::uint64_t torn = 0;
  std::uint64_t skipped = 0;
  bool failing = false;           // to write
  bool rotation_failing = false;  // and each is said once
  std::map<std::uint64_t, Listener> listeners;
  std::uint64_t last_listener = 0;
};

bool EventLog::Impl::rotate() {
  const auto name = (settings.directory / "journal.jsonl").string();
  if (file.rotate(encode(written))) {
    if (rotation_failing) spdlog::info("{} is rotated again", name);
    rotation_failing = false;
    return true;
  }
  ++write_errors;
  if (!rotation_failing) {
    spdlog::error("{}; it grows to twice its limit until it can be rotated",
                  Error::from_errno("rotate " + name, file.error()).message);
  }
  rotation_failing = true;
  return false;
}

void EventLog::Impl::not_written(const std::string& why) {
  ++write_errors;
  if (!failing) spdlog::error("{}; events are kept in memory until it can be written", why);
  failing = true;
}

bool EventLog::Impl::write(const std::string& line) {
  const auto name = (settings.directory / "journal.jsonl").string();
  const bool too_long = file.size() >= settings.file_limit && !rotate();
  if (too_long && file.size() / 2 >= settings.file_limit) {
    not_written(name + " has twice its limit");
    return false;
  }
  if (file.append(line)) {
    if (failing) spdlog::info("the journal in {} is written again", settings.directory.string());
    failing = false;
    return true;
  }
  not_written(Error::from_errno("write " + name, file.error()).message);
  return false;
}

void EventLog::Impl::flush() {
  while (!waiting.empty() && write(waiting.front().line)) {
    written.note(waiting.front().key);
    waiting_bytes -= waiting.front().line.size();
    waiting.pop_front();
  }
}

void EventLog::Impl::wait_for_room(const Event& event, std::string line) {
  waiting_bytes += line.size();
  waiting.push_back({key_of(event), std::move(line)});
  while (waiting_bytes > k_waiting_limit) {
    waiting_bytes -= waiting.front().line.size();
    waiting.pop_front();
  }
}

void EventLog::Impl::announce(const Event& event) {
  // By id, since a listener may end itself or another.
  std::vector<std::uint64_t> ids;
  std::transform(listeners.begin(), listeners.end(), std::back_inserter(ids),
                 [](const auto& entry) { return entry.first; });
  for (const auto id : ids) {
    if (const auto found = listeners.find(id); found != listeners.end()) {
      const auto listener = found->second;
      listener(event);
    }
  }
}

std::string text_in(const Event& event, const char* key) {
  const auto found = event.data.find(key);
  return found != event.data.end() && found->is_string() ? found->get<std::string>() : "";
}

EventLog::EventLog(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
EventLog::~EventLog() {
  impl_->flush();
}

Result<std::unique_ptr<EventLog>> EventLog::open(EventLogSettings settings) {
  settings.ring = std::max<std::size_t>(settings.ring, 1);
  Recovered recovered(settings.ring);
  auto opened = JournalFile::open(settings.directory,
                                  [&recovered](std::string_view line) { recovered.line(line); });
  if (!opened) return opened.error();
  const auto torn = opened->torn_lines;
  recovered.skipped += opened->oversized_lines;
  auto impl =
      std::make_unique<Impl>(std::move(settings), std::move(opened->file), std::move(recovered));
  impl->torn = torn;
  // Also shows, while somebody looks, whether the disk takes anything at all.
  if (impl->file.size() == 0 && !impl->file.append(encode(impl->written))) {
    return Error::from_errno("write " + (impl->settings.directory / "journal.jsonl").string(),
                             impl->file.error());
  }
  return std::unique_ptr<EventLog>(new EventLog(std::move(impl)));
}

const Event& EventLog::append(Event event) {
  auto& impl = *impl_;
  event.id = impl.known.last_id + 1;
  if (event.time == decltype(event.time){}) event.time = std::chrono::system_clock::now();
  event.time = std::chrono::floor<std::chrono::milliseconds>(event.time);
  bound(event);
  impl.known.note(event);
  impl.wait_for_room(event, encode(event));
  impl.flush();
  impl.ring.push_back(std::move(event));
  if (impl.ring.size() > impl.settings.ring) impl.ring.pop_front();
  impl.announce(impl.ring.back());
  return impl.ring.back();
}

const std::deque<Event>& EventLog::ring() const {
  return impl_->ring;
}
std::uint64_t EventLog::last_id() const {
  return impl_->known.last_id;
}
std::uint64_t EventLog::write_errors() const {
  return impl_->write_errors;
}
std::uint64_t EventLog::torn_lines() const {
  return impl_->torn;
}
std::uint64_t EventLog::skipped_lines() const {
  return impl_->skipped;
}

std::optional<std::uint64_t> EventLog::position(const std::string& instance,
                                                const std::string& log) const {
  const auto found = impl_->known.positions.find(instance);
  if (found == impl_->known.positions.end() || found->second.log != log) return std::nullopt;
  return found->second.end_offset;
}

std::uint64_t EventLog::subscribe(Listener listener) {
  const auto id = ++impl_->last_listener;
  impl_->listeners.emplace(id, std::move(listener));
  return id;
}

void EventLog::unsubscribe(std::uint64_t id) {
  impl_->listeners.erase(id);
}

}  // namespace mps::api
