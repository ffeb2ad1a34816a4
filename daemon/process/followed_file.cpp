#include "process/followed_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace mps::process {
namespace {

// Holes are whole multiples of this: one system call for hundreds of lines, and nothing is left
// half freed on file systems with large blocks.
constexpr std::uint64_t k_punch_step = std::uint64_t{64} * 1024;

std::uint64_t round_down(std::uint64_t offset) {
  return offset - offset % k_punch_step;
}
std::uint64_t round_up(std::uint64_t offset) {
  return round_down(offset + k_punch_step - 1);
}

}  // namespace

Result<bool> FollowedFile::read(std::span<char> buffer, std::vector<FollowedLine>& lines) {
  if (auto looked = notice_truncation(); !looked) return looked.error();
  const auto offset = static_cast<off_t>(cursor_.read_from());
  ssize_t got = 0;
  do {
    got = ::pread(file_.get(), buffer.data(), buffer.size(), offset);
  } while (got < 0 && errno == EINTR);
  if (got < 0) return Error::from_errno("read a followed file", errno);
  if (got == 0) return false;
  if (buffer.front() == '\0' && skip_hole()) return true;
  const bool more = cursor_.take(buffer.first(static_cast<std::size_t>(got)), lines);
  free_behind();
  return more;
}

void FollowedFile::consume(std::span<const FollowedLine> lines) {
  if (lines.empty()) return;
  cursor_.consume(lines.back().end_offset);
  counters_.lines += lines.size();
  counters_.cut_lines += static_cast<std::uint64_t>(
      std::count_if(lines.begin(), lines.end(), [](const FollowedLine& line) { return line.cut; }));
  free_behind();
}

Result<void> FollowedFile::notice_truncation() {
  struct stat status {};
  if (::fstat(file_.get(), &status) != 0) return Error::from_errno("read a followed file", errno);
  size_ = static_cast<std::uint64_t>(status.st_size);
  if (size_ >= cursor_.read_from()) return {};
  ++counters_.truncations;
  cursor_ = LineCursor(0);
  freed_ = 0;
  freed_ahead_ = 0;
  return {};
}

bool FollowedFile::skip_hole() {
  const auto from = cursor_.read_from();
  const auto data = ::lseek(file_.get(), static_cast<off_t>(from), SEEK_DATA);
  // ENXIO: a hole up to the end. What was appended since then lies behind the size we know.
  const auto next = data >= 0 ? static_cast<std::uint64_t>(data) : errno == ENXIO ? size_ : from;
  if (next <= from) return false;
  cursor_.skip_hole(next);
  return true;
}

void FollowedFile::free_behind() {
  punch(freed_, round_down(cursor_.consumed()));
  // The middle of a line that is too long: it may be longer than the disk.
  freed_ahead_ = std::max(freed_ahead_, round_up(cursor_.skipped_from()));
  punch(freed_ahead_, round_down(cursor_.read_from()));
}

void FollowedFile::punch(std::uint64_t& from, std::uint64_t to) {
  if (!can_punch_ || to <= from) return;
  const auto start = static_cast<off_t>(from);
  const auto length = static_cast<off_t>(to - from);
  if (::fallocate(file_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, start, length) == 0) {
    from = to;
    return;
  }
  // What may pass is tried again with the next lines; the rest (EOPNOTSUPP) never passes.
  can_punch_ = errno == EINTR || errno == ENOSPC || errno == EIO;
  ++counters_.punch_failures;
}

}  // namespace mps::process
