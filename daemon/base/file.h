// Small files of our own state: read whole, and replaced whole or not at all.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

#include "base/result.h"

namespace mps {

// Empty where there is no such file; an Error beyond `limit` bytes.
Result<std::string> read_file(const std::filesystem::path& file, std::size_t limit);

// Written beside it, mode 0600, synced to the disk and renamed: whoever reads, and whoever comes
// after a power cut, has the old text or the new one.
Result<void> replace_file(const std::filesystem::path& file, std::string_view text);

}  // namespace mps
