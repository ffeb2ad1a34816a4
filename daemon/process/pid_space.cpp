#include "process/pid_space.h"

#include <system_error>

namespace mps::process {

bool in_node_pid_namespace(const std::filesystem::path& proc) {
  std::error_code error;
  return std::filesystem::read_symlink(proc / "self/ns/pid", error) == "pid:[4026531836]";
}

}  // namespace mps::process
