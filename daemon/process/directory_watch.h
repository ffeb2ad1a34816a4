// Notices that the contents of one directory may have changed, by whatever way it was done: files
// written in place, renamed over, removed, made readable; a ConfigMap's `..data` link switched; the
// directory itself missing, made, moved away, replaced, or a link that was switched.
//
// inotify tells at once. A poll runs besides it: a stat of the path, which takes the watch up again
// on another directory, and a call now and then for file systems where inotify says nothing (NFS,
// some of FUSE). Without inotify (its instances or watches are used up) the poll is all there is.
//
// Threading: on the executor given, one thread. Looking at the path may hang (a file system of a
// network): it can be done elsewhere.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace mps::process {

struct DirectoryWatchSettings {
  using Then = std::function<void()>;
  using Job = std::function<Then()>;

  // Looks every so often whether the path is another directory by now.
  std::chrono::milliseconds poll = std::chrono::seconds(1);
  // Calls at least so often, whether anything was noticed or not; at a poll, so never more often.
  std::chrono::milliseconds refresh = std::chrono::seconds(60);
  // Whether a change of this name in the directory matters. Empty: all do.
  std::function<bool(std::string_view)> concerns = {};
  // Runs a job where it may hang, then what it returns on the executor (or never, in the end). One
  // at a time. Empty: both at once, in place.
  std::function<void(Job)> elsewhere = {};
};

class DirectoryWatch {
 public:
  // The first change calls at once, many that are noticed together call once. It means "read it
  // again": nothing may have changed after all, or the directory may be missing. A file that is
  // being written calls when it is closed, not before (a new one that stays open: at the next
  // poll). It may destroy the DirectoryWatch.
  using Callback = std::function<void()>;

  // Cannot fail: see trouble(). Does not call from inside, nor for what is there already, so read
  // the directory after this (where jobs run elsewhere: after the first) and nothing is missed.
  static std::unique_ptr<DirectoryWatch> create(const boost::asio::any_io_executor& executor,
                                                std::filesystem::path path, Callback callback,
                                                const DirectoryWatchSettings& settings = {});
  virtual ~DirectoryWatch() = default;

  // Why inotify does not work and what to do, empty where it does or where there is no directory.
  // As long as there is one, every poll calls back.
  [[nodiscard]] virtual std::string trouble() const = 0;
};

// Pure: the sentence for a call that failed.
std::string describe_watch_trouble(const std::filesystem::path& path,
                                   std::chrono::milliseconds poll, std::string_view call,
                                   int error_number);

}  // namespace mps::process
