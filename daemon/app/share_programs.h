// What a container finds in its share besides the sockets: copies of mps-run and libmps-shim.so, in
// folders where uid 0 of a container with a writable mount may do anything. So they are copies, one
// of each for each share, and looked at whenever the share's sockets are: their identity first, and
// what is in them only where that is not what it was.
//
// Threading: one thread. A look costs some system calls; putting one there, a copy of the file.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <ctime>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace mps::app {

class SharePrograms {
 public:
  struct Program {
    std::string folder;  // in the share: "bin"
    std::string name;
    std::filesystem::path source;
  };
  // Of those that cannot be read (an Error each, in `missing`) none is put anywhere.
  SharePrograms(std::vector<Program> programs, std::vector<Error>& missing);

  struct Looked {
    std::vector<std::string> replaced{};  // "bin/mps-run": something else was there
    std::optional<Error> trouble{};       // of the first that could not be put there
    bool noexec = false;                  // none can be started there; looked at once a folder
  };
  // Of a share's folder. Never through a link that is in it.
  Looked keep(const std::filesystem::path& share);
  // It is gone.
  void forget(const std::filesystem::path& share) { known_.erase(share); }

 private:
  struct Source {
    Program program;
    UniqueFd file;
    std::uint64_t size = 0;
  };
  // A file that has not been touched since it was looked at.
  struct Identity {
    dev_t device = 0;
    ino_t inode = 0;
    off_t size = 0;
    timespec changed{};  // by the kernel alone: nobody can set it back
    bool operator==(const Identity& other) const;
  };
  static Identity identity_of(const struct stat& found);
  // True: something else was there.
  Result<bool> keep_one(const Source& source, int share, std::optional<Identity>& known);
  [[nodiscard]] static bool is_ours(const Source& source, int folder, const struct stat& found);
  static Result<void> put(const Source& source, int folder);

  std::vector<Source> sources_;
  std::map<std::filesystem::path, std::vector<std::optional<Identity>>> known_;
};

}  // namespace mps::app
