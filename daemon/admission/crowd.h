// Who has how many connections, and who has to give one up when there are too many: bounds in all,
// per container and per uid, such that no container's thousands keep another's first one out. Pure.
//
// Threading: one thread.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace mps::admission {

using ConnectionId = std::uint64_t;  // never used twice

// What the connections of one container are counted by, of the text of /proc/<pid>/cgroup: all of
// it. Only what a user may have made within its own slice of systemd counts as that one user.
std::string container_key(std::string_view cgroups);

struct CrowdBounds {
  std::size_t connections = 4096;
  std::size_t of_container = 256;
  std::size_t of_uid = 2048;  // one uid can be that of many containers
};

class Crowd {
 public:
  explicit Crowd(CrowdBounds bounds) : bounds_(bounds) {}

  // What a newcomer finds: a free place, or that one of its own container's connections, or one of
  // the largest other's, would have to end (the caller chooses which), or neither.
  enum class Place { free, of_own, of_others, none };
  struct Finding {
    Place place = Place::free;
    std::vector<ConnectionId> candidates{};
  };
  [[nodiscard]] Finding look(const std::string& container, uid_t uid) const;

  void join(ConnectionId id, const std::string& container, uid_t uid);
  void leave(ConnectionId id);

  // Who has something to say takes turns: one of each container, then the next of each.
  void ready(ConnectionId id);
  std::optional<ConnectionId> next();
  [[nodiscard]] bool anybody_ready() const { return !turns_.empty(); }

  [[nodiscard]] std::size_t size() const { return members_.size(); }

 private:
  struct Container {
    std::string key;
    std::unordered_map<uid_t, std::set<ConnectionId>> of{};
    std::size_t size = 0;
    std::deque<ConnectionId> ready{};
  };
  struct Member {
    Container* container = nullptr;
    uid_t uid = 0;
    bool is_ready = false;
  };

  [[nodiscard]] static std::size_t count(const Container& container, std::optional<uid_t> uid);
  [[nodiscard]] static std::vector<ConnectionId> list(const Container& container,
                                                      std::optional<uid_t> uid);
  [[nodiscard]] Finding from_largest(const Container* own, std::optional<uid_t> uid) const;

  CrowdBounds bounds_;
  std::unordered_map<std::string, std::unique_ptr<Container>> containers_;
  std::unordered_map<uid_t, std::size_t> uids_;
  std::unordered_map<ConnectionId, Member> members_;
  std::deque<Container*> turns_;
};

}  // namespace mps::admission
