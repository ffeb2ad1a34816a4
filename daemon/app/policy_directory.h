// Reads the files of the policy directory as they are now: texts, or why there is none. What they
// say is not looked at.
//
// Read are the names that end in .yaml or .yml and do not begin with '.'. In a mounted ConfigMap
// (a `..data` link to the directory of its version, and a link into it for each file) all files of
// one call are of one version, also while kubelet switches it; that version's own list of files
// counts, as kubelet makes and removes the links only after the switch.
//
// Never waits for a file: what is not a regular one is not even opened. Keeps nothing.
// Threading: any thread, several at once.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "base/result.h"
#include "policy/generation.h"

namespace mps::app {

inline constexpr std::size_t k_policy_file_bytes = std::size_t{256} * 1024;
inline constexpr std::size_t k_policy_files = 4096;

using PolicyFile = policy::SourceFile;

// Sorted by name. An error where the directory as a whole cannot be read, has too many files, or
// was switched each time while it was read.
Result<std::vector<PolicyFile>> read_policy_directory(const std::filesystem::path& path);

}  // namespace mps::app
