#include "base/append_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "base/text.h"

namespace mps {

namespace {

constexpr mode_t k_mode = 0600;

Result<std::string> read_all(int fd, const std::string& name, std::uint64_t limit,
                             std::string_view purpose) {
  std::string text;
  std::array<char, 64 * 1024> buffer{};
  for (;;) {
    const auto count = ::read(fd, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Error::from_errno("read " + name, errno);
    if (count == 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(count));
    if (text.size() > limit) {
      return Error{name + ": too large for " + std::string(purpose) + ", more than " +
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

Result<AppendFile::Opened> AppendFile::open(const std::filesystem::path& path, std::uint64_t limit,
                                            std::string_view purpose) {
  const auto name = path.string();
  UniqueFd fd(::open(name.c_str(), O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, k_mode));
  if (!fd) return Error::from_errno("open " + name, errno);
  auto text = read_all(fd.get(), name, limit, purpose);
  if (!text) return text.error();
  const auto size = text->size();
  return Opened{AppendFile(path, std::move(fd), size), *std::move(text)};
}

Result<void> AppendFile::append(std::string_view text) {
  auto written = write_once(fd_.get(), text, path_.string());
  if (written) {
    size_ += text.size();
  } else {
    // Best effort: whoever reads it next drops half a line by itself.
    (void)!::ftruncate(fd_.get(), static_cast<off_t>(size_));
  }
  return written;
}

Result<void> AppendFile::replace(std::string_view text, Sync sync) {
  const auto fresh_name = path_.string() + ".new";
  // One that a predecessor left may be a link to anything.
  ::unlink(fresh_name.c_str());
  UniqueFd fresh(::open(fresh_name.c_str(),
                        O_RDWR | O_APPEND | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, k_mode));
  if (!fresh) return Error::from_errno("open " + fresh_name, errno);
  auto written = write_once(fresh.get(), text, fresh_name);
  if (written && sync == Sync::yes && ::fsync(fresh.get()) != 0) {
    written = Error::from_errno("sync " + fresh_name, errno);
  }
  if (written && ::rename(fresh_name.c_str(), path_.c_str()) != 0) {
    written = Error::from_errno("rename " + fresh_name, errno);
  }
  if (!written) {
    ::unlink(fresh_name.c_str());
    return written;
  }
  fd_ = std::move(fresh);
  size_ = text.size();
  return {};
}

}  // namespace mps
