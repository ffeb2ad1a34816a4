// The checkpoint on disk: changes appended, and the file written anew when most of it is of the
// past. It is there for the next supervisor after this one died; it is not synced, since after a
// power cut there is no client left that it could speak of.
//
// Threading: one thread. Calls return once the kernel has the data.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "base/append_file.h"
#include "base/result.h"
#include "share/checkpoint.h"

namespace mps::share {

struct CheckpointBounds {
  std::uint64_t compact_from = 1024 * std::uint64_t{1024};  // and twice of what it was when fresh
  std::uint64_t limit = 16 * 1024 * std::uint64_t{1024};
};

class CheckpointFile {
 public:
  struct Opened;

  // Made where it is not there. What cannot be read of it is in `replay`; nothing is written over
  // before the first change. An Error: not ours to use (too large, no file, no rights).
  static Result<Opened> open(const std::filesystem::path& file, CheckpointBounds bounds = {});

  // One write for all of them. An Error: they are not on disk, but kept in mind and written with
  // the next ones, as a fresh file.
  Result<void> record(std::span<const Change> changes);
  // A fresh file with what is alive; also a way to try again what failed.
  Result<void> compact();

  // What the file says, or will say when it can be written again.
  [[nodiscard]] const State& state() const { return state_; }
  [[nodiscard]] std::uint64_t size() const { return file_.size(); }
  [[nodiscard]] bool behind() const { return behind_; }  // the last write has failed

 private:
  CheckpointFile(std::filesystem::path path, CheckpointBounds bounds, AppendFile file);
  [[nodiscard]] bool worth_compacting() const;

  std::filesystem::path path_;
  CheckpointBounds bounds_;
  AppendFile file_;
  State state_;
  std::uint64_t fresh_size_ = 0;  // when it was last written anew
  bool behind_ = false;
};

struct CheckpointFile::Opened {
  CheckpointFile file;
  Replay replay;
};

}  // namespace mps::share
