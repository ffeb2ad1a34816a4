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
#include <utility>

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

// Only handlers share it with its owner, weakly, so that those still queued when the owner goes
// find out and do nothing.
class Core : public std::enable_shared_from_this<Core> {
 public:
  Core(const asio::any_io_executor& executor, std::filesystem::path path,
       DirectoryWatch::Callback callback, const DirectoryWatchSettings& settings)
      : path_(std::move(path)),
        callback_(std::move(callback)),
        settings_(settings),
        inotify_(executor),
        timer_(executor) {}

  void start();
  [[nodiscard]] const std::string& trouble() const { return trouble_; }

 private:
  struct Noticed {
    bool change = false;
    bool other_directory = false;  // perhaps: look at once
  };

  bool look();
  void take_up();
  bool open_inotify();
  void drop_watch();
  void fail(std::string_view call, int error_number);
  void await_tick();
  void on_tick();
  void await_events();
  void on_events(const boost::system::error_code& error);
  Noticed read_events();
  void take(const inotify_event& event, const char* name, Noticed& noticed);
  void call();

  std::filesystem::path path_;
  DirectoryWatch::Callback callback_;
  DirectoryWatchSettings settings_;
  asio::posix::stream_descriptor inotify_;
  asio::steady_timer timer_;
  std::optional<Identity> seen_;  // what the path was when looked at last
  int watch_ = -1;
  bool unfinished_ = false;  // a file was made whose close has not been seen
  Clock::time_point last_call_ = Clock::now();
  std::string trouble_;
};

void Core::start() {
  look();
  await_tick();
}

// True where the contents may be others than before, for all that is known here.
bool Core::look() {
  const auto found = identify(path_);
  const bool replaced = found != seen_;
  if (replaced) drop_watch();
  seen_ = found;
  if (!found) trouble_.clear();
  if (!found || watch_ >= 0) return replaced;
  take_up();
  return true;
}

void Core::take_up() {
  trouble_.clear();
  if (!open_inotify()) return;
  const UniqueFd directory(::open(path_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  struct stat status {};
  if (!directory || ::fstat(directory.get(), &status) != 0) {
    if (errno != ENOENT && errno != ENOTDIR) fail("open", errno);
    return;
  }
  // By way of /proc what is watched is what was identified, whatever the path is by now.
  seen_ = identity_of(status);
  const auto path = "/proc/self/fd/" + std::to_string(directory.get());
  watch_ = ::inotify_add_watch(inotify_.native_handle(), path.c_str(), k_events | IN_ONLYDIR);
  if (watch_ < 0) fail("inotify_add_watch", errno);
}

bool Core::open_inotify() {
  if (inotify_.is_open()) return true;
  UniqueFd descriptor(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  if (!descriptor) {
    fail("inotify_init1", errno);
    return false;
  }
  boost::system::error_code error;
  inotify_.assign(descriptor.get(), error);
  if (error) {
    fail("watch inotify", error.value());
    return false;
  }
  static_cast<void>(descriptor.release());
  await_events();
  return true;
}

void Core::drop_watch() {
  if (watch_ >= 0) ::inotify_rm_watch(inotify_.native_handle(), watch_);
  watch_ = -1;
}

void Core::fail(std::string_view call, int error_number) {
  trouble_ = describe_watch_trouble(path_, settings_.poll, call, error_number);
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
  const bool changed = look();
  const bool due = Clock::now() - last_call_ >= settings_.refresh;
  if (changed || unfinished_ || due) call();
}

void Core::await_events() {
  inotify_.async_wait(asio::posix::stream_descriptor::wait_read,
                      [weak = weak_from_this()](const boost::system::error_code& error) {
                        if (const auto core = weak.lock()) core->on_events(error);
                      });
}

void Core::on_events(const boost::system::error_code& error) {
  if (error == asio::error::operation_aborted || !inotify_.is_open()) return;
  const auto noticed = read_events();
  if (inotify_.is_open()) await_events();
  const bool replaced = noticed.other_directory && look();
  if (noticed.change || replaced) call();
}

Core::Noticed Core::read_events() {
  Noticed noticed;
  alignas(inotify_event) std::array<char, k_buffer_size> buffer{};
  for (std::size_t i = 0; i < k_reads_per_turn; ++i) {
    const auto got = ::read(inotify_.native_handle(), buffer.data(), buffer.size());
    if (got < 0 && errno != EAGAIN && errno != EINTR) {
      // Never seen. A new instance is made, at the latest at the next poll.
      boost::system::error_code ignored;
      inotify_.close(ignored);
      watch_ = -1;
      return {.change = true, .other_directory = true};
    }
    if (got <= 0) break;
    const auto end = static_cast<std::size_t>(got);
    for (std::size_t at = 0; at + sizeof(inotify_event) <= end;) {
      inotify_event event{};
      std::memcpy(&event, buffer.data() + at, sizeof(event));
      at += sizeof(event);
      take(event, event.len > 0 ? buffer.data() + at : "", noticed);
      at += event.len;
    }
  }
  return noticed;
}

void Core::take(const inotify_event& event, const char* name, Noticed& noticed) {
  if ((event.mask & IN_Q_OVERFLOW) != 0) {
    noticed = {.change = true, .other_directory = true};
    drop_watch();  // that its directory is gone may be among what was lost
  }
  if (event.wd != watch_ || watch_ < 0) return;  // of a directory that we have left
  if ((event.mask & k_directory_events) != 0) noticed.other_directory = true;
  if ((event.mask & IN_IGNORED) != 0) {
    // The directory is gone, and another may have got its number.
    watch_ = -1;
    noticed.other_directory = true;
  }
  if (noticed.change) return;
  if ((event.mask & IN_CREATE) != 0 && is_being_written(path_ / name)) {
    unfinished_ = true;
  } else {
    noticed.change = true;
  }
}

// The last thing that a handler does: the callback may destroy the DirectoryWatch.
void Core::call() {
  unfinished_ = false;
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
