// Answers kept by the cgroup that they are about. Threading: any thread, it locks.
#pragma once

#include <cstddef>
#include <list>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>

#include "identity/identity.h"

namespace mps::identity {

class Cache {
 public:
  explicit Cache(std::size_t limit) : limit_(limit) {}

  [[nodiscard]] std::optional<Identity> find(const std::string& key) const;
  void keep(const Identity& identity);  // by its container; the oldest goes where it gets too many
  std::size_t forget_dead(const CgroupFs& cgroups);
  [[nodiscard]] std::size_t size() const;

 private:
  using Order = std::list<Identity>;
  [[nodiscard]] Order everything() const;

  std::size_t limit_;
  mutable std::mutex mutex_;
  Order order_;  // oldest first
  std::unordered_map<std::string, Order::iterator> by_key_;
};

}  // namespace mps::identity
