// The journal's files: lines appended to `journal.jsonl`, which becomes `journal.jsonl.1` when it
// is full. What a failed or interrupted write left behind is cut off before anything else is
// written. One thread; local files, so calls return at once.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"

namespace mps::api {

class JournalFile {
 public:
  using OnLine = std::function<void(std::string_view)>;
  struct Opened;

  // Gives each complete line of both files, oldest first; then the file is ready for append.
  static Result<Opened> open(const std::filesystem::path& directory, const OnLine& on_line);

  // One write(2). False: not recorded (error() says why), and the file is as before.
  bool append(std::string_view line);
  // Starts a new file with `first_line`. False: nothing has changed.
  bool rotate(std::string_view first_line);

  [[nodiscard]] std::uint64_t size() const { return size_; }
  [[nodiscard]] int error() const { return error_; }  // errno of the last failure

 private:
  JournalFile(std::filesystem::path directory, UniqueFd fd, std::uint64_t size);
  bool repair();
  bool fail(int error_number);

  std::filesystem::path directory_;
  UniqueFd fd_;
  std::uint64_t size_ = 0;  // of what is good
  bool torn_ = false;       // something that is not good may lie behind it
  int error_ = 0;
};

struct JournalFile::Opened {
  JournalFile file;
  std::uint64_t torn_lines = 0;
  std::uint64_t oversized_lines = 0;
};

}  // namespace mps::api
