// One reading of the policy directory, what is new by it, and what of it outlives a restart.
#pragma once

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "policy/generation.h"

namespace mps::app {

// Files that had a say and are missing, and since when that is known.
using GoneFiles = std::map<std::string, std::chrono::steady_clock::time_point>;
// An editor may move the old file away before it writes the new one.
inline constexpr std::chrono::milliseconds k_gone_for_good{100};

struct ReadingOrder {
  std::filesystem::path directory;
  std::shared_ptr<const policy::Generation> before;  // never null
  std::vector<policy::DeviceFacts> devices;
  // Nothing: what is missing was removed (while nobody looked).
  std::optional<GoneFiles> gone;
};

// What one reading of the directory came to.
struct PolicyReading {
  std::shared_ptr<const policy::Generation> generation;  // never null
  std::string error;  // the directory could not be read; then the generation is the one before
  // Missing, and not yet long enough: the generation has them as they were.
  std::vector<std::string> kept;
  // What is missing may be another file by now (its namespaces are): the generation is the one
  // before, until that is sure.
  bool undecided = false;
};

// Any thread; may hang. Does not throw.
PolicyReading read_policies(const ReadingOrder& order);
// The same for files that have been read already. `at`: when. Pure.
PolicyReading next_reading(const ReadingOrder& order, std::vector<policy::SourceFile> files,
                           bool one_version, std::chrono::steady_clock::time_point at);

// What changed from one reading to the next, as events: kind and message.
struct PolicyNews {
  std::string kind;
  std::string message;
  bool operator==(const PolicyNews&) const = default;
};
std::vector<PolicyNews> policy_news(const PolicyReading& before, const PolicyReading& now,
                                    const std::filesystem::path& directory);

// The last good texts, and the generation's number: enough to go on from after a restart.
inline constexpr std::size_t k_store_limit = std::size_t{64} * 1024 * 1024;
Result<std::string> to_store(const policy::Generation& generation);
Result<std::shared_ptr<const policy::Generation>> from_store(const std::string& text);

}  // namespace mps::app
