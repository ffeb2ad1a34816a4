// Which processes a launcher may speak for: itself, and what descends from it. The chain of parents
// is read from /proc; a pid that another process has meanwhile is told by its start. Of an orphan
// the parent is the next subreaper above it, so a launcher that is one keeps its own.
//
// Threading: stateless, any thread; reads /proc.
#pragma once

#include <vector>

#include "process/proc.h"
#include "share/records.h"

namespace mps::admission {

inline constexpr int k_generations = 256;  // who is further down counts as none of the family

// Of `processes`, those that are `root` itself or descend from it, and live.
std::vector<share::Process> family_of(const share::Process& root,
                                      const std::vector<share::Process>& processes,
                                      const process::Proc& proc);

}  // namespace mps::admission
