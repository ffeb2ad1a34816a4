// The files of our shares in a CDI directory (/var/run/cdi), where others have theirs too, perhaps
// another supervisor: ours are those whose share lies in our run directory.
//
// Threading: one thread. Reads and writes small files; a look at what has not changed is a listing
// and a stat for each share.
#pragma once

#include <sys/types.h>

#include <ctime>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "cdi/spec.h"

namespace mps::cdi {

class Directory {
 public:
  // Both absolute and normal; touches nothing.
  Directory(std::filesystem::path path, std::filesystem::path run_dir)
      : path_(std::move(path)), run_dir_(std::move(run_dir)) {}

  // Makes them what they are to be: writes what is missing or differs, and removes those of ours
  // that are not wanted. What could not be done, each "path: reason"; it is tried again next time.
  std::vector<std::string> settle(const std::vector<Spec>& wanted);
  // One of them, now.
  Result<void> remove(const std::string& name);

  [[nodiscard]] bool has(const std::string& name) const { return written_.contains(name); }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  // Of the first, of this one and what it could not be written for.
  [[nodiscard]] std::string why_not(const std::string& name) const;

 private:
  struct Identity {
    dev_t device = 0;
    ino_t inode = 0;
    off_t size = 0;
    timespec changed{};
    bool operator==(const Identity& other) const;
  };
  struct Written {
    std::string text;
    Identity identity;
  };
  static std::optional<Identity> look(const std::filesystem::path& file);
  [[nodiscard]] bool is_ours(const std::filesystem::path& folder) const;
  Result<void> make() const;
  Result<void> put(const Spec& spec);
  [[nodiscard]] Result<void> write(const std::filesystem::path& file,
                                   const std::string& text) const;
  void sweep(const std::set<std::string>& wanted, std::vector<std::string>& troubles);

  std::filesystem::path path_;
  std::filesystem::path run_dir_;
  std::map<std::string, Written> written_;     // by name
  std::map<std::string, std::string> failed_;  // by name, why
  std::set<std::string> passed_over_;          // files that cannot be read as ours; said once
};

}  // namespace mps::cdi
