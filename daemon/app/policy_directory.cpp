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

struct Listing {
  std::vector<Entry> entries;  // no more than may be
  std::size_t count = 0;
};

// Nothing: it went away while it was read.
using Attempt = Result<std::optional<PolicyListing>>;

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

Error too_much(const std::filesystem::path& path) {
  return Error{path.string() + ": its policy files must not have more than " +
               std::to_string(k_policy_bytes) + " bytes in all"};
}

// Up to one byte above the limit: it may have grown, or never have said its size (as in /proc).
// 0, or an errno.
int read_text(int descriptor, std::size_t size, std::vector<char>& buffer, PolicyFile& file) {
  buffer.resize(k_policy_file_bytes + 1);
  std::size_t length = 0;
  while (length < buffer.size()) {
    const auto got = ::read(descriptor, buffer.data() + length, buffer.size() - length);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno;
    length += static_cast<std::size_t>(got);
    if (got == 0 || length == size) break;
  }
  if (std::max(size, length) > k_policy_file_bytes) {
    file.trouble = "must not be larger than " + std::to_string(k_policy_file_bytes) + " bytes: \"" +
                   std::to_string(std::max(size, length)) + "\"";
  }
  file.text.assign(buffer.data(), std::min(length, k_policy_file_bytes));
  return 0;
}

std::string unreadable_file(int error_number) {
  return Error::from_errno("cannot be read", error_number).message;
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

  Result<PolicyListing> read();

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
  int read_file(int directory, const std::string& at, PolicyFile& file);

  std::filesystem::path path_;
  UniqueFd descriptors_;  // /proc/self/fd
  UniqueFd directory_;
  UniqueFd data_;       // where there is one: the version of the ConfigMap that is read
  int data_error_ = 0;  // why it cannot be opened though it is there
  std::string orphan_;  // a link into a version that is not there at all
  std::size_t bytes_ = 0;
  std::map<std::string, bool, std::less<>> version_;  // its files, and which of them were read
  std::vector<PolicyFile> files_;
  std::vector<char> buffer_;
};

Result<PolicyListing> Reader::read() {
  descriptors_ = open_directory(AT_FDCWD, "/proc/self/fd");
  if (!descriptors_) {
    return Error::from_errno(
        "cannot read the policy directory " + path_.string() + ": /proc/self/fd", errno);
  }
  directory_ = open_directory(AT_FDCWD, path_.c_str());
  if (!directory_) return unreadable(path_, errno);
  for (int i = 0; i < k_attempts; ++i) {
    auto listing = attempt();
    if (!listing) return listing.error();
    if (*listing) return std::move(**listing);
  }
  if (data_error_ != 0) return unreadable(path_ / k_data, data_error_);
  return Error{"cannot read the policy directory " + path_.string() + ": it was replaced " +
               std::to_string(k_attempts) + " times while it was read"};
}

Attempt Reader::attempt() {
  data_ = open_directory(directory_.get(), k_data);
  data_error_ = data_ ? 0 : errno;
  struct stat status {};
  if (!data_ && ::fstatat(directory_.get(), k_data, &status, AT_SYMLINK_NOFOLLOW) == 0) {
    // Its version may have been removed between the two, after a switch. If not, nothing is known
    // of its files, and that is no reason to take them for removed.
    return std::nullopt;
  }
  data_error_ = 0;
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
    version_.emplace(std::move(entry.name), false);
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
  bytes_ = 0;
  orphan_.clear();
  for (const auto& entry : listing.entries) {
    if (!add(entry)) return std::nullopt;
    if (bytes_ > k_policy_bytes) return too_much(path_);
  }
  if (!orphan_.empty()) {
    return Error{"cannot read the policy directory " + path_.string() + ": " + k_data +
                 " is missing, and \"" + printable(orphan_, 255) + "\" leads into it"};
  }
  auto count = listing.count;
  for (const auto& [name, is_read] : version_) {
    if (is_read || ++count > k_policy_files) continue;
    if (!add_from_version(name, name)) return std::nullopt;
    if (bytes_ > k_policy_bytes) return too_much(path_);
  }
  if (count > k_policy_files) return too_many(path_, count);
  std::sort(files_.begin(), files_.end(),
            [](const PolicyFile& a, const PolicyFile& b) { return a.name < b.name; });
  return PolicyListing{.files = std::move(files_), .one_version = bool(data_)};
}

bool Reader::add(const Entry& entry) {
  if (data_ && (entry.type == DT_LNK || entry.type == DT_UNKNOWN)) {
    const auto target = read_link(directory_.get(), entry.name);
    const auto rest = target ? below_data(*target) : std::nullopt;
    if (rest) return add_from_version(entry.name, *rest);
  }
  PolicyFile file{.name = entry.name, .text = {}, .trouble = {}};
  const int error_number = read_file(directory_.get(), entry.name, file);
  if (error_number == ENOENT) {
    add_dangling(std::move(file));
  } else {
    keep(std::move(file), error_number);
  }
  return true;
}

bool Reader::add_from_version(const std::string& name, const std::string& rest) {
  const auto known = version_.find(rest);
  if (known != version_.end()) known->second = true;
  PolicyFile file{.name = name, .text = {}, .trouble = {}};
  const int error_number = read_file(data_.get(), rest, file);
  if (error_number == ENOENT) return is_current();  // its link is next to be removed
  keep(std::move(file), error_number);
  return true;
}

// What was removed since the directory was listed is no trouble, nor is a ConfigMap's link that is
// about to be: the version that is read says what there is.
void Reader::add_dangling(PolicyFile file) {
  const auto target = read_link(directory_.get(), file.name);
  if (!target) return;
  if (below_data(*target)) {
    if (!data_) orphan_ = file.name;
    return;
  }
  file.trouble = "is a link to a file that does not exist: \"" + printable(*target) + "\"";
  keep(std::move(file), 0);
}

void Reader::keep(PolicyFile file, int error_number) {
  if (error_number != 0) file.trouble = unreadable_file(error_number);
  bytes_ += file.text.size();
  const auto known = version_.find(file.name);
  if (known != version_.end()) known->second = true;
  files_.push_back(std::move(file));
}

// 0: it has a text or a trouble of its own. Else an errno. Whatever is there, or a link leads to,
// is not opened before it is known to be a regular file: opening a device can do things.
int Reader::read_file(int directory, const std::string& at, PolicyFile& file) {
  const UniqueFd found(::openat(directory, at.c_str(), O_PATH | O_CLOEXEC));
  struct stat status {};
  if (!found || ::fstat(found.get(), &status) != 0) return errno;
  if (!S_ISREG(status.st_mode)) {
    file.trouble = "is not a regular file";
    return 0;
  }
  const auto same = std::to_string(found.get());
  const UniqueFd opened(
      ::openat(descriptors_.get(), same.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
  if (!opened) return errno;
  return read_text(opened.get(), static_cast<std::size_t>(status.st_size), buffer_, file);
}

}  // namespace

bool may_be_policy(std::string_view name) {
  return !name.starts_with("..") || name == k_data;
}

Result<PolicyListing> list_policy_directory(const std::filesystem::path& path) {
  return Reader(path).read();
}

Result<std::vector<PolicyFile>> read_policy_directory(const std::filesystem::path& path) {
  auto listing = list_policy_directory(path);
  if (!listing) return listing.error();
  return std::move(listing->files);
}

PolicyFile read_policy_file(const std::filesystem::path& path) {
  PolicyFile file{.name = path.string(), .text = {}, .trouble = {}};
  const UniqueFd opened(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
  struct stat status {};
  if (!opened || ::fstat(opened.get(), &status) != 0) {
    file.trouble = unreadable_file(errno);
    return file;
  }
  std::vector<char> buffer;
  const auto size = S_ISREG(status.st_mode) ? static_cast<std::size_t>(status.st_size) : 0;
  if (const int error_number = read_text(opened.get(), size, buffer, file); error_number != 0) {
    file.trouble = unreadable_file(error_number);
  }
  return file;
}

}  // namespace mps::app
