// A file of our own that is appended to, a write(2) each time, and now and then written anew.
//
// What a failed append left behind is cut off again. Not synced, but where it is asked for: what
// was written survives this process, not a power cut. One thread; local files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"

namespace mps {

class AppendFile {
 public:
  struct Opened;
  enum class Sync { no, yes };

  // Made with mode 0600 where it is not there. An Error: no rights, no plain file, or more than
  // `limit` bytes, which is too large for `purpose` ("a checkpoint").
  static Result<Opened> open(const std::filesystem::path& path, std::uint64_t limit,
                             std::string_view purpose);

  Result<void> append(std::string_view text);
  // The whole file, or it is as it was: written beside it and renamed.
  Result<void> replace(std::string_view text, Sync sync = Sync::no);

  [[nodiscard]] std::uint64_t size() const { return size_; }

 private:
  AppendFile(std::filesystem::path path, UniqueFd fd, std::uint64_t size)
      : path_(std::move(path)), fd_(std::move(fd)), size_(size) {}

  std::filesystem::path path_;
  UniqueFd fd_;
  std::uint64_t size_ = 0;
};

struct AppendFile::Opened {
  AppendFile file;
  std::string text;
};

}  // namespace mps
