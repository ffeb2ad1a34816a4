#include "api/journal_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <string>
#include <utility>

namespace mps::api {

namespace {

constexpr std::size_t k_line_limit = 1024 * 1024;  // longer is nothing of ours
constexpr mode_t k_mode = 0600;

std::filesystem::path journal_path(const std::filesystem::path& directory) {
  return directory / "journal.jsonl";
}

ssize_t retry_write(int fd, std::string_view text) {
  ssize_t written = 0;
  do {
    written = ::write(fd, text.data(), text.size());
  } while (written < 0 && errno == EINTR);
  return written;
}

// Splits what is read into lines, with a bound on what it holds.
class LineSplitter {
 public:
  explicit LineSplitter(const JournalFile::OnLine& on_line) : on_line_(on_line) {}

  void feed(std::string_view text) {
    for (auto end = text.find('\n'); end != std::string_view::npos; end = text.find('\n')) {
      take(text.substr(0, end));
      finish_line();
      text.remove_prefix(end + 1);
    }
    take(text);
  }

  std::uint64_t good_size() const { return consumed_ - open_size_; }  // up to the last newline
  bool torn() const { return open_size_ > 0; }
  std::uint64_t oversized() const { return oversized_; }

 private:
  void take(std::string_view text) {
    consumed_ += text.size();
    open_size_ += text.size();
    if (open_size_ <= k_line_limit) line_ += text;
  }

  void finish_line() {
    if (open_size_ > k_line_limit) {
      ++oversized_;
    } else {
      on_line_(line_);
    }
    line_.clear();
    open_size_ = 0;
    ++consumed_;
  }

  const JournalFile::OnLine& on_line_;
  std::string line_;
  std::uint64_t consumed_ = 0;
  std::uint64_t open_size_ = 0;
  std::uint64_t oversized_ = 0;
};

Result<void> read_all(int fd, const std::string& name, LineSplitter& splitter) {
  std::array<char, 64 * 1024> buffer{};
  for (;;) {
    const auto count = ::read(fd, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Error::from_errno("read " + name, errno);
    if (count == 0) return {};
    splitter.feed({buffer.data(), static_cast<std::size_t>(count)});
  }
}

// The older file is only ever read; it ends with a newline, since only good files are rotated.
Result<std::uint64_t> read_older(const std::filesystem::path& path,
                                 const JournalFile::OnLine& on_line) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd && errno == ENOENT) return 0;
  if (!fd) return Error::from_errno("open " + path.string(), errno);
  LineSplitter splitter(on_line);
  if (auto done = read_all(fd.get(), path.string(), splitter); !done) return done.error();
  return splitter.oversized() + (splitter.torn() ? 1 : 0);
}

}  // namespace

JournalFile::JournalFile(std::filesystem::path directory, UniqueFd fd, std::uint64_t size)
    : directory_(std::move(directory)), fd_(std::move(fd)), size_(size) {}

Result<JournalFile::Opened> JournalFile::open(const std::filesystem::path& directory,
                                              const OnLine& on_line) {
  const auto older = read_older(journal_path(directory).string() + ".1", on_line);
  if (!older) return older.error();
  const auto name = journal_path(directory).string();
  UniqueFd fd(::open(name.c_str(), O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, k_mode));
  if (!fd) return Error::from_errno("open " + name, errno);
  LineSplitter splitter(on_line);
  if (auto done = read_all(fd.get(), name, splitter); !done) return done.error();
  Opened opened{JournalFile(directory, std::move(fd), splitter.good_size()), 0,
                *older + splitter.oversized()};
  if (splitter.torn()) {
    opened.torn_lines = 1;
    opened.file.torn_ = true;
    if (!opened.file.repair()) return Error::from_errno("truncate " + name, opened.file.error_);
  }
  return opened;
}

bool JournalFile::fail(int error_number) {
  error_ = error_number;
  return false;
}

bool JournalFile::repair() {
  if (!torn_) return true;
  if (::ftruncate(fd_.get(), static_cast<off_t>(size_)) != 0) return fail(errno);
  torn_ = false;
  return true;
}

bool JournalFile::append(std::string_view line) {
  if (!repair()) return false;
  const auto written = retry_write(fd_.get(), line);
  if (written == static_cast<ssize_t>(line.size())) {
    size_ += line.size();
    return true;
  }
  const int cause = written < 0 ? errno : ENOSPC;
  torn_ = written > 0;
  // If this fails as well, it is tried again before the next write.
  (void)repair();
  return fail(cause);
}

bool JournalFile::rotate(std::string_view first_line) {
  if (!repair()) return false;
  const auto current = journal_path(directory_).string();
  const auto next = current + ".new";
  UniqueFd fd(
      ::open(next.c_str(), O_RDWR | O_APPEND | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, k_mode));
  if (!fd) return fail(errno);
  const auto written = retry_write(fd.get(), first_line);
  if (written != static_cast<ssize_t>(first_line.size())) {
    const int cause = written < 0 ? errno : ENOSPC;
    ::unlink(next.c_str());
    return fail(cause);
  }
  // Dying between the two leaves no current file: the older one then says all there is to know.
  if (::rename(current.c_str(), (current + ".1").c_str()) != 0) return fail(errno);
  if (::rename(next.c_str(), current.c_str()) != 0) {
    const int cause = errno;
    (void)::rename((current + ".1").c_str(), current.c_str());
    return fail(cause);
  }
  fd_ = std::move(fd);
  size_ = first_line.size();
  return true;
}

}  // namespace mps::api
