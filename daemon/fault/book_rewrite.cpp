#include "fault/book_rewrite.h"

namespace mps::fault {

void Rewrite::run() {
  file_.emplace(made());
}

Result<AppendFile::Successor> Rewrite::made() {
  auto fresh = AppendFile::Successor::make(plan_.path, k_suffix);
  if (!fresh) return fresh;
  if (auto written = fresh->append(plan_.head); !written) return written.error();
  for (const auto& [number, place] : plan_.incidents) {
    const auto line = read_part(plan_.source.get(), place.offset, place.size, plan_.path.string());
    if (!line) return line.error();
    offsets_[number] = fresh->size();
    if (auto written = fresh->append(*line); !written) return written.error();
  }
  if (auto written = fresh->append(plan_.foot); !written) return written.error();
  if (auto synced = fresh->sync(); !synced) return synced.error();
  return fresh;
}

}  // namespace mps::fault
