#include "base/file.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>

#include "base/unique_fd.h"

namespace mps {

namespace {

Result<void> write_all(int descriptor, std::string_view text, const std::string& name) {
  while (!text.empty()) {
    const auto count = ::write(descriptor, text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Error::from_errno(name, errno);
    text.remove_prefix(static_cast<std::size_t>(count));
  }
  return {};
}

Result<void> sync(int descriptor, const std::string& name) {
  if (::fsync(descriptor) != 0) return Error::from_errno(name, errno);
  return {};
}

Result<void> write_new(const std::filesystem::path& file, std::string_view text) {
  const UniqueFd descriptor(
      ::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!descriptor) return Error::from_errno(file.string(), errno);
  if (auto written = write_all(descriptor.get(), text, file.string()); !written) return written;
  return sync(descriptor.get(), file.string());
}

}  // namespace

Result<std::string> read_file(const std::filesystem::path& file, std::size_t limit) {
  const UniqueFd descriptor(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!descriptor)
    return errno == ENOENT ? Result<std::string>(std::string())
                           : Error::from_errno(file.string(), errno);
  std::string text;
  std::array<char, 65536> buffer{};
  while (text.size() <= limit) {
    const auto count = ::read(descriptor.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Error::from_errno(file.string(), errno);
    if (count == 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(count));
  }
  return Error{file.string() + ": too large for what it should hold"};
}

Result<void> replace_file(const std::filesystem::path& file, std::string_view text) {
  auto temporary = file;
  temporary += ".new";
  if (auto written = write_new(temporary, text); !written) return written;
  if (::rename(temporary.c_str(), file.c_str()) != 0)
    return Error::from_errno(file.string(), errno);
  const auto folder = file.parent_path();
  const UniqueFd directory(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory) return Error::from_errno(folder.string(), errno);
  return sync(directory.get(), folder.string());
}

}  // namespace mps
