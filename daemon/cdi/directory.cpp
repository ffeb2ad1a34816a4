#include "cdi/directory.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "base/file.h"
#include "base/text.h"
#include "base/unique_fd.h"

namespace mps::cdi {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t k_file_limit = 65536;  // larger ones are none of ours

fs::path temporary(const fs::path& file) {
  return file.parent_path() / ("." + file.filename().string() + ".tmp");
}

bool is_our_temporary(std::string_view name) {
  constexpr std::string_view k_end = ".tmp";
  if (!name.starts_with('.') || !name.ends_with(k_end)) return false;
  return name_in(name.substr(1, name.size() - 1 - k_end.size())).has_value();
}

bool write_all(int file, std::string_view text) {
  while (!text.empty()) {
    const auto written = ::write(file, text.data(), text.size());
    if (written < 0 && errno != EINTR) return false;
    if (written > 0) text.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

}  // namespace

bool Directory::Identity::operator==(const Identity& other) const {
  return device == other.device && inode == other.inode && size == other.size &&
         changed.tv_sec == other.changed.tv_sec && changed.tv_nsec == other.changed.tv_nsec;
}

std::optional<Directory::Identity> Directory::look(const fs::path& file) {
  struct stat found {};
  if (::lstat(file.c_str(), &found) != 0 || !S_ISREG(found.st_mode)) return std::nullopt;
  return Identity{found.st_dev, found.st_ino, found.st_size, found.st_ctim};
}

bool Directory::is_ours(const fs::path& folder) const {
  return std::mismatch(run_dir_.begin(), run_dir_.end(), folder.begin(), folder.end()).first ==
         run_dir_.end();
}

std::string Directory::why_not(const std::string& name) const {
  const auto found = failed_.find(name);
  return found == failed_.end() ? std::string() : found->second;
}

Result<void> Directory::make() const {
  std::error_code error;
  if (fs::is_directory(path_, error)) return {};
  if (::geteuid() == 0) fs::create_directories(path_, error);
  if (!error && fs::is_directory(path_, error)) return {};
  return Error{path_.string() + ": " +
               (error ? error : std::make_error_code(std::errc::not_a_directory)).message()};
}

std::vector<std::string> Directory::settle(const std::vector<Spec>& wanted) {
  std::vector<std::string> troubles;
  failed_.clear();
  if (const auto made = wanted.empty() ? Result<void>() : make(); !made) {
    troubles.push_back(made.error().message);
    for (const auto& spec : wanted) failed_[spec.name] = made.error().message;
    written_.clear();
    return troubles;
  }
  std::set<std::string> names;
  for (const auto& spec : wanted) {
    names.insert(spec.name);
    const auto done = put(spec);
    if (done) continue;
    troubles.push_back(done.error().message);
    failed_[spec.name] = done.error().message;
    written_.erase(spec.name);
  }
  sweep(names, troubles);
  return troubles;
}

Result<void> Directory::put(const Spec& spec) {
  const auto file = path_ / file_of(spec.name);
  if (!is_device_name(spec.name)) return Error{file.string() + ": no name for a CDI device"};
  const auto text = encode(spec);
  const auto there = look(file);
  const auto known = written_.find(spec.name);
  const bool same = known != written_.end() && known->second.text == text;
  if (there && same && known->second.identity == *there) return {};
  if (there) {
    const auto found = read_file(file, k_file_limit);
    if (found && *found == text) {
      written_[spec.name] = {text, *there};
      return {};
    }
    const auto folder = found ? folder_in(*found) : std::nullopt;
    std::error_code gone;
    if (folder && !is_ours(*folder) && fs::exists(*folder, gone)) {
      return Error{file.string() + ": is of another supervisor, for " +
                   printable(folder->native(), 256) + "; give one of the two a cdiDir of its own"};
    }
  }
  if (auto done = write(file, text); !done) return done;
  const auto now = look(file);
  if (now) written_[spec.name] = {text, *now};
  return {};
}

Result<void> Directory::write(const fs::path& file, const std::string& text) const {
  const auto fresh = temporary(file);
  ::unlink(fresh.c_str());
  const UniqueFd opened(
      ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644));
  if (opened && write_all(opened.get(), text) && ::fchmod(opened.get(), 0644) == 0 &&
      ::rename(fresh.c_str(), file.c_str()) == 0) {
    return {};
  }
  const auto error = Error::from_errno(file.string(), errno);
  ::unlink(fresh.c_str());
  return error;
}

Result<void> Directory::remove(const std::string& name) {
  const auto file = path_ / file_of(name);
  if (!written_.contains(name)) return {};
  if (::unlink(file.c_str()) != 0 && errno != ENOENT) {
    return Error::from_errno(file.string(), errno);
  }
  written_.erase(name);
  return {};
}

// Of shares that are gone, also of an earlier supervisor that was killed.
void Directory::sweep(const std::set<std::string>& wanted, std::vector<std::string>& troubles) {
  std::error_code error;
  for (fs::directory_iterator entry(path_, error), end; !error && entry != end;
       entry.increment(error)) {
    const auto file = entry->path().filename().string();
    const auto name = name_in(file);
    if (!name) {
      if (is_our_temporary(file)) ::unlink(entry->path().c_str());
      continue;
    }
    if (wanted.contains(*name)) continue;
    const auto text =
        look(entry->path()) ? read_file(entry->path(), k_file_limit) : Result<std::string>("");
    const auto folder = text ? folder_in(*text) : std::nullopt;
    if (!folder) {
      if (passed_over_.size() < k_file_limit && passed_over_.insert(file).second) {
        spdlog::warn("{}: is not as we write them, and is left alone", entry->path().string());
      }
      continue;
    }
    if (!is_ours(*folder)) continue;
    if (::unlink(entry->path().c_str()) != 0 && errno != ENOENT) {
      troubles.push_back(Error::from_errno(entry->path().string(), errno).message);
    }
    written_.erase(*name);
  }
  std::erase_if(written_, [&wanted](const auto& one) { return !wanted.contains(one.first); });
}

}  // namespace mps::cdi
