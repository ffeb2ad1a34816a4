#include "app/policy_directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include "base/text.h"
#include "base/unique_fd.h"

namespace mps::app {

namespace {

constexpr const char* k_data = "..data";
constexpr std::string_view k_into_data = "..data/";
constexpr int k_attempts = 20;

struct CloseDirectory {
  void operator()(DIR* directory) const { ::closedir(directory); }
};

struct Entry {
  std::string name;
  unsigned char type = DT_UNKNOWN;
};

// A file in the version of a ConfigMap that is read.
struct VersionFile {
  bool is_regular = false;
  bool is_taken = false;
};

struct Listing {
  std::vector<Entry> entries;  // no more than may be
  std::size_t count = 0;
};

// Nothing: it went away while it was read.
using Attempt = Result<std::optional<std::vector<PolicyFile>>>;

bool is_policy_name(std::string_view name) {
  return !name.starts_with('.') && (name.ends_with(".yaml") || name.ends_with(".yml"));
}

Error unreadable(const std::filesystem::path& path, int error_number) {
  return Error::from_errno("cannot read the policy directory " + path.string(), error_number);
}

Error too_many(const std::filesystem::path& path, std::size_t count) {
  return Error{path.string() + ": must not have more than " + std::to_string(k_policy_files) +
               " policy files, and has " + std::to_string(count)};
}

UniqueFd open_directory(int parent, const char* name) {
  return UniqueFd(::openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

// 0, or an errno.
int list(int directory, Listing& listing) {
  auto own = open_directory(directory, ".");  // with an offset of its own
  if (!own) return errno;
  const std::unique_ptr<DIR, CloseDirectory> stream(::fdopendir(own.get()));
  if (!stream) return errno;
  static_cast<void>(own.release());
  while (true) {
    errno = 0;
    // NOLINTNEXTLINE(concurrency-mt-unsafe): safe as long as nobody else has this DIR
    const auto* entry = ::readdir(stream.get());
    if (entry == nullptr) break;
    const std::string_view name(static_cast<const char*>(entry->d_name));
    if (!is_policy_name(name) || ++listing.count > k_policy_files) continue;
    listing.entries.push_back({.name = std::string(name), .type = entry->d_type});
  }
  return errno;
}

std::optional<std::string> read_link(int directory, const std::string& name) {
  std::array<char, PATH_MAX> target{};
  const auto length = ::readlinkat(directory, name.c_str(), target.data(), target.size());
  if (length < 0) return std::nullopt;
  return std::string(target.data(), static_cast<std::size_t>(length));
}

// "..data/a.yaml": "a.yaml". Nothing where it does not stay below `..data`.
std::optional<std::string> below_data(std::string_view target) {
  if (!target.starts_with(k_into_data)) return std::nullopt;
  const auto rest = target.substr(k_into_data.size());
  if (rest.empty() || rest.starts_with('/')) return std::nullopt;
  for (std::size_t at = 0; at <= rest.size();) {
    const auto end = std::min(rest.find('/', at), rest.size());
    if (rest.substr(at, end - at) == "..") return std::nullopt;
    at = end + 1;
  }
  return std::string(rest);
}

class Reader {
 public:
  explicit Reader(std::filesystem::path path) : path_(std::move(path)) {}

  Result<std::vector<PolicyFile>> read();

 private:
  Attempt attempt();
  Result<bool> list_version();
  bool is_current() const;
  Attempt read_all(const Listing& listing);
  // False: the version that is being read went away.
  bool add(const Entry& entry);
  bool add_from_version(const std::string& name, const std::string& rest);
  void add_dangling(PolicyFile file);
  void keep(PolicyFile file, int error_number);
  int read_file(int directory, const std::string& at, bool is_regular, PolicyFile& file);
  int read_text(int descriptor, std::size_t size, PolicyFile& file);

  std::filesystem::path path_;
  UniqueFd directory_;
  UniqueFd data_;  // where there is one: the version of the ConfigMap that is read
  std::map<std::string, VersionFile, std::less<>> version_;
  std::vector<PolicyFile> files_;
  std::vector<char> buffer_;
};

Result<std::vector<PolicyFile>> Reader::read() {
  directory_ = open_directory(AT_FDCWD, path_.c_str());
  if (!directory_) return unreadable(path_, errno);
  for (int i = 0; i < k_attempts; ++i) {
    auto files = attempt();
    if (!files) return files.error();
    if (*files) return std::move(**files);
  }
  return Error{"cannot read the policy directory " + path_.string() + ": it was replaced " +
               std::to_string(k_attempts) + " times while it was read"};
}

Attempt Reader::attempt() {
  data_ = open_directory(directory_.get(), k_data);
  const auto listed = list_version();
  if (!listed) return listed.error();
  if (!*listed) return std::nullopt;
  Listing listing;
  if (const int error_number = list(directory_.get(), listing); error_number != 0) {
    return unreadable(path_, error_number);
  }
  if (listing.count > k_policy_files) return too_many(path_, listing.count);
  return read_all(listing);
}

// False: the list is not whole, as the version was being removed meanwhile.
Result<bool> Reader::list_version() {
  version_.clear();
  if (!data_) return true;
  Listing listing;
  const int error_number = list(data_.get(), listing);
  if (!is_current()) return false;
  if (error_number != 0) return unreadable(path_ / k_data, error_number);
  if (listing.count > k_policy_files) return too_many(path_, listing.count);
  for (auto& entry : listing.entries) {
    version_.emplace(std::move(entry.name), VersionFile{.is_regular = entry.type == DT_REG});
  }
  return true;
}

// While it is open, its inode number goes to no other.
bool Reader::is_current() const {
  struct stat opened {};
  struct stat now {};
  return ::fstat(data_.get(), &opened) == 0 && ::fstatat(directory_.get(), k_data, &now, 0) == 0 &&
         opened.st_dev == now.st_dev && opened.st_ino == now.st_ino;
}

Attempt Reader::read_all(const Listing& listing) {
  files_.clear();
  for (const auto& entry : listing.entries) {
    if (!add(entry)) return std::nullopt;
  }
  auto count = listing.count;
  for (const auto& [name, file] : version_) {
    if (file.is_taken || ++count > k_policy_files) continue;
    if (!add_from_version(name, name)) return std::nullopt;
  }
  if (count > k_policy_files) return too_many(path_, count);
  std::sort(files_.begin(), files_.end(),
            [](const PolicyFile& a, const PolicyFile& b) { return a.name < b.name; });
  return std::move(files_);
}

bool Reader::add(const Entry& entry) {
  if (data_ && (entry.type == DT_LNK || entry.type == DT_UNKNOWN)) {
    const auto target = read_link(directory_.get(), entry.name);
    const auto rest = target ? below_data(*target) : std::nullopt;
    if (rest) return add_from_version(entry.name, *rest);
  }
  PolicyFile file{.name = entry.name, .text = {}, .trouble = {}};
  const int error_number = read_file(directory_.get(), entry.name, entry.type == DT_REG, file);
  if (error_number == ENOENT) {
    add_dangling(std::move(file));
  } else {
    keep(std::move(file), error_number);
  }
  return true;
}

bool Reader::add_from_version(const std::string& name, const std::string& rest) {
  const auto known = version_.find(rest);
  if (known != version_.end()) known->second.is_taken = true;
  const bool is_regular = known != version_.end() && known->second.is_regular;
  PolicyFile file{.name = name, .text = {}, .trouble = {}};
  const int error_number = read_file(data_.get(), rest, is_regular, file);
  if (error_number == ENOENT) return is_current();  // its link is next to be removed
  keep(std::move(file), error_number);
  return true;
}

// What was removed since the directory was listed is no trouble, nor is a ConfigMap's link that is
// about to be. (The version that is read may have the file still.)
void Reader::add_dangling(PolicyFile file) {
  const auto target = read_link(directory_.get(), file.name);
  if (!target || below_data(*target)) return;
  file.trouble = "is a link to a file that does not exist: \"" + printable(*target) + "\"";
  keep(std::move(file), 0);
}

void Reader::keep(PolicyFile file, int error_number) {
  if (error_number != 0) file.trouble = Error::from_errno("cannot be read", error_number).message;
  const auto known = version_.find(file.name);
  if (known != version_.end()) known->second.is_taken = true;
  files_.push_back(std::move(file));
}

// 0: it has a text or a trouble of its own. Else an errno. is_regular: it was when it was listed.
int Reader::read_file(int directory, const std::string& at, bool is_regular, PolicyFile& file) {
  struct stat status {};
  if (!is_regular) {
    // Looked at before it is opened: opening a device can do things, a socket says ENXIO.
    if (::fstatat(directory, at.c_str(), &status, 0) != 0) return errno;
    is_regular = S_ISREG(status.st_mode);
  }
  if (is_regular) {
    const UniqueFd opened(
        ::openat(directory, at.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
    if (!opened || ::fstat(opened.get(), &status) != 0) return errno;
    if (S_ISREG(status.st_mode)) {
      return read_text(opened.get(), static_cast<std::size_t>(status.st_size), file);
    }
  }
  file.trouble = "is not a regular file";
  return 0;
}

// Up to one byte above the limit: it may have grown, or never have said its size (as in /proc).
int Reader::read_text(int descriptor, std::size_t size, PolicyFile& file) {
  buffer_.resize(k_policy_file_bytes + 1);
  std::size_t length = 0;
  while (size <= k_policy_file_bytes && length < buffer_.size()) {
    const auto got = ::read(descriptor, buffer_.data() + length, buffer_.size() - length);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno;
    length += static_cast<std::size_t>(got);
    if (got == 0 || length == size) break;
  }
  if (std::max(size, length) > k_policy_file_bytes) {
    file.trouble = "must not be larger than " + std::to_string(k_policy_file_bytes) + " bytes: \"" +
                   std::to_string(std::max(size, length)) + "\"";
  } else {
    file.text.assign(buffer_.data(), length);
  }
  return 0;
}

}  // namespace

Result<std::vector<PolicyFile>> read_policy_directory(const std::filesystem::path& path) {
  return Reader(path).read();
}

}  // namespace mps::app
