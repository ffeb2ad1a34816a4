#include "admission/crowd.h"

#include <algorithm>

namespace mps::admission {

namespace {

// "/user.slice/user-1000.slice/…": a user may make as many cgroups in there as it likes.
std::string_view without_own(std::string_view line) {
  constexpr std::string_view k_users = ":/user.slice/user-";
  const auto at = line.find(k_users);
  if (at == std::string_view::npos) return line;
  return line.substr(0, line.find('/', at + k_users.size()));
}

}  // namespace

std::string container_key(std::string_view cgroups) {
  std::string key;
  while (!cgroups.empty()) {
    const auto line = cgroups.substr(0, cgroups.find('\n'));
    cgroups.remove_prefix(std::min(line.size() + 1, cgroups.size()));
    (key += without_own(line)) += '\n';
  }
  return key;
}

std::size_t Crowd::count(const Container& container, std::optional<uid_t> uid) {
  if (!uid) return container.size;
  const auto found = container.of.find(*uid);
  return found == container.of.end() ? 0 : found->second.size();
}

std::vector<ConnectionId> Crowd::list(const Container& container, std::optional<uid_t> uid) {
  std::vector<ConnectionId> all;
  for (const auto& [who, ids] : container.of) {
    if (!uid || who == *uid) all.insert(all.end(), ids.begin(), ids.end());
  }
  return all;
}

// Only from a container that has more than the newcomer's own would have then: among equals, who is
// there stays. Looks at each container, but only while a bound is reached.
Crowd::Finding Crowd::from_largest(const Container* own, std::optional<uid_t> uid) const {
  const Container* largest = nullptr;
  for (const auto& [key, container] : containers_) {
    if (largest == nullptr || count(*container, uid) > count(*largest, uid)) {
      largest = container.get();
    }
  }
  const auto ours = own == nullptr ? 0 : count(*own, uid);
  if (largest == nullptr || count(*largest, uid) <= ours + 1) return {Place::none};
  return {Place::of_others, list(*largest, uid)};
}

Crowd::Finding Crowd::look(const std::string& container, uid_t uid) const {
  const auto found = containers_.find(container);
  const auto* own = found == containers_.end() ? nullptr : found->second.get();
  if (own != nullptr && own->size >= bounds_.of_container) {
    return {Place::of_own, list(*own, std::nullopt)};
  }
  const auto of_uid = uids_.find(uid);
  if (of_uid != uids_.end() && of_uid->second >= bounds_.of_uid) return from_largest(own, uid);
  if (members_.size() >= bounds_.connections) return from_largest(own, std::nullopt);
  return {};
}

void Crowd::join(ConnectionId id, const std::string& container, uid_t uid) {
  auto& place = containers_[container];
  if (!place) place = std::make_unique<Container>(Container{container});
  place->of[uid].insert(id);
  ++place->size;
  ++uids_[uid];
  members_[id] = {place.get(), uid, false};
}

void Crowd::leave(ConnectionId id) {
  const auto found = members_.find(id);
  if (found == members_.end()) return;
  const auto [container, uid, is_ready] = found->second;
  members_.erase(found);
  if (is_ready) std::erase(container->ready, id);
  if (is_ready && container->ready.empty()) std::erase(turns_, container);
  auto& own = container->of[uid];
  own.erase(id);
  if (own.empty()) container->of.erase(uid);
  if (--uids_[uid] == 0) uids_.erase(uid);
  if (--container->size == 0) containers_.erase(containers_.find(container->key));
}

void Crowd::ready(ConnectionId id) {
  const auto found = members_.find(id);
  if (found == members_.end() || found->second.is_ready) return;
  found->second.is_ready = true;
  auto& container = *found->second.container;
  if (container.ready.empty()) turns_.push_back(&container);
  container.ready.push_back(id);
}

std::optional<ConnectionId> Crowd::next() {
  if (turns_.empty()) return std::nullopt;
  auto& container = *turns_.front();
  turns_.pop_front();
  const auto id = container.ready.front();
  container.ready.pop_front();
  members_.at(id).is_ready = false;
  if (!container.ready.empty()) turns_.push_back(&container);
  return id;
}

}  // namespace mps::admission
