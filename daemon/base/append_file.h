// A file of our own that is appended to, a write(2) each time, and now and then written anew.
//
// What a failed append left behind is cut off again. Not synced, but where it is asked for: what
// was written survives this process, not a power cut. One thread; local files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"
#include "base/unique_fd.h"

namespace mps {

class AppendFile {
 public:
  struct Opened;
  class Successor;
  enum class Sync { no, yes };

  // Made with mode 0600 where it is not there. An Error: no rights, no plain file, or more than
  // `limit` bytes, which is too large for `purpose` ("a checkpoint").
  static Result<Opened> open(const std::filesystem::path& path, std::uint64_t limit,
                             std::string_view purpose);

  Result<void> append(std::string_view text);
  // The whole file, or it is as it was: written beside it and renamed.
  Result<void> replace(std::string_view text, Sync sync = Sync::no);
  // The successor from here on; where that fails, the file is as it was.
  Result<void> succeed(Successor successor);

  // The file as it is now, for another thread to read, also when it has a successor by then.
  [[nodiscard]] Result<UniqueFd> handle() const;
  [[nodiscard]] std::uint64_t size() const { return size_; }

 private:
  AppendFile(std::filesystem::path path, UniqueFd fd, std::uint64_t size)
      : path_(std::move(path)), fd_(std::move(fd)), size_(size) {}

  std::filesystem::path path_;
  UniqueFd fd_;
  std::uint64_t size_ = 0;
};

// A file beside it that is to take its place. Made and written on any thread; gone again where it
// was not used.
class AppendFile::Successor {
 public:
  // What has that name already is removed: `suffix` is one of our own.
  static Result<Successor> make(const std::filesystem::path& of, std::string_view suffix);
  Successor(Successor&& other) noexcept;
  Successor& operator=(Successor&&) = delete;
  ~Successor();

  Result<void> append(std::string_view text);
  Result<void> sync();
  [[nodiscard]] std::uint64_t size() const { return size_; }

 private:
  friend class AppendFile;
  Successor(std::string name, UniqueFd fd) : name_(std::move(name)), fd_(std::move(fd)) {}

  std::string name_;
  UniqueFd fd_;
  std::uint64_t size_ = 0;
};

// What a handle has there; less is an Error. `name` is for people.
Result<std::string> read_part(int fd, std::uint64_t offset, std::size_t size,
                              const std::string& name);

struct AppendFile::Opened {
  AppendFile file;
  std::string text;
};

}  // namespace mps
