#include "identity/trusted_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/unique_fd.h"

namespace mps::identity {
namespace {

constexpr int k_depth_limit = 32;

std::optional<std::string> why_not(int descriptor, uid_t owner) {
  struct stat status {};
  if (::fstat(descriptor, &status) != 0) return "cannot be looked at";
  if (!S_ISREG(status.st_mode)) return "is not a regular file";
  if (status.st_uid != owner) {
    return "belongs to uid " + std::to_string(status.st_uid) + ", not to uid " +
           std::to_string(owner);
  }
  if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0) return "can be written by others";
  return std::nullopt;
}

Result<std::string> read_all(int descriptor, std::size_t limit) {
  std::string text;
  std::array<char, 16384> buffer{};
  while (true) {
    const auto count = ::read(descriptor, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Error::from_errno("read", errno);
    if (count == 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(count));
    if (text.size() > limit) return Error{"is longer than " + std::to_string(limit) + " bytes"};
  }
}

}  // namespace

Result<std::optional<std::string>> read_trusted(const std::filesystem::path& file,
                                                std::size_t limit, uid_t owner) {
  const auto name = file.string();
  // O_NONBLOCK: a FIFO in its place must not hold us up.
  const UniqueFd descriptor(
      ::open(file.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (!descriptor) {
    if (errno == ENOENT || errno == ENOTDIR) return std::optional<std::string>();
    if (errno == ELOOP) return Error{name + " is a symbolic link"};
    return Error::from_errno(name, errno);
  }
  if (const auto reason = why_not(descriptor.get(), owner)) return Error{name + " " + *reason};
  auto text = read_all(descriptor.get(), limit);
  if (!text) return Error{name + " " + text.error().message};
  return std::optional<std::string>(std::move(*text));
}

Result<nlohmann::json> parse_json(std::string_view text) {
  bool too_deep = false;
  const auto watch = [&too_deep](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
    too_deep = too_deep || depth > k_depth_limit;
    return !too_deep;
  };
  auto document = nlohmann::json::parse(text, watch, false);
  if (too_deep) return Error{"is nested too deeply"};
  if (document.is_discarded()) return Error{"is not JSON"};
  return document;
}

}  // namespace mps::identity
