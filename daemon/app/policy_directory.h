// Reads the files of the policy directory as they are now: texts, or why there is none. What they
// say is not looked at.
//
// Read are the names that end in .yaml or .yml and do not begin with '.'. In a mounted ConfigMap
// (a `..data` link to the directory of its version, and a link into it for each file) all files of
// one call are of one version, also while kubelet switches it; that version's own list of files
// counts, as kubelet makes and removes the links only after the switch.
//
// Never waits for a file: what is not a regular one is not even opened, whatever leads to it. Keeps
// nothing. (A directory of a network may still hang.)
// Threading: any thread, several at once.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "policy/generation.h"

namespace mps::app {

inline constexpr std::size_t k_policy_file_bytes = std::size_t{256} * 1024;
inline constexpr std::size_t k_policy_files = 4096;
inline constexpr std::size_t k_policy_bytes = std::size_t{16} * 1024 * 1024;  // of all files

// One that is too large has its first k_policy_file_bytes beside the trouble.
using PolicyFile = policy::SourceFile;

struct PolicyListing {
  std::vector<PolicyFile> files;  // sorted by name
  // From the version of a ConfigMap: a file that is not here was removed, and is not just about to
  // be written anew.
  bool one_version = false;
};

// An error where the directory as a whole cannot be read, has too many files or too large ones, has
// a `..data` that leads nowhere, or was switched each time while it was read.
Result<PolicyListing> list_policy_directory(const std::filesystem::path& path);
// Its files alone.
Result<std::vector<PolicyFile>> read_policy_directory(const std::filesystem::path& path);

// One file that a user named, so whatever it is (a pipe too), by the same limit and in the same
// words. Its name is its path. May wait, as a pipe does.
PolicyFile read_policy_file(const std::filesystem::path& path);

// Whether a change of this name in the directory can change what is read. Not those of kubelet that
// are on their way (`..2026_…`, `..data_tmp`).
bool may_be_policy(std::string_view name);

}  // namespace mps::app
