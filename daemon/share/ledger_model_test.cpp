// Random histories, held against rules that are written down a second time here, naively.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "share/checkpoint.h"
#include "share/ledger_test_kit.h"

using namespace mps;
using namespace mps::share;
using namespace std::chrono_literals;

namespace {

constexpr std::uint64_t k_memory = 100;
constexpr unsigned k_clients = 12;

class Model {
 public:
  explicit Model(std::uint32_t seed) : random_(seed) {
    settings_.overcommit_threads = pick(3) == 0 ? 1.0 : 2.0;
    settings_.uid_conflict_waits = pick(2) == 0;
    settings_.passes = 3;
    settings_.bounds.waiting = 40;
    settings_.bounds.waiting_of_namespace = 15;
    settings_.bounds.connections_of_slot = 4;
    single_uid_ = pick(2) == 0;
    ledger_.emplace(settings_);
    for (const auto* id : {"gpu0.shared", "gpu0.ns-a", "gpu1.shared"}) doors_[id] = true;
    for (const auto& [id, open] : doors_) tell(id);
  }

  void step() {
    now_ += std::chrono::milliseconds(pick(400));
    take(ledger_->time_passed(now_));
    const auto what = pick(100);
    if (what < 50) {
      ask();
    } else if (what < 84) {
      end_slot();
    } else if (what < 88) {
      leave();
    } else if (what < 92) {
      const auto id = instance();
      doors_[id] = !doors_[id];
      tell(id);
    } else if (what < 94) {
      take(ledger_->adopt(instance(), {static_cast<pid_t>(1 + pick(60)), 1}, pick(2)));
    } else if (what < 98) {
      empty_cgroup();
    } else if (what == 98) {
      restart();
    }
    check();
  }

  void finish() {
    for (const auto& id : {"gpu0.shared", "gpu0.ns-a", "gpu1.shared"}) {
      take(ledger_->instance_removed(id, now_));
    }
    CHECK(final_.size() == asked_);
    CHECK(ledger_->waiting_count() == 0);
  }

 private:
  struct Sum {
    std::uint64_t clients = 0, memory = 0;
    double all = 0, limited = 0;
  };

  std::uint32_t pick(std::uint32_t below) { return static_cast<std::uint32_t>(random_()) % below; }

  std::string instance() {
    static const char* const k_ids[] = {"gpu0.shared", "gpu0.shared", "gpu0.ns-a", "gpu1.shared"};
    return k_ids[pick(4)];
  }

  static std::string device_of(const std::string& instance) {
    return instance.starts_with("gpu0") ? "GPU-0" : "GPU-1";
  }

  void tell(const std::string& id) {
    InstanceFacts facts;
    facts.id = id;
    facts.device = device_of(id);
    facts.device_name = id.substr(0, 4);
    facts.door = doors_[id] ? Door(Serving{}) : Door(NotReady{"starting"});
    facts.max_clients = k_clients;
    facts.memory_mebibytes = k_memory;
    facts.single_uid = single_uid_;
    take(ledger_->instance_changed(facts, now_));
  }

  // Quotas are the namespace's, so they are the same for all of its requests.
  static policy::Quota quota_of(const std::string& subject) {
    policy::Quota quota;
    if (subject == "a") quota.clients = {5, {}};
    if (subject == "b") quota.active_thread_percentage = {150, {}};
    return quota;
  }

  void ask() {
    Request request;
    request.id = ++asked_;
    request.instance = instance();
    request.share = request.instance + "/open";
    request.subject = request.instance == "gpu0.ns-a" ? "a" : std::string(1, "abcd"[pick(4)]);
    request.process = {static_cast<pid_t>(1 + pick(60)), 1};
    request.container = request.subject + std::to_string(request.process.pid % 7);
    if (pick(2) == 0) request.cgroup = "/" + request.container;
    request.uid = pick(8) == 0 ? 1 : 0;
    static constexpr double k_parts[] = {100, 100, 12.5, 25, 60};
    request.grant.active_thread_percentage = k_parts[pick(5)];
    if (pick(2) == 0) request.grant.pinned_memory_mebibytes = 1 + pick(pick(6) == 0 ? 90 : 20);
    request.quota = quota_of(request.subject);
    request.may_wait = pick(5) != 0;
    request.deadline = now_ + std::chrono::milliseconds(pick(20000));
    requests_[request.id] = request;
    take(ledger_->request(request, now_));
  }

  void end_slot() {
    const auto slots = ledger_->slots(1000);
    if (slots.empty()) return;
    take(ledger_->slot_ended(slots[pick(static_cast<std::uint32_t>(slots.size()))].slot.id, now_));
  }

  void leave() {
    const auto waiting = ledger_->waiting(1000);
    if (waiting.empty()) return;
    const auto id = waiting[pick(static_cast<std::uint32_t>(waiting.size()))].request.id;
    final_.insert(id);
    take(ledger_->peer_gone(id, now_));
    queue_.erase(id);
  }

  void empty_cgroup() {
    const auto admissions = ledger_->admissions(1000);
    if (admissions.empty()) return;
    const auto at = pick(static_cast<std::uint32_t>(admissions.size()));
    take(ledger_->cgroup_empty(admissions[at].admission.id));
  }

  // Who waits goes on waiting in the gate, and asks the new supervisor.
  void restart() {
    const auto read = replay(text_);
    REQUIRE(read.problems.empty());
    for (const auto id : queue_) final_.insert(id);
    queue_.clear();
    ledger_.emplace(settings_);
    ledger_->restore(read.state);
    for (const auto& [id, open] : doors_) tell(id);
  }

  void take(const Effects& effects) {
    for (const auto& change : effects.changes) {
      text_ += encode(change);
      REQUIRE(state_.apply(change));
    }
    for (const auto& [id, verdict] : effects.decisions) {
      REQUIRE(!final_.contains(id));
      if (std::holds_alternative<Waits>(verdict)) {
        REQUIRE(queue_.insert(id).second);
        continue;
      }
      final_.insert(id);
      queue_.erase(id);
    }
  }

  [[nodiscard]] Sum sum(const std::string& device, const std::string& subject) const {
    Sum total;
    for (const auto& [id, slot] : state_.slots) {
      if (slot.device != device) continue;
      const bool adopted = slot.admission == 0;
      if (!subject.empty()) {
        if (adopted || state_.admissions.at(slot.admission).subject != subject) continue;
      }
      ++total.clients;
      total.memory += slot.grant.pinned_memory_mebibytes.value_or(0);
      const auto part = slot.grant.active_thread_percentage;
      if (!adopted) total.all += part;
      if (part < 100) total.limited += part;
    }
    return total;
  }

  [[nodiscard]] std::uint64_t clients_at(const std::string& instance) const {
    return static_cast<std::uint64_t>(
        std::count_if(state_.slots.begin(), state_.slots.end(),
                      [&](const auto& slot) { return slot.second.instance == instance; }));
  }

  [[nodiscard]] std::set<uid_t> uids_at(const std::string& instance) const {
    std::set<uid_t> uids;
    for (const auto& [id, slot] : state_.slots) {
      if (slot.instance == instance) uids.insert(slot.uid);
    }
    return uids;
  }

  [[nodiscard]] bool fits(const Request& request) const {
    if (!doors_.at(request.instance)) return false;
    const auto mine = sum(device_of(request.instance), request.subject);
    const auto all = sum(device_of(request.instance), "");
    const auto part = request.grant.active_thread_percentage;
    if (request.quota.clients && mine.clients + 1 > request.quota.clients->value) return false;
    if (request.quota.active_thread_percentage &&
        mine.all + part > request.quota.active_thread_percentage->value) {
      return false;
    }
    if (clients_at(request.instance) + 1 > k_clients) return false;
    const auto memory = request.grant.pinned_memory_mebibytes;
    if (memory && all.memory + *memory > k_memory) return false;
    if (part < 100 && all.limited + part > settings_.overcommit_threads * 100) return false;
    const auto uids = uids_at(request.instance);
    return !single_uid_ || uids.empty() || uids == std::set<uid_t>{request.uid};
  }

  void check() {
    check_limits();
    check_views();
    check_waiting();
  }

  // Adopted clients come without being asked, so an instance may have more; nobody is let in then.
  void check_limits() {
    for (const auto* device : {"GPU-0", "GPU-1"}) {
      REQUIRE(sum(device, "a").clients <= 5);
      REQUIRE(sum(device, "b").all <= 150);
      REQUIRE(sum(device, "").memory <= k_memory);
      REQUIRE(sum(device, "").limited <= settings_.overcommit_threads * 100);
    }
    for (const auto& [id, open] : doors_) {
      std::uint64_t ours = 0;
      std::set<uid_t> uids;
      for (const auto& [number, slot] : state_.slots) {
        if (slot.instance != id || slot.admission == 0) continue;
        ++ours;
        uids.insert(slot.uid);
      }
      REQUIRE(ours <= k_clients);
      REQUIRE((!single_uid_ || uids.size() <= 1));
    }
  }

  void check_views() {
    State views;
    views.counters = state_.counters;
    for (const auto& view : ledger_->admissions(1000)) {
      views.admissions[view.admission.id] = view.admission;
    }
    for (const auto& view : ledger_->slots(1000)) views.slots[view.slot.id] = view.slot;
    REQUIRE(views == state_);
    for (const auto& view : ledger_->namespaces()) {
      const auto recount = sum(view.device, view.subject);
      REQUIRE(view.use == Use{recount.clients, recount.all, recount.limited, recount.memory});
    }
    for (const auto& view : ledger_->devices()) {
      const auto recount = sum(view.device, "");
      REQUIRE(view.use.clients == recount.clients);
      REQUIRE(view.use.pinned_memory_mebibytes == recount.memory);
      REQUIRE(view.use.limited_percentage == recount.limited);
    }
  }

  // The first of each line waits only for what is not there, or for what is kept for another.
  void check_waiting() {
    std::map<std::pair<std::string, std::string>, RequestId> first;
    std::map<std::string, RequestId> kept;
    for (const auto& view : ledger_->devices()) {
      if (view.room_kept_for) kept[view.device] = *view.room_kept_for;
    }
    const auto waiting = ledger_->waiting(1000);
    REQUIRE(waiting.size() == queue_.size());
    for (const auto& view : waiting) {
      REQUIRE(view.request.deadline > now_);
      auto& id = first[{view.request.instance, view.request.subject}];
      if (id == 0 || view.request.id < id) id = view.request.id;
    }
    for (const auto& [line, id] : first) {
      const auto& request = requests_.at(id);
      if (!fits(request)) continue;
      const auto holder = kept.find(device_of(request.instance));
      REQUIRE(holder != kept.end());
      REQUIRE(holder->second != id);
    }
  }

  std::mt19937 random_;
  LedgerSettings settings_;
  std::optional<Ledger> ledger_;
  bool single_uid_ = false;
  TimePoint now_{};
  std::map<std::string, bool> doors_;
  std::map<RequestId, Request> requests_;
  std::set<RequestId> queue_, final_;
  State state_;
  std::string text_;
  RequestId asked_ = 0;
};

}  // namespace

TEST_CASE("random histories keep to the rules") {
  for (std::uint32_t seed = 1; seed <= 6; ++seed) {
    CAPTURE(seed);
    Model model(seed);
    for (unsigned step = 0; step < 1000; ++step) model.step();
    model.finish();
  }
}
