#include "device_search.h"

#include <dirent.h>
#include <string.h>

namespace mps::client {

namespace {

constexpr int k_most_neighbours = 256;
constexpr long long k_neighbour_ms = 500;

class Search {
 public:
  Search(const char* wanted, long long until) : wanted_(wanted), until_(until) {}

  // Each entry of `folder`, or `below` in it.
  void look_in(const char* folder, const char* below, Place& found) {
    DIR* entries = ::opendir(folder);
    if (entries == nullptr) return;
    // NOLINTNEXTLINE(concurrency-mt-unsafe): nobody else has this DIR
    while (const dirent* entry = ::readdir(entries)) {
      if (entry->d_name[0] == '.' || ++seen_ > k_most_neighbours) continue;
      Text<4096> path;
      Place place;
      if (!path.print("%s/%s%s", folder, static_cast<const char*>(entry->d_name), below)) continue;
      if (!is_share(path.data, place) || !is_of_device(place)) continue;
      if (++matches_ == 1) found = place;
    }
    ::closedir(entries);
  }

  bool is_of_device(const Place& place) {
    Connection connection;
    Agent agent;
    const long long soon = now_ms() + k_neighbour_ms;
    const auto met = meet(connection, place.socket.data, soon < until_ ? soon : until_, agent);
    return met.verdict == Verdict::granted && is_meant(agent, wanted_);
  }

  [[nodiscard]] int matches() const { return matches_; }

 private:
  const char* wanted_;
  long long until_;
  int seen_ = 0;
  int matches_ = 0;
};

}  // namespace

bool is_meant(const Agent& agent, const char* wanted) {
  if (equal(wanted, agent.instance.data) || equal(wanted, agent.device_name.data)) return true;
  if (equal(wanted, agent.share.data) && !equal(wanted, "open")) return true;
  const size_t length = strlen(wanted);
  Text<128> numbered;
  if (whole_number(wanted, length) >= 0 && numbered.print("gpu%s", wanted)) {
    return equal(numbered.data, agent.device_name.data);
  }
  return length >= 8 && starts_with_ignoring_case(agent.device.data, wanted, length);
}

bool find_device(const Place& own, const char* wanted, long long until, Place& found,
                 Text<512>& why) {
  Search search(wanted, until);
  found = own;
  if (search.is_of_device(own)) return true;
  Text<4096> above;
  above.print("%s", own.folder.data);
  const char* name = strrchr(above.data, '/');
  const bool open = name != nullptr && equal(name, "/open");
  if (go_up(above.data) && (!open || go_up(above.data))) {
    search.look_in(above.data, open ? "/open" : "", found);
  }
  if (search.matches() == 1) return true;
  if (search.matches() == 0) {
    why.print("no share of device \"%s\" answers beside %s", wanted, own.folder.data);
  } else {
    why.print("%d shares beside %s are of device \"%s\": name the share", search.matches(),
              own.folder.data, wanted);
  }
  return false;
}

}  // namespace mps::client
