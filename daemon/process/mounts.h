// Who has a folder mounted, in any mount namespace of this machine: /proc/<pid>/mountinfo
// (proc(5)), looked at once for each namespace.
//
// Threading: stateless, any thread. Reads as many files as there are mount namespaces, so not on a
// thread that must not wait.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mps::process {

struct Mount {
  std::string device;  // of the filesystem: "0:25"
  std::string root;    // what of it is mounted
  std::string point;   // where, in that namespace
};
// Lines that are none are passed over. Pure, as are the next two.
std::vector<Mount> parse_mounts(std::string_view mountinfo);

// A folder by what it is on, whatever it is called in a namespace.
struct FolderPlace {
  std::string device;
  std::string path;  // in the filesystem
};
// `folder`: absolute, without links. None: nothing there says where it is.
std::optional<FolderPlace> place_of(const std::vector<Mount>& mounts,
                                    const std::filesystem::path& folder);

// Whether a mount shows the folder, a part of it, or one of its parents that is below `base`.
bool shows(const Mount& mount, const FolderPlace& folder, const FolderPlace& base);

enum class Mounted { no, yes, unknown };

// One answer for each folder. All are below `base`, which may be mounted itself: that does not
// count. Unknown: where processes are hidden from us (a pid namespace of our own, no rights), so
// that 'no' is sure.
std::vector<Mounted> who_is_mounted(const std::filesystem::path& base,
                                    const std::vector<std::filesystem::path>& folders,
                                    const std::filesystem::path& proc = "/proc");

}  // namespace mps::process
