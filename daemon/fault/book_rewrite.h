// A book's file made anew on another thread: that takes as long as the disk does, and the history
// of a bad day has megabytes, while those who are told of a fault, and newcomers, wait for nothing.
//
// The lines that count are copied as they stand. What is recorded meanwhile goes to the file as it
// was; the book copies that behind them and puts the file in its place (Book::finish_rewrite).
//
// Threading: run() on any one thread, the rest the book's, before and after it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "base/append_file.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace mps::fault {

// Where a file has a line, with its end.
struct LinePlace {
  std::uint64_t offset = 0;
  std::size_t size = 0;
};

class Rewrite {
 public:
  // Beside the book's own name; one that is left over from a crash is of no use to anybody.
  static constexpr const char* k_suffix = ".rewrite";

  struct Plan {
    std::filesystem::path path{};
    UniqueFd source{};
    std::uint64_t until = 0;                         // of the source: what the plan knows
    std::string head{};                              // before the lines
    std::map<std::uint64_t, LinePlace> incidents{};  // of the source, by number
    std::string foot{};                              // behind them
  };

  explicit Rewrite(Plan plan) : plan_(std::move(plan)) {}

  void run();

 private:
  friend class Book;
  Result<AppendFile::Successor> made();

  Plan plan_;
  std::map<std::uint64_t, std::uint64_t> offsets_;  // in the new file, by number
  std::optional<Result<AppendFile::Successor>> file_;
};

}  // namespace mps::fault
