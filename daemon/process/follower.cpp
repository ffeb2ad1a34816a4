#include "process/follower.h"

#include <sys/inotify.h>
#include <unistd.h>

#include <array>
#include <boost/asio/error.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "process/followed_file.h"

namespace mps::process {

namespace asio = boost::asio;

namespace {

// What one file may take of a reactor turn: a flood in one must not hold up the others.
constexpr std::size_t k_reads_per_turn = 8;
// Of a drain, which does not go back to the reactor: 64 MiB, far more than is ever left behind.
constexpr std::size_t k_reads_per_drain = 1024;

struct Entry {
  Entry(UniqueFd descriptor, std::uint64_t offset) : file(std::move(descriptor), offset) {}

  FollowedFile file;
  Follower::Id id = 0;
  int watch = -1;
  Follower::Callback on_lines;
  Follower::OnError on_error;
  bool reading = false;    // a callback of it may be running
  bool scheduled = false;  // a turn of it is posted
  bool gone = false;
};

class Reading {
 public:
  explicit Reading(Entry& entry) : entry_(entry) { entry_.reading = true; }
  Reading(const Reading&) = delete;
  Reading& operator=(const Reading&) = delete;
  ~Reading() { entry_.reading = false; }

 private:
  Entry& entry_;
};

// Shared, so that handlers still queued when the Follower goes find out and do nothing.
class Core : public std::enable_shared_from_this<Core> {
 public:
  explicit Core(const asio::any_io_executor& executor) : inotify_(executor) {}

  Result<void> open();
  Result<Follower::Id> add(UniqueFd file, std::uint64_t offset, Follower::Callback on_lines,
                           Follower::OnError on_error);
  void remove(Follower::Id id);
  void drain(Follower::Id id);
  [[nodiscard]] FollowCounters counters(Follower::Id id) const;
  void close();

 private:
  using EntryPtr = std::shared_ptr<Entry>;

  void await_events();
  void on_events(const boost::system::error_code& error);
  void wake(const std::set<int>& watches, bool all);
  void schedule(const EntryPtr& entry);
  bool read(const EntryPtr& entry, std::size_t reads);
  Result<bool> read_once(Entry& entry, std::span<char> buffer, std::vector<FollowedLine>& lines);
  void fail(const EntryPtr& entry, const Error& error);
  void fail_all(const Error& error);

  asio::posix::stream_descriptor inotify_;
  std::map<Follower::Id, EntryPtr> entries_;
  Follower::Id last_id_ = 0;
  std::vector<char> spare_buffer_;  // kept from one turn to the next
};

Result<void> Core::open() {
  UniqueFd descriptor(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  if (!descriptor) return Error::from_errno("inotify_init1 (fs.inotify.max_user_instances)", errno);
  boost::system::error_code error;
  inotify_.assign(descriptor.get(), error);
  if (error) return Error::from_errno("watch inotify", error.value());
  static_cast<void>(descriptor.release());
  await_events();
  return {};
}

Result<Follower::Id> Core::add(UniqueFd file, std::uint64_t offset, Follower::Callback on_lines,
                               Follower::OnError on_error) {
  // By way of /proc it is the open file that is watched, whatever its name is by now.
  const auto path = "/proc/self/fd/" + std::to_string(file.get());
  const int watch = ::inotify_add_watch(inotify_.native_handle(), path.c_str(), IN_MODIFY);
  if (watch < 0) {
    const auto* what =
        errno == ENOSPC ? "follow a file (fs.inotify.max_user_watches)" : "follow a file";
    return Error::from_errno(what, errno);
  }
  auto entry = std::make_shared<Entry>(std::move(file), offset);
  entry->id = ++last_id_;
  entry->watch = watch;
  entry->on_lines = std::move(on_lines);
  entry->on_error = std::move(on_error);
  entries_.emplace(entry->id, entry);
  schedule(entry);
  return entry->id;
}

void Core::remove(Follower::Id id) {
  const auto found = entries_.find(id);
  if (found == entries_.end()) return;
  const auto entry = found->second;
  entry->gone = true;
  entries_.erase(found);
  // Whoever follows the same file has the same watch.
  for (const auto& [other, rest] : entries_) {
    if (rest->watch == entry->watch) return;
  }
  ::inotify_rm_watch(inotify_.native_handle(), entry->watch);
}

void Core::drain(Follower::Id id) {
  const auto found = entries_.find(id);
  if (found == entries_.end()) return;
  const auto entry = found->second;
  if (!entry->reading && read(entry, k_reads_per_drain)) schedule(entry);
}

FollowCounters Core::counters(Follower::Id id) const {
  const auto found = entries_.find(id);
  return found == entries_.end() ? FollowCounters{} : found->second->file.counters();
}

void Core::close() {
  for (const auto& [id, entry] : entries_) entry->gone = true;
  entries_.clear();
  boost::system::error_code ignored;
  inotify_.close(ignored);
}

void Core::await_events() {
  inotify_.async_wait(asio::posix::stream_descriptor::wait_read,
                      [weak = weak_from_this()](const boost::system::error_code& error) {
                        if (const auto core = weak.lock()) core->on_events(error);
                      });
}

void Core::on_events(const boost::system::error_code& error) {
  if (error == asio::error::operation_aborted || !inotify_.is_open()) return;
  if (error) return fail_all(Error::from_errno("watch inotify", error.value()));
  alignas(inotify_event) std::array<char, 16384> buffer{};
  const auto got = ::read(inotify_.native_handle(), buffer.data(), buffer.size());
  if (got < 0 && errno != EAGAIN && errno != EINTR) {
    return fail_all(Error::from_errno("read inotify", errno));
  }
  std::set<int> watches;
  bool all = false;
  const auto end = got < 0 ? 0 : static_cast<std::size_t>(got);
  for (std::size_t at = 0; at + sizeof(inotify_event) <= end;) {
    inotify_event event{};
    std::memcpy(&event, buffer.data() + at, sizeof(event));
    if ((event.mask & IN_Q_OVERFLOW) != 0) all = true;
    watches.insert(event.wd);
    at += sizeof(event) + event.len;
  }
  wake(watches, all);
  await_events();
}

void Core::wake(const std::set<int>& watches, bool all) {
  for (const auto& [id, entry] : entries_) {
    if (all || watches.contains(entry->watch)) schedule(entry);
  }
}

void Core::schedule(const EntryPtr& entry) {
  if (std::exchange(entry->scheduled, true)) return;
  asio::post(inotify_.get_executor(), [weak = weak_from_this(), entry] {
    const auto core = weak.lock();
    entry->scheduled = false;
    if (core && core->read(entry, k_reads_per_turn)) core->schedule(entry);
  });
}

// True if it stopped for having had its share, not for having reached the end.
bool Core::read(const EntryPtr& entry, std::size_t reads) {
  const Reading guard(*entry);
  // Callbacks may drain another file: each round has a buffer of its own.
  auto buffer = std::exchange(spare_buffer_, {});
  buffer.resize(LineCursor::k_read_size);
  std::vector<FollowedLine> lines;
  lines.reserve(LineCursor::k_batch);
  bool more = true;
  for (std::size_t i = 0; i < reads && more && !entry->gone; ++i) {
    const auto result = read_once(*entry, buffer, lines);
    more = result && *result;
    if (!result) fail(entry, result.error());
  }
  spare_buffer_ = std::move(buffer);
  return more && !entry->gone;
}

Result<bool> Core::read_once(Entry& entry, std::span<char> buffer,
                             std::vector<FollowedLine>& lines) {
  lines.clear();
  auto more = entry.file.read(buffer, lines);
  if (lines.empty()) return more;
  entry.on_lines(lines);
  entry.file.consume(lines);
  return more;
}

void Core::fail(const EntryPtr& entry, const Error& error) {
  remove(entry->id);
  if (entry->on_error) entry->on_error(error);
}

void Core::fail_all(const Error& error) {
  const auto entries = entries_;
  for (const auto& [id, entry] : entries) {
    if (!entry->gone) fail(entry, error);
  }
}

class InotifyFollower final : public Follower {
 public:
  explicit InotifyFollower(std::shared_ptr<Core> core) : core_(std::move(core)) {}
  InotifyFollower(const InotifyFollower&) = delete;
  InotifyFollower& operator=(const InotifyFollower&) = delete;
  ~InotifyFollower() override { core_->close(); }

  Result<Id> follow(UniqueFd file, std::uint64_t offset, Callback on_lines,
                    OnError on_error) override {
    return core_->add(std::move(file), offset, std::move(on_lines), std::move(on_error));
  }
  void unfollow(Id id) override { core_->remove(id); }
  void drain(Id id) override { core_->drain(id); }
  [[nodiscard]] FollowCounters counters(Id id) const override { return core_->counters(id); }

 private:
  std::shared_ptr<Core> core_;
};

}  // namespace

Result<std::unique_ptr<Follower>> Follower::create(const asio::any_io_executor& executor) {
  auto core = std::make_shared<Core>(executor);
  if (auto opened = core->open(); !opened) return opened.error();
  return std::unique_ptr<Follower>(std::make_unique<InotifyFollower>(std::move(core)));
}

}  // namespace mps::process
