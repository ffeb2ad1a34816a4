#include "admission/lineage.h"

#include <algorithm>
#include <iterator>

namespace mps::admission {

namespace {

bool descends(const share::Process& root, const share::Process& process,
              const process::Proc& proc) {
  auto pid = process.pid;
  auto born_by = process.start_ticks;  // nobody's parent is younger
  for (int i = 0; i < k_generations && pid > 0; ++i) {
    const auto stat = proc.stat(pid);
    if (!stat || stat->start_time > born_by) return false;
    if (pid == process.pid && stat->start_time != process.start_ticks) return false;
    if (pid == root.pid) return stat->start_time == root.start_ticks;
    pid = stat->parent;
    born_by = stat->start_time;
  }
  return false;
}

}  // namespace

std::vector<share::Process> family_of(const share::Process& root,
                                      const std::vector<share::Process>& processes,
                                      const process::Proc& proc) {
  std::vector<share::Process> family;
  std::copy_if(
      processes.begin(), processes.end(), std::back_inserter(family),
      [&root, &proc](const share::Process& process) { return descends(root, process, proc); });
  return family;
}

}  // namespace mps::admission
