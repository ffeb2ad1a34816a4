#include "share/checkpoint_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "base/text.h"

namespace mps::share {

namespace {

constexpr mode_t k_mode = 0600;

Result<std::string> read_all(int fd, const std::string& name, std::uint64_t limit) {
  std::string text;
  std::array<char, 64 * 1024> buffer{};
  for (;;) {
    const auto count = ::read(fd, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Error::from_errno("read " + name, errno);
    if (count == 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(count));
    if (text.size() > limit) {
      return Error{name + ": too large for a checkpoint, more than " +
                   format_mebibytes(limit >> 20U)};
    }
  }
}

Result<void> write_once(int fd, std::string_view text, const std::string& name) {
  ssize_t count = 0;
  do {
    count = ::write(fd, text.data(), text.size());
  } while (count < 0 && errno == EINTR);
  if (count < 0) return Error::from_errno("write " + name, errno);
  if (static_cast<std::size_t>(count) != text.size()) {
    return Error::from_errno("write " + name, ENOSPC);
  }
  return {};
}

}  // namespace

CheckpointFile::CheckpointFile(std::filesystem::path path, CheckpointBounds bounds)
    : path_(std::move(path)), bounds_(bounds) {}

Result<CheckpointFile::Opened> CheckpointFile::open(const std::filesystem::path& path,
                                                    CheckpointBounds bounds) {
  CheckpointFile file(path, bounds);
  const auto name = path.string();
  file.fd_.reset(
      ::open(name.c_str(), O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, k_mode));
  if (!file.fd_) return Error::from_errno("open " + name, errno);
  const auto text = read_all(file.fd_.get(), name, bounds.limit);
  if (!text) return text.error();
  auto what = replay(*text);
  file.state_ = what.state;
  file.size_ = text->size();
  file.fresh_size_ = bounds.compact_from / 2;
  // Appending to half a line would spoil what is appended, and counters that went ahead because of
  // damage must not go back with the next supervisor.
  file.behind_ = what.torn || what.damaged_lines != 0;
  return Opened{std::move(file), std::move(what)};
}

bool CheckpointFile::worth_compacting() const {
  return size_ > std::max(bounds_.compact_from, 2 * fresh_size_);
}

Result<void> CheckpointFile::append(std::string_view text) {
  auto written = write_once(fd_.get(), text, path_.string());
  if (written) {
    size_ += text.size();
  } else {
    // Best effort: the next supervisor drops half a line by itself.
    (void)!::ftruncate(fd_.get(), static_cast<off_t>(size_));
  }
  return written;
}

Result<void> CheckpointFile::record(std::span<const Change> changes) {
  if (changes.empty()) return {};
  std::string text;
  for (const auto& change : changes) {
    text += encode(change);
    // One that does not fit says what the file does not know either.
    (void)state_.apply(change);
  }
  if (behind_ || size_ + text.size() > bounds_.limit) return compact();
  if (auto written = append(text); !written) {
    behind_ = true;
    return written;
  }
  // Its failure loses nothing: the changes are on disk.
  if (worth_compacting() && !compact()) {
    fresh_size_ = size_;
    behind_ = false;
  }
  return {};
}

Result<void> CheckpointFile::compact() {
  behind_ = true;
  const auto text = encode(state_);
  const auto fresh_name = path_.string() + ".new";
  if (text.size() > bounds_.limit) {
    return Error{path_.string() + ": what is alive does not fit into " +
                 format_mebibytes(bounds_.limit >> 20U)};
  }
  // One that a predecessor left may be a link to anything.
  ::unlink(fresh_name.c_str());
  UniqueFd fresh(::open(fresh_name.c_str(),
                        O_RDWR | O_APPEND | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, k_mode));
  if (!fresh) return Error::from_errno("open " + fresh_name, errno);
  auto written = write_once(fresh.get(), text, fresh_name);
  if (written && ::rename(fresh_name.c_str(), path_.c_str()) != 0) {
    written = Error::from_errno("rename " + fresh_name, errno);
  }
  if (!written) {
    ::unlink(fresh_name.c_str());
    return written;
  }
  fd_ = std::move(fresh);
  size_ = fresh_size_ = text.size();
  behind_ = false;
  return {};
}

}  // namespace mps::share
