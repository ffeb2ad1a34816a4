#include "identity/identity.h"

#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/text.h"
#include "identity/cache.h"
#include "identity/life.h"
#include "identity/overrides.h"
#include "identity/subject.h"
#include "process/proc.h"

namespace mps::identity {

struct Resolver::State {
  explicit State(ResolverSettings wanted)
      : settings(std::move(wanted)), proc(settings.proc), cache(settings.cache_limit) {}

  ResolverSettings settings;
  process::Proc proc;
  Cache cache;
};

namespace {

constexpr std::size_t k_short_id = 12;
constexpr std::size_t k_login_limit = 256 * std::size_t{1024};

Unidentified hidden() {
  return {
      "its process cannot be seen from here: the supervisor needs the node's pid namespace "
      "(hostPID: true)"};
}

Unidentified ended() {
  return {"the process ended while it was looked at"};
}

std::string key_of(const Cgroup& cgroup) {
  const auto* hierarchy = cgroup.at.hierarchy == Hierarchy::systemd ? "systemd:"
                          : cgroup.at.hierarchy == Hierarchy::pids  ? "pids:"
                                                                    : "";
  const auto name = hierarchy + to_string(cgroup.at);
  return cgroup.inode == 0 ? name : name + "#" + std::to_string(cgroup.inode);
}

// Static pods' uids are written with dashes and without.
bool is_same_uid(std::string left, std::string right) {
  std::erase(left, '-');
  std::erase(right, '-');
  return left == right;
}

// One peer's lookup.
class Lookup {
 public:
  Lookup(const ResolverSettings& settings, const Cache& cache, const Peer& peer)
      : settings_(settings), cache_(cache), peer_(peer) {}

  Answer run() {
    auto cgroup = read_cgroup();
    if (!cgroup) return Unidentified{cgroup.error().message};
    seen_ = made_whole(std::move(*cgroup), settings_.own_root);
    return std::visit([this](const auto& place) { return look_at(place); }, place_of(seen_.path));
  }

 private:
  [[nodiscard]] Result<CgroupPath> read_cgroup() const {
    const auto file = settings_.proc / std::to_string(peer_.pid) / "cgroup";
    const auto text = read_file(file, k_cgroup_file_limit);
    if (!text) return Error{"its cgroup cannot be read: " + text.error().message};
    return cgroup_that_counts(*text);
  }

  [[nodiscard]] Unidentified refuse(std::string_view why) const {
    return {"its cgroup " + printable(to_string(seen_)) + " " + std::string(why)};
  }

  [[nodiscard]] Identity start(const std::string& path) const {
    auto at = seen_;
    at.path = path;
    Identity identity;
    identity.cgroup = settings_.cgroups.find(at);
    identity.container = key_of(identity.cgroup);
    identity.uid = peer_.uid;
    return identity;
  }

  [[nodiscard]] std::optional<Identity> known(const Identity& identity) const {
    if (identity.cgroup.inode == 0) return std::nullopt;
    auto found = cache_.find(identity.container);
    if (found) found->uid = peer_.uid;
    return found;
  }

  [[nodiscard]] Answer look_at(const ContainerPlace& place) const {
    auto identity = start(place.cgroup);
    if (auto found = known(identity)) return std::move(*found);
    identity.container_id = place.container_id;
    identity.pod_uid = place.pod_uid;
    identity.runtime = place.runtime;
    const auto manual = find_override(settings_.overrides, settings_.records.owner,
                                      place.container_id, place.pod_uid);
    if (!manual) return refuse("cannot be looked up: " + manual.error().message);
    if (*manual) return by_hand(std::move(identity), **manual);
    if (place.container_id.empty()) {
      return refuse(place.pod_uid.empty() ? "is for containers, but names none"
                                          : "is a pod's, but names no container");
    }
    return by_record(std::move(identity), place);
  }

  [[nodiscard]] Answer by_hand(Identity identity, const Record& record) const {
    const auto named = settings_.cgroups.named_by_root(identity.cgroup.at);
    if (!named) return refuse("could be anybody's: " + named.error().message);
    return of_pod(std::move(identity), record);
  }

  [[nodiscard]] Answer by_record(Identity identity, const ContainerPlace& place) const {
    const auto claim = "names container " + place.container_id.substr(0, k_short_id);
    const auto record = find_record(settings_.records, place.container_id);
    if (!record) return refuse(claim + ": " + record.error().message);
    if (!*record) return refuse(claim + ", of which no runtime has a record");
    if (!confirms(**record, identity.cgroup.at, place.in_runtime_unit)) {
      return refuse(claim + ", but " + (*record)->file.string() + " says that its cgroup is \"" +
                    printable((*record)->cgroups_path) + "\"");
    }
    identity.runtime = (*record)->runtime;
    return by_confirmed(std::move(identity), **record);
  }

  [[nodiscard]] Answer by_confirmed(Identity identity, const Record& record) const {
    // From inside a cgroup namespace the pod's part of the path may not show; it is in the record.
    if (identity.pod_uid.empty()) {
      const auto whole = place_of(cgroup_named_by(record.cgroups_path).value_or("/"));
      if (const auto* place = std::get_if<ContainerPlace>(&whole)) {
        identity.pod_uid = place->pod_uid;
      }
    }
    // What CRI-O or Docker say of a pod counts in a pod's cgroup only: elsewhere it may be what
    // somebody wrote who runs containers with annotations of their own.
    const bool in_pod = !identity.pod_uid.empty();
    const bool says_pod = !record.pod_namespace.empty();
    if (!in_pod && !(says_pod && record.runtime == Runtime::containerd)) {
      return of_container(std::move(identity), record);
    }
    if (!says_pod) return refuse("is a pod's, but " + record.file.string() + " names no pod");
    if (in_pod && !is_same_uid(identity.pod_uid, record.pod_uid)) {
      return refuse("is of pod " + identity.pod_uid + ", but " + record.file.string() +
                    " is of pod \"" + printable(record.pod_uid) + "\"");
    }
    identity.pod_uid = record.pod_uid;
    return of_pod(std::move(identity), record);
  }

  [[nodiscard]] Answer of_pod(Identity identity, const Record& record) const {
    auto subject = pod_subject(record.pod_namespace);
    if (!subject) return Unidentified{record.file.string() + ": " + subject.error().message};
    identity.subject = std::move(*subject);
    identity.pod = record.pod;
    identity.container_name = record.container;
    identity.labels = record.labels;
    identity.owner = record.owner;
    return identity;
  }

  [[nodiscard]] Answer of_container(Identity identity, const Record& record) const {
    auto subject = container_subject(record.name, record.container_id);
    if (!subject) return Unidentified{record.file.string() + ": " + subject.error().message};
    identity.subject = std::move(*subject);
    identity.container_name = record.name;
    return identity;
  }

  [[nodiscard]] Answer look_at(const UnitPlace& place) const {
    auto identity = start(place.cgroup);
    if (auto found = known(identity)) return std::move(*found);
    const auto named = settings_.cgroups.named_by_root(identity.cgroup.at);
    if (!named) {
      return refuse("looks like unit " + place.unit + "'s, but " + named.error().message);
    }
    auto subject = unit_subject(place.unit);
    if (!subject) return refuse("is a unit's, and " + subject.error().message);
    identity.subject = std::move(*subject);
    identity.container_name = place.unit;
    return identity;
  }

  [[nodiscard]] Answer look_at(const SessionPlace& place) const {
    auto identity = start(place.cgroup);
    if (auto found = known(identity)) return std::move(*found);
    const auto named = settings_.cgroups.named_by_root(identity.cgroup.at, place.unit.empty());
    if (!named) {
      return refuse("looks like uid " + std::to_string(place.uid) + "'s, but " +
                    named.error().message);
    }
    identity.subject = user_subject(place.uid, settings_.login(place.uid));
    identity.container_name = place.unit;
    return identity;
  }

  [[nodiscard]] Answer look_at(const NoPlace&) const {
    Identity identity;
    identity.subject = user_subject(peer_.uid, settings_.login(peer_.uid));
    identity.container = "user:" + std::to_string(peer_.uid);
    identity.cgroup.at.path.clear();
    identity.uid = peer_.uid;
    return identity;
  }

  const ResolverSettings& settings_;
  const Cache& cache_;
  const Peer& peer_;
  CgroupPath seen_;
};

}  // namespace

std::optional<std::string> login_of(uid_t uid) {
  std::vector<char> buffer(1024);
  struct passwd entry {};
  struct passwd* found = nullptr;
  while (true) {
    const int error = ::getpwuid_r(uid, &entry, buffer.data(), buffer.size(), &found);
    if (error == ERANGE && buffer.size() < k_login_limit) {
      buffer.resize(buffer.size() * 4);
      continue;
    }
    if (error == EINTR) continue;
    if (error != 0 || found == nullptr) return std::nullopt;
    return std::string(entry.pw_name);
  }
}

Resolver::Resolver(ResolverSettings settings)
    : state_(std::make_unique<State>(std::move(settings))) {}
Resolver::Resolver(Resolver&&) noexcept = default;
Resolver& Resolver::operator=(Resolver&&) noexcept = default;
Resolver::~Resolver() = default;

Answer Resolver::identify(const Peer& peer) const {
  if (peer.pid <= 0) return hidden();
  const Life life(state_->proc, peer.pid, peer.pidfd);
  if (!life.goes_on()) return ended();
  auto answer = Lookup(state_->settings, state_->cache, peer).run();
  if (!life.goes_on()) return ended();
  const auto* identity = std::get_if<Identity>(&answer);
  if (identity != nullptr && identity->cgroup.inode != 0) state_->cache.keep(*identity);
  return answer;
}

bool Resolver::populated(const Cgroup& cgroup) const {
  return state_->settings.cgroups.populated(cgroup);
}

std::size_t Resolver::forget_dead() const {
  return state_->cache.forget_dead(state_->settings.cgroups);
}

std::size_t Resolver::remembered() const {
  return state_->cache.size();
}

}  // namespace mps::identity
