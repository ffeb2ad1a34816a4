#include "device/compute_mode_ledger.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/unique_fd.h"

namespace mps::device {

namespace {

constexpr std::size_t k_max_size = 1024UL * 1024;

Result<std::string> read_whole(const std::filesystem::path& file) {
  const UniqueFd descriptor(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!descriptor)
    return errno == ENOENT ? Result<std::string>(std::string())
                           : Error::from_errno(file.string(), errno);
  std::string text;
  std::array<char, 4096> buffer{};
  while (text.size() <= k_max_size) {
    const auto count = ::read(descriptor.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Error::from_errno(file.string(), errno);
    if (count == 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(count));
  }
  return Error{file.string() + ": too large for what it should hold"};
}

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

Error damaged(const std::filesystem::path& file, const std::string& reason) {
  return {file.string() + ": " + reason +
          "; it says which compute modes to put back: mend it, or remove it to leave them as they "
          "are"};
}

}  // namespace

Result<ComputeModeLedger> ComputeModeLedger::open(const std::filesystem::path& file) {
  ComputeModeLedger ledger;
  ledger.file_ = file;
  const auto text = read_whole(file);
  if (!text) return text.error();
  if (text->empty()) return ledger;
  const auto json = nlohmann::json::parse(*text, nullptr, false);
  if (!json.is_object()) return damaged(file, "is no JSON object");
  for (const auto& [uuid, value] : json.items()) {
    const auto mode =
        value.is_string() ? parse_compute_mode(value.get<std::string>()) : std::nullopt;
    if (!mode) return damaged(file, "no compute mode: " + value.dump());
    ledger.original_[uuid] = *mode;
  }
  return ledger;
}

Result<void> ComputeModeLedger::remember(const std::string& uuid, ComputeMode before) {
  if (!original_.emplace(uuid, before).second) return {};
  auto saved = save();
  if (!saved) original_.erase(uuid);
  return saved;
}

Result<void> ComputeModeLedger::forget(const std::string& uuid) {
  const auto entry = original_.extract(uuid);
  if (entry.empty()) return {};
  auto saved = save();
  if (!saved) original_.emplace(entry.key(), entry.mapped());
  return saved;
}

Result<void> ComputeModeLedger::save() const {
  auto json = nlohmann::json::object();
  for (const auto& [uuid, mode] : original_) json[uuid] = to_string(mode);
  return replace_file(file_, json.dump(2) + "\n");
}

}  // namespace mps::device
