// All policies that are in force at one time, made from the files as they are now and what was in
// force before. Pure.
//
// A file is good or bad as a whole. A bad one keeps what it said last, when it was good; whom it
// may be for and was not before is refused, not given the default policy. Of a file that cannot be
// read at all nobody knows that. Nothing here reaches running clients.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "policy/parse.h"
#include "policy/policy.h"

namespace mps::policy {

struct SourceFile {
  std::string name;  // in the directory; any bytes but '/' and NUL, so make it printable
  std::string text;
  // Why it is not taken ("is not a regular file"). Then the text is as much of it as there is, to
  // know whom it may be for.
  std::string trouble;
  bool operator==(const SourceFile&) const = default;
};

// A good file's text and what it says; shared by the generations that have it.
struct Accepted {
  std::string text;
  std::string hash;
  std::vector<Policy> policies;
};

struct File {
  enum class State { good, last_good, bad } state = State::bad;
  std::string name;
  std::shared_ptr<const Accepted> accepted;  // none where it is bad
  std::vector<std::string> errors;           // why it is not good
  std::vector<Claim> claims;                 // of what is there now
};
const char* to_string(File::State state);  // "good", "lastGood", "bad"

// A namespace that only bad files speak of.
struct Refused {
  std::string file;
  Mark mark{};
  std::string error;  // the file's first
};

struct Generation {
  std::uint64_t number = 0;  // 0: before the first
  std::string hash;          // of what is in force: the same on every node that has the same
  std::vector<File> files;   // by name
  std::map<std::string, const Policy*, std::less<>> policies;  // by subject; owned by `files`
  std::map<std::string, Refused, std::less<>> refused;         // by subject

  [[nodiscard]] std::size_t bad_files() const;
};

// The number goes up where something else is in force than before. Errors of files that are as they
// were are found again, as devices may have changed.
std::shared_ptr<const Generation> next_generation(const Generation& before,
                                                  const std::vector<SourceFile>& files,
                                                  const std::vector<DeviceFacts>& devices);

}  // namespace mps::policy
