#include "process/directory_watch.h"

#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <boost/asio/error.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/system/error_code.hpp>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/text.h"
#include "base/unique_fd.h"

namespace mps::process {

namespace asio = boost::asio;
using Clock = std::chrono::steady_clock;

namespace {

// Not IN_MODIFY: a file that is being written is none of our business until it is closed.
constexpr std::uint32_t k_events = IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE |
                                   IN_CREATE | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF;
constexpr std::uint32_t k_directory_events = IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT;
constexpr std::size_t k_buffer_size = 16384;
// Of a turn of the reactor: some 2,700 events, the rest comes in the next one.
constexpr std::size_t k_reads_per_turn = 8;
constexpr std::size_t k_made =
    4096;  // files that were made and not looked at; with more, any change

// Which directory it is. While it is watched or open its number goes to no other.
struct Identity {
  dev_t device = 0;
  ino_t inode = 0;
  bool operator==(const Identity&) const = default;
};

std::optional<Identity> identity_of(const struct stat& status) {
  if (!S_ISDIR(status.st_mode)) return std::nullopt;
  return Identity{.device = status.st_dev, .inode = status.st_ino};
}

std::optional<Identity> identify(const std::filesystem::path& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return std::nullopt;
  return identity_of(status);
}

// A file that was just made by opening it: its close will tell. What was made whole (a link, a
// directory) will not be told of again.
bool is_being_written(const std::filesystem::path& path) {
  struct stat status {};
  return ::lstat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode) && status.st_nlink == 1;
}

using SharedFd = std::shared_ptr<const UniqueFd>;

// One look at the path, which may hang: what is known before it, and what it found.
struct Look {
  std::filesystem::path path;
  std::chrono::milliseconds poll{};
  std::optional<Identity> seen;  // what the path was when looked at last, and then what it is
  int watch = -1;                // of that
  SharedFd inotify;
  std::vector<std::string> made;  // names of which only that they were made is known
  std::uint64_t calls = 0;        // that there had been

  bool replaced = false;
  bool taken_up = false;  // with a new watch, or a trouble why there is none
  std::string trouble;
  bool made_whole = false;
  bool being_written = false;
};

void fail(Look& look, std::string_view call, int error_number) {
  look.trouble = describe_watch_trouble(look.path, look.poll, call, error_number);
}

void take_up(Look& look) {
  look.taken_up = true;
  if (!look.inotify) {
    UniqueFd made(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    if (!made) return fail(look, "inotify_init1", errno);
    look.inotify = std::make_shared<const UniqueFd>(std::move(made));
  }
  const UniqueFd directory(::open(look.path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  struct stat status {};
  if (!directory || ::fstat(directory.get(), &status) != 0) {
    if (errno != ENOENT && errno != ENOTDIR) fail(look, "open", errno);
    return;
  }
  // By way of /proc what is watched is what was identified, whatever the path is by now.
  look.seen = identity_of(status);
  const auto path = "/proc/self/fd/" + std::to_string(directory.get());
  look.watch = ::inotify_add_watch(look.inotify->get(), path.c_str(), k_events | IN_ONLYDIR);
  if (look.watch < 0) fail(look, "inotify_add_watch", errno);
}

void find_out(Look& look) {
  const auto found = identify(look.path);
  look.replaced = found != look.seen;
  if (look.replaced && look.watch >= 0) {
    ::inotify_rm_watch(look.inotify->get(), look.watch);
    look.watch = -1;
  }
  look.seen = found;
  if (found && look.watch < 0) take_up(look);
  for (const auto& name : look.made) {
    (is_being_written(look.path / name) ? look.being_written : look.made_whole) = true;
  }
}

// Only handlers share it with its owner, weakly, so that those still queued when the owner goes
// find out and do nothing.
class Core : public std::enable_shared_from_this<Core> {
 public:
  Core(const asio::any_io_executor& executor, std::filesystem::path path,
       DirectoryWatch::Callback callback, DirectoryWatchSettings settings)
      : path_(std::move(path)),
        callback_(std::move(callback)),
        settings_(std::move(settings)),
        inotify_(executor),
        timer_(executor) {}

  void start();
  [[nodiscard]] const std::string& trouble() const { return trouble_; }

 private:
  void look();
  void take(const Look& look);
  void take_inotify(const SharedFd& inotify);
  void drop_watch();
  void await_tick();
  void on_tick();
  void await_events();
  void on_events(const boost::system::error_code& error);
  void read_events();
  void take(const inotify_event& event, const char* name);
  void call();

  std::filesystem::path path_;
  DirectoryWatch::Callback callback_;
  DirectoryWatchSettings settings_;
  SharedFd shared_;                         // the inotify instance, for looking elsewhere
  asio::posix::stream_descriptor inotify_;  // the same one
  asio::steady_timer timer_;
  std::optional<Identity> seen_;  // what the path was when looked at last
  int watch_ = -1;
  int lost_watch_ = -1;  // its directory was gone before its look had come back

  // What was noticed and is not dealt with:
  bool change_ = false;
  bool other_directory_ = false;  // perhaps: look at once
  std::vector<std::string> made_;
  bool ticked_ = false;

  bool started_ = false;
  bool looking_ = false;
  bool unfinished_ = false;  // a file was made whose close has not been seen
  std::uint64_t calls_ = 0;
  Clock::time_point last_call_ = Clock::now();
  std::string trouble_;
};

void Core::start() {
  look();
  await_tick();
}

// One at a time. What comes meanwhile is looked at after it.
void Core::look() {
  if (std::exchange(looking_, true)) return;
  other_directory_ = false;
  auto look = std::make_shared<Look>();
  look->path = path_;
  look->poll = settings_.poll;
  look->seen = seen_;
  look->watch = watch_;
  look->inotify = shared_;
  look->made = std::exchange(made_, {});
  look->calls = calls_;
  auto job = [look, weak = weak_from_this()]() -> DirectoryWatchSettings::Then {
    find_out(*look);
    return [look, weak] {
      if (const auto core = weak.lock()) core->take(*look);
    };
  };
  if (settings_.elsewhere) {
    settings_.elsewhere(std::move(job));
  } else {
    job()();
  }
}

void Core::take(const Look& look) {
  looking_ = false;
  seen_ = look.seen;
  if (look.replaced || look.taken_up) {
    watch_ = look.watch == lost_watch_ ? -1 : look.watch;
    trouble_ = look.trouble;
  }
  lost_watch_ = -1;
  if (look.taken_up && look.inotify != shared_) take_inotify(look.inotify);
  // What was made before a call is among what was read after it.
  if (look.being_written && look.calls == calls_) unfinished_ = true;
  bool calling = std::exchange(change_, false) || look.made_whole;
  // The first look is no change: nothing has been read yet.
  if (std::exchange(started_, true)) calling |= look.replaced || look.taken_up;
  if (std::exchange(ticked_, false)) {
    calling |= unfinished_ || Clock::now() - last_call_ >= settings_.refresh;
  }
  if (calling) made_.clear();
  if (other_directory_ || !made_.empty()) this->look();
  if (calling) call();
}

void Core::take_inotify(const SharedFd& inotify) {
  UniqueFd own(::fcntl(inotify->get(), F_DUPFD_CLOEXEC, 0));
  boost::system::error_code error;
  if (own) {
    inotify_.assign(own.get(), error);
  } else {
    error.assign(errno, boost::system::system_category());
  }
  if (error) {
    trouble_ = describe_watch_trouble(path_, settings_.poll, "watch inotify", error.value());
    watch_ = -1;
    return;
  }
  static_cast<void>(own.release());
  shared_ = inotify;
  await_events();
}

void Core::drop_watch() {
  if (watch_ >= 0) ::inotify_rm_watch(inotify_.native_handle(), watch_);
  watch_ = -1;
}

void Core::await_tick() {
  timer_.expires_after(settings_.poll);
  timer_.async_wait([weak = weak_from_this()](const boost::system::error_code& error) {
    const auto core = weak.lock();
    if (core && !error) core->on_tick();
  });
}

void Core::on_tick() {
  await_tick();
  ticked_ = true;
  look();
}

void Core::await_events() {
  inotify_.async_wait(asio::posix::stream_descriptor::wait_read,
                      [weak = weak_from_this()](const boost::system::error_code& error) {
                        if (const auto core = weak.lock()) core->on_events(error);
                      });
}

void Core::on_events(const boost::system::error_code& error) {
  if (error == asio::error::operation_aborted || !inotify_.is_open()) return;
  read_events();
  if (inotify_.is_open()) await_events();
  if (other_directory_ || (!change_ && !made_.empty())) {
    look();
  } else if (std::exchange(change_, false)) {
    made_.clear();
    call();
  }
}

void Core::read_events() {
  alignas(inotify_event) std::array<char, k_buffer_size> buffer{};
  for (std::size_t i = 0; i < k_reads_per_turn; ++i) {
    const auto got = ::read(inotify_.native_handle(), buffer.data(), buffer.size());
    if (got < 0 && errno != EAGAIN && errno != EINTR) {
      // Never seen. A new instance is made, at the latest at the next poll.
      boost::system::error_code ignored;
      inotify_.close(ignored);
      shared_.reset();
      watch_ = -1;
      change_ = other_directory_ = true;
      return;
    }
    if (got <= 0) break;
    const auto end = static_cast<std::size_t>(got);
    for (std::size_t at = 0; at + sizeof(inotify_event) <= end;) {
      inotify_event event{};
      std::memcpy(&event, buffer.data() + at, sizeof(event));
      at += sizeof(event);
      take(event, event.len > 0 ? buffer.data() + at : "");
      at += event.len;
    }
  }
}

void Core::take(const inotify_event& event, const char* name) {
  if ((event.mask & IN_Q_OVERFLOW) != 0) {
    change_ = other_directory_ = true;
    drop_watch();  // that its directory is gone may be among what was lost
  }
  if (event.wd != watch_ || watch_ < 0) {  // of a directory that we have left, or will watch soon
    if (looking_ && (event.mask & IN_IGNORED) != 0) lost_watch_ = event.wd;
    return;
  }
  if ((event.mask & k_directory_events) != 0) other_directory_ = true;
  if ((event.mask & IN_IGNORED) != 0) {
    // The directory is gone, and another may have got its number.
    watch_ = -1;
    other_directory_ = true;
  }
  if (event.len > 0 && settings_.concerns && !settings_.concerns(name)) return;
  if ((event.mask & IN_CREATE) == 0 || (event.mask & IN_ISDIR) != 0 || made_.size() >= k_made) {
    change_ = true;
  } else if (!change_) {
    made_.emplace_back(name);
  }
}

// The last thing that a handler does: the callback may destroy the DirectoryWatch.
void Core::call() {
  unfinished_ = false;
  ++calls_;
  last_call_ = Clock::now();
  callback_();
}

class InotifyDirectoryWatch final : public DirectoryWatch {
 public:
  explicit InotifyDirectoryWatch(std::shared_ptr<Core> core) : core_(std::move(core)) {}
  [[nodiscard]] std::string trouble() const override { return core_->trouble(); }

 private:
  std::shared_ptr<Core> core_;
};

}  // namespace

std::unique_ptr<DirectoryWatch> DirectoryWatch::create(const asio::any_io_executor& executor,
                                                       std::filesystem::path path,
                                                       Callback callback,
                                                       const DirectoryWatchSettings& settings) {
  auto core = std::make_shared<Core>(executor, std::move(path), std::move(callback), settings);
  core->start();
  return std::make_unique<InotifyDirectoryWatch>(std::move(core));
}

std::string describe_watch_trouble(const std::filesystem::path& path,
                                   std::chrono::milliseconds poll, std::string_view call,
                                   int error_number) {
  std::string advice;
  if (call == "inotify_init1" && error_number == EMFILE) {
    advice = "; raise fs.inotify.max_user_instances (or the limit of open files)";
  }
  if (call == "inotify_add_watch" && error_number == ENOSPC) {
    advice = "; raise fs.inotify.max_user_watches";
  }
  return Error::from_errno("changes in " + path.string() + " are only looked for every " +
                               format_duration(poll) + ": " + std::string(call),
                           error_number)
             .message +
         advice;
}

}  // namespace mps::process
