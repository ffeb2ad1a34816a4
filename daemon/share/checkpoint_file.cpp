#include "share/checkpoint_file.h"

#include <algorithm>
#include <utility>

#include "base/text.h"

namespace mps::share {

CheckpointFile::CheckpointFile(std::filesystem::path path, CheckpointBounds bounds, AppendFile file)
    : path_(std::move(path)), bounds_(bounds), file_(std::move(file)) {}

Result<CheckpointFile::Opened> CheckpointFile::open(const std::filesystem::path& path,
                                                    CheckpointBounds bounds) {
  auto opened = AppendFile::open(path, bounds.limit, "a checkpoint");
  if (!opened) return opened.error();
  CheckpointFile file(path, bounds, std::move(opened->file));
  auto what = replay(opened->text);
  file.state_ = what.state;
  file.fresh_size_ = bounds.compact_from / 2;
  // Appending to half a line would spoil what is appended, and counters that went ahead because of
  // damage must not go back with the next supervisor.
  file.behind_ = what.torn || what.damaged_lines != 0;
  return Opened{std::move(file), std::move(what)};
}

bool CheckpointFile::worth_compacting() const {
  return size() > std::max(bounds_.compact_from, 2 * fresh_size_);
}

Result<void> CheckpointFile::record(std::span<const Change> changes) {
  if (changes.empty()) return {};
  std::string text;
  for (const auto& change : changes) {
    text += encode(change);
    // One that does not fit says what the file does not know either.
    (void)state_.apply(change);
  }
  if (behind_ || size() + text.size() > bounds_.limit) return compact();
  if (auto written = file_.append(text); !written) {
    behind_ = true;
    return written;
  }
  // Its failure loses nothing: the changes are on disk.
  if (worth_compacting() && !compact()) {
    fresh_size_ = size();
    behind_ = false;
  }
  return {};
}

Result<void> CheckpointFile::compact() {
  behind_ = true;
  const auto text = encode(state_);
  if (text.size() > bounds_.limit) {
    return Error{path_.string() + ": what is alive does not fit into " +
                 format_mebibytes(bounds_.limit >> 20U)};
  }
  if (auto written = file_.replace(text); !written) return written;
  fresh_size_ = text.size();
  behind_ = false;
  return {};
}

}  // namespace mps::share
