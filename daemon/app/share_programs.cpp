#include "app/share_programs.h"

#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

namespace mps::app {

namespace fs = std::filesystem;

namespace {

constexpr mode_t k_mode = 0755;
constexpr std::size_t k_part = 65536;

Result<UniqueFd> open_folder(int in, const std::string& name) {
  UniqueFd opened(::openat(in, name.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!opened) return Error::from_errno("cannot open " + name, errno);
  return opened;
}

// Whatever was in its place gives way, unless it is a folder with something in it.
Result<UniqueFd> make_folder(int share, const std::string& name) {
  if (auto there = open_folder(share, name); there) {
    struct stat found {};
    if (::fstat(there->get(), &found) == 0 && found.st_uid == ::geteuid()) {
      const bool fits = (found.st_mode & 07777) == k_mode;
      const auto path = "/proc/self/fd/" + std::to_string(there->get());
      if (!fits) (void)::chmod(path.c_str(), k_mode);
      return there;
    }
  }
  if (::unlinkat(share, name.c_str(), 0) != 0 && errno == EISDIR) {
    (void)::unlinkat(share, name.c_str(), AT_REMOVEDIR);
  }
  if (::mkdirat(share, name.c_str(), k_mode) != 0) {
    return Error::from_errno("cannot make the directory " + name, errno);
  }
  return open_folder(share, name);
}

bool same_content(int ours, int theirs, std::uint64_t size) {
  std::array<char, k_part> left{};
  std::array<char, k_part> right{};
  for (std::uint64_t at = 0; at < size;) {
    const auto read = ::pread(ours, left.data(), left.size(), static_cast<off_t>(at));
    if (read <= 0) return false;
    const auto part = static_cast<std::size_t>(read);
    if (::pread(theirs, right.data(), part, static_cast<off_t>(at)) != read) return false;
    if (std::memcmp(left.data(), right.data(), part) != 0) return false;
    at += part;
  }
  return true;
}

bool copy(int from, int to, std::uint64_t size) {
  off_t at = 0;
  while (static_cast<std::uint64_t>(at) < size) {
    if (::sendfile(to, from, &at, size - static_cast<std::uint64_t>(at)) <= 0) return false;
  }
  return true;
}

}  // namespace

bool SharePrograms::Identity::operator==(const Identity& other) const {
  return device == other.device && inode == other.inode && size == other.size &&
         changed.tv_sec == other.changed.tv_sec && changed.tv_nsec == other.changed.tv_nsec;
}

SharePrograms::Identity SharePrograms::identity_of(const struct stat& found) {
  return {found.st_dev, found.st_ino, found.st_size, found.st_ctim};
}

// Held open: an upgrade that replaces the file beside us is for the supervisor that comes with it.
SharePrograms::SharePrograms(std::vector<Program> programs, std::vector<Error>& missing) {
  for (auto& program : programs) {
    UniqueFd file(::open(program.source.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    struct stat found {};
    if (!file || ::fstat(file.get(), &found) != 0) {
      missing.push_back(Error::from_errno("cannot read " + program.source.string(), errno));
    } else if (!S_ISREG(found.st_mode)) {
      missing.push_back({program.source.string() + " is no file"});
    } else {
      const auto size = static_cast<std::uint64_t>(found.st_size);
      sources_.push_back({std::move(program), std::move(file), size});
    }
  }
}

SharePrograms::Looked SharePrograms::keep(const fs::path& share) {
  Looked looked;
  if (sources_.empty()) return looked;
  const auto folder = open_folder(AT_FDCWD, share);
  if (!folder) {
    looked.trouble = folder.error();
    return looked;
  }
  const auto [place, fresh] = known_.try_emplace(share, sources_.size());
  struct statvfs mount {};
  looked.noexec = fresh && ::fstatvfs(folder->get(), &mount) == 0 &&
                  (mount.f_flag & static_cast<unsigned long>(ST_NOEXEC)) != 0;
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    const auto& program = sources_[i].program;
    const auto kept = keep_one(sources_[i], folder->get(), place->second[i]);
    const auto path = program.folder + "/" + program.name;
    if (!kept && !looked.trouble) {
      looked.trouble = Error{(share / path).string() + ": " + kept.error().message};
    }
    if (kept && *kept) looked.replaced.push_back(path);
  }
  return looked;
}

Result<bool> SharePrograms::keep_one(const Source& source, int share,
                                     std::optional<Identity>& known) {
  const auto& [folder_name, name, path] = source.program;
  const auto folder = make_folder(share, folder_name);
  if (!folder) return folder.error();
  struct stat found {};
  const bool there = ::fstatat(folder->get(), name.c_str(), &found, AT_SYMLINK_NOFOLLOW) == 0;
  if (there && known && identity_of(found) == *known) return false;
  const bool ours = there && is_ours(source, folder->get(), found);
  // One that was there, and is away or another one now.
  const bool strange = !ours && (there || known);
  if (!ours) {
    if (auto put_there = put(source, folder->get()); !put_there) return put_there.error();
    if (::fstatat(folder->get(), name.c_str(), &found, AT_SYMLINK_NOFOLLOW) != 0) {
      return Error::from_errno("cannot look at it", errno);
    }
  }
  known = identity_of(found);
  return strange;
}

bool SharePrograms::is_ours(const Source& source, int folder, const struct stat& found) {
  if (!S_ISREG(found.st_mode) || found.st_uid != ::geteuid() || found.st_nlink != 1 ||
      (found.st_mode & 07777) != k_mode ||
      static_cast<std::uint64_t>(found.st_size) != source.size) {
    return false;
  }
  const UniqueFd file(::openat(folder, source.program.name.c_str(),
                               O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  return file && same_content(source.file.get(), file.get(), source.size);
}

Result<void> SharePrograms::put(const Source& source, int folder) {
  const auto& name = source.program.name;
  const auto fresh = "." + name + ".new";
  ::unlinkat(folder, fresh.c_str(), 0);
  UniqueFd file(
      ::openat(folder, fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  const bool written =
      file && copy(source.file.get(), file.get(), source.size) && ::fchmod(file.get(), k_mode) == 0;
  const int error = errno;
  file.reset();  // a file that is open for writing cannot be executed
  int moved = written ? ::renameat(folder, fresh.c_str(), folder, name.c_str()) : 0;
  if (moved != 0 && errno == EISDIR && ::unlinkat(folder, name.c_str(), AT_REMOVEDIR) == 0) {
    moved = ::renameat(folder, fresh.c_str(), folder, name.c_str());
  }
  if (written && moved == 0) return {};
  const int why = written ? errno : error;
  ::unlinkat(folder, fresh.c_str(), 0);
  return Error::from_errno("cannot put it there", why);
}

}  // namespace mps::app
