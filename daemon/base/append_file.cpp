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
  auto fresh = Successor::make(path_, ".new");
  if (!fresh) return fresh.error();
  if (auto written = fresh->append(text); !written) return written;
  if (sync == Sync::yes) {
    if (auto synced = fresh->sync(); !synced) return synced;
  }
  return succeed(std::move(*fresh));
}

Result<void> AppendFile::succeed(Successor successor) {
  if (::rename(successor.name_.c_str(), path_.c_str()) != 0) {
    return Error::from_errno("rename " + successor.name_, errno);
  }
  fd_ = std::move(successor.fd_);
  size_ = successor.size_;
  return {};
}

Result<UniqueFd> AppendFile::handle() const {
  UniqueFd fd(::fcntl(fd_.get(), F_DUPFD_CLOEXEC, 0));
  if (!fd) return Error::from_errno("dup " + path_.string(), errno);
  return fd;
}

Result<AppendFile::Successor> AppendFile::Successor::make(const std::filesystem::path& of,
                                                          std::string_view suffix) {
  auto name = of.string() + std::string(suffix);
  // One that a predecessor left may be a link to anything.
  ::unlink(name.c_str());
  UniqueFd fd(
      ::open(name.c_str(), O_RDWR | O_APPEND | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, k_mode));
  if (!fd) return Error::from_errno("open " + name, errno);
  return Successor(std::move(name), std::move(fd));
}

AppendFile::Successor::Successor(Successor&& other) noexcept
    : name_(std::move(other.name_)), fd_(std::move(other.fd_)), size_(other.size_) {}

AppendFile::Successor::~Successor() {
  if (fd_) ::unlink(name_.c_str());  // it has not become the file
}

Result<void> AppendFile::Successor::append(std::string_view text) {
  auto written = write_once(fd_.get(), text, name_);
  if (written) size_ += text.size();
  return written;
}

Result<void> AppendFile::Successor::sync() {
  if (::fsync(fd_.get()) != 0) return Error::from_errno("sync " + name_, errno);
  return {};
}

Result<std::string> read_part(int fd, std::uint64_t offset, std::size_t size,
                              const std::string& name) {
  std::string text(size, '\0');
  std::size_t got = 0;
  while (got < size) {
    const auto count = ::pread(fd, text.data() + got, size - got, static_cast<off_t>(offset + got));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Error::from_errno("read " + name, errno);
    if (count == 0) return Error{name + " ends before " + std::to_string(offset + size)};
    got += static_cast<std::size_t>(count);
  }
  return text;
}

}  // namespace mps
