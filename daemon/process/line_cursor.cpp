#include "process/line_cursor.h"

#include <algorithm>
#include <string_view>

namespace mps::process {
namespace {

std::string_view without_nuls(std::span<char> bytes) {
  if (bytes.empty()) return {};
  const auto end = std::remove(bytes.begin(), bytes.end(), '\0');
  return {bytes.data(), static_cast<std::size_t>(end - bytes.begin())};
}

std::size_t line_length(std::span<const char> bytes) {
  return std::string_view(bytes.data(), bytes.size()).find('\n');
}

}  // namespace

std::uint64_t LineCursor::skipped_from() const {
  return in_long_line_ ? consumed_ + k_read_size : scanned_;
}

bool LineCursor::take(std::span<char> bytes, std::vector<FollowedLine>& lines) {
  auto rest = bytes;
  auto offset = scanned_;
  std::size_t taken = 0;
  while (taken < k_batch) {
    const auto length = line_length(rest);
    if (length == std::string_view::npos) break;
    offset += length + 1;
    const bool cut = in_long_line_ && taken == 0;
    const auto text = cut ? std::string_view(long_line_) : without_nuls(rest.first(length));
    lines.push_back({.text = text, .end_offset = offset, .cut = cut});
    rest = rest.subspan(length + 1);
    ++taken;
  }
  return taken != 0 || take_unfinished(rest, offset);
}

bool LineCursor::take_unfinished(std::span<char> rest, std::uint64_t offset) {
  if (rest.empty()) return false;
  if (in_long_line_) {
    scanned_ = offset + rest.size();
    return true;
  }
  // NULs before a line are a hole, however many: they are no part of the line and its limit.
  const auto text = std::find_if(rest.begin(), rest.end(), [](char byte) { return byte != '\0'; });
  if (text != rest.begin()) {
    skip_hole(offset + static_cast<std::uint64_t>(text - rest.begin()));
    return true;
  }
  if (rest.size() < k_read_size) return false;
  long_line_ = without_nuls(rest.first(Follower::k_line_limit));
  in_long_line_ = true;
  scanned_ = offset + rest.size();
  return true;
}

void LineCursor::consume(std::uint64_t end_offset) {
  consumed_ = scanned_ = end_offset;
  in_long_line_ = false;
  long_line_ = {};
}

void LineCursor::skip_hole(std::uint64_t offset) {
  scanned_ = offset;
  if (!in_long_line_) consumed_ = offset;
}

}  // namespace mps::process
