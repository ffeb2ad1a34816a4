#include "identity/cache.h"

namespace mps::identity {

std::optional<Identity> Cache::find(const std::string& key) const {
  const std::lock_guard lock(mutex_);
  const auto found = by_key_.find(key);
  return found == by_key_.end() ? std::nullopt : std::optional<Identity>(*found->second);
}

void Cache::keep(const Identity& identity) {
  const std::lock_guard lock(mutex_);
  if (limit_ == 0 || by_key_.contains(identity.container)) return;
  while (order_.size() >= limit_) {
    by_key_.erase(order_.front().container);
    order_.pop_front();
  }
  order_.push_back(identity);
  by_key_.emplace(identity.container, std::prev(order_.end()));
}

Cache::Order Cache::everything() const {
  const std::lock_guard lock(mutex_);
  return order_;
}

std::size_t Cache::forget_dead(const CgroupFs& cgroups) {
  std::size_t forgotten = 0;
  // Looked at without the lock: nobody waits for the file system here.
  for (const auto& identity : everything()) {
    if (cgroups.find(identity.cgroup.at).inode == identity.cgroup.inode) continue;
    const std::lock_guard lock(mutex_);
    const auto found = by_key_.find(identity.container);
    if (found == by_key_.end()) continue;
    order_.erase(found->second);
    by_key_.erase(found);
    ++forgotten;
  }
  return forgotten;
}

std::size_t Cache::size() const {
  const std::lock_guard lock(mutex_);
  return order_.size();
}

}  // namespace mps::identity
