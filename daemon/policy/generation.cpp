#include "policy/generation.h"

#include <algorithm>
#include <atomic>
#include <compare>
#include <functional>
#include <future>
#include <set>
#include <system_error>
#include <thread>
#include <utility>

#include "base/text.h"
#include "policy/subject.h"
#include "yaml/reader.h"

namespace mps::policy {
namespace {

using AcceptedPtr = std::shared_ptr<const Accepted>;

constexpr std::size_t k_worth_threads = 64;
constexpr unsigned k_most_readers = 4;

// One file on its way: what it says now, if that is right, and what it said last.
struct Candidate {
  File file;
  AcceptedPtr fresh;  // none: not right
  AcceptedPtr last;   // what it stood for in the generation before

  [[nodiscard]] const AcceptedPtr& standing() const { return fresh ? fresh : last; }
};

AcceptedPtr find_last(const Generation& before, const std::string& name) {
  const auto found = std::lower_bound(
      before.files.begin(), before.files.end(), name,
      [](const File& file, const std::string& wanted) { return file.name < wanted; });
  const bool known = found != before.files.end() && found->name == name;
  return known ? found->accepted : nullptr;
}

void claim_all(const AcceptedPtr& accepted, std::vector<Claim>& claims) {
  for (const auto& policy : accepted->policies) claims.push_back({policy.subject, policy.mark});
}

Candidate read(const SourceFile& source, AcceptedPtr last,
               const std::vector<DeviceFacts>& devices) {
  Candidate candidate;
  candidate.file.name = source.name;
  candidate.last = std::move(last);
  auto& errors = candidate.file.errors;
  if (!source.trouble.empty()) {
    errors.push_back(printable(source.name, 255) + ": " + source.trouble);
    candidate.file.claims = likely_claims(source.text);
    return candidate;
  }
  if (candidate.last && candidate.last->text == source.text) {
    candidate.fresh = candidate.last;
    claim_all(candidate.fresh, candidate.file.claims);
  } else {
    auto parsed = parse(source.text, source.name);
    errors = std::move(parsed.errors);
    candidate.file.claims = std::move(parsed.claims);
    if (!errors.empty()) return candidate;
    candidate.fresh = std::make_shared<const Accepted>(
        Accepted{source.text, short_hash(source.text), std::move(parsed.policies)});
  }
  errors = check_devices(candidate.fresh->policies, source.name, devices);
  if (!errors.empty()) candidate.fresh.reset();
  return candidate;
}

// Reading a file needs nothing of the others. A whole directory that was replaced is worth threads.
std::vector<Candidate> read_all(const Generation& before, const std::vector<SourceFile>& files,
                                const std::vector<DeviceFacts>& devices) {
  std::vector<Candidate> candidates(files.size());
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (auto i = next++; i < files.size(); i = next++) {
      candidates[i] = read(files[i], find_last(before, files[i].name), devices);
    }
  };
  std::vector<std::future<void>> others;
  const auto cores = std::min(std::thread::hardware_concurrency(), k_most_readers);
  while (files.size() >= k_worth_threads && others.size() + 1 < cores) {
    try {
      others.push_back(std::async(std::launch::async, work));
    } catch (const std::system_error&) {
      break;  // no more threads: those that are here do it all
    }
  }
  work();
  for (auto& other : others) other.get();
  return candidates;
}

using Names = std::set<std::string, std::less<>>;

// What only one policy may have: its namespace, and the name of each instance of its own.
Names holdings(const Policy& policy, const std::vector<DeviceFacts>& devices) {
  Names held{policy.subject};
  if (policy.isolation.value != Isolation::dedicated) return held;
  for (const auto& device : devices) {
    if (names(policy, device)) {
      held.insert(instance_id(device.name, dedicated_domain(policy.subject)));
    }
  }
  return held;
}

std::string conflict(const std::string& name, const Policy& mine, const Policy& other) {
  if (name == mine.subject) {
    return place(mine, mine.mark) + ": metadata.namespace: has a policy already, at " +
           place(other, other.mark) + ": \"" + printable(mine.subject) + "\"";
  }
  return place(mine, mine.isolation.mark) + ": spec.isolation: the instance " + name +
         " would have the name of that of namespace " + printable(other.subject) + ", at " +
         place(other, other.mark) + ": \"dedicated\"";
}

// Files that stand for a name that is another's fall back to what they said last, and from there to
// nothing. Who falls in one round is found before anybody falls, so that no order of files matters.
// After the first round only the names are looked at that somebody fell back to: each file falls
// twice at most, however long the chain of those that fall because of each other.
class Settlement {
 public:
  Settlement(std::vector<Candidate>& candidates, const std::vector<DeviceFacts>& devices)
      : candidates_(candidates), devices_(devices), held_before_(candidates.size()) {
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      stand(i);
      if (!candidates[i].last) continue;
      for (const auto& policy : candidates[i].last->policies) {
        held_before_[i].merge(holdings(policy, devices));
      }
    }
  }

  void run() {
    while (!open_.empty()) {
      std::set<std::size_t> fallen;
      for (const auto& name : std::exchange(open_, {})) {
        for (const auto index : complain(name)) fallen.insert(index);
      }
      for (const auto index : fallen) withdraw(index);
      for (const auto index : fallen) stand(index);
    }
  }

 private:
  struct Holder {
    std::size_t candidate = 0;
    const Policy* policy = nullptr;
    // NOLINTNEXTLINE(modernize-use-nullptr): clang 14 takes the comparison with 0 for a pointer's
    auto operator<=>(const Holder&) const = default;
  };

  template <typename Each>
  void for_each_holding(std::size_t index, const Each& each) {
    const auto& standing = candidates_[index].standing();
    if (!standing) return;
    for (const auto& policy : standing->policies) {
      for (const auto& name : holdings(policy, devices_)) each(name, Holder{index, &policy});
    }
  }

  void stand(std::size_t index) {
    for_each_holding(index, [this](const std::string& name, const Holder& holder) {
      held_[name].insert(holder);
      open_.insert(name);
    });
  }

  // One that stands for what it said last already has nothing further to fall back to.
  void withdraw(std::size_t index) {
    for_each_holding(index, [this](const std::string& name, const Holder& holder) {
      held_[name].erase(holder);
    });
    auto& candidate = candidates_[index];
    const bool stood_for_new = candidate.fresh && candidate.fresh != candidate.last;
    candidate.fresh.reset();
    if (!stood_for_new) candidate.last.reset();
  }

  // Who has to fall because of this name: all but the one that had it before.
  std::vector<std::size_t> complain(const std::string& name) {
    std::vector<std::size_t> falling;
    const auto& holders = held_[name];
    if (holders.size() < 2) return falling;
    const auto incumbent = std::find_if(holders.begin(), holders.end(), [&](const Holder& holder) {
      return candidates_[holder.candidate].last && held_before_[holder.candidate].contains(name);
    });
    for (auto holder = holders.begin(); holder != holders.end(); ++holder) {
      if (holder == incumbent) continue;
      auto other = incumbent != holders.end() ? incumbent : holders.begin();
      if (other == holder) ++other;
      auto& errors = candidates_[holder->candidate].file.errors;
      errors.push_back(conflict(name, *holder->policy, *other->policy));
      falling.push_back(holder->candidate);
    }
    return falling;
  }

  std::vector<Candidate>& candidates_;
  const std::vector<DeviceFacts>& devices_;
  std::vector<Names> held_before_;
  std::map<std::string, std::set<Holder>> held_;
  Names open_;  // names that somebody came for
};

File settled(Candidate candidate) {
  auto& file = candidate.file;
  file.accepted = candidate.standing();
  file.state = candidate.fresh  ? File::State::good
               : candidate.last ? File::State::last_good
                                : File::State::bad;
  return std::move(file);
}

void index(Generation& generation) {
  for (const auto& file : generation.files) {
    if (!file.accepted) continue;
    for (const auto& policy : file.accepted->policies) {
      generation.policies.emplace(policy.subject, &policy);
    }
  }
  for (const auto& file : generation.files) {
    if (file.state == File::State::good) continue;
    for (const auto& claim : file.claims) {
      if (generation.policies.contains(claim.subject)) continue;
      generation.refused.try_emplace(claim.subject, Refused{file.name, claim.mark, file.errors[0]});
    }
  }
}

std::string hash_of(const Generation& generation) {
  std::string all;
  for (const auto& file : generation.files) {
    if (file.accepted) all += file.name + '\0' + file.accepted->hash + '\0';
  }
  return short_hash(all);
}

}  // namespace

const char* to_string(File::State state) {
  switch (state) {
    case File::State::good:
      return "good";
    case File::State::last_good:
      return "lastGood";
    case File::State::bad:
      return "bad";
  }
  return "?";
}

std::size_t Generation::bad_files() const {
  return static_cast<std::size_t>(std::count_if(files.begin(), files.end(), [](const File& file) {
    return file.state != File::State::good;
  }));
}

std::shared_ptr<const Generation> next_generation(const Generation& before,
                                                  const std::vector<SourceFile>& files,
                                                  const std::vector<DeviceFacts>& devices) {
  auto candidates = read_all(before, files, devices);
  // Before they are settled: who falls must not depend on the order of a directory.
  std::sort(candidates.begin(), candidates.end(),
            [](const Candidate& a, const Candidate& b) { return a.file.name < b.file.name; });
  Settlement(candidates, devices).run();
  auto next = std::make_shared<Generation>();
  for (auto& candidate : candidates) next->files.push_back(settled(std::move(candidate)));
  index(*next);
  next->hash = hash_of(*next);
  next->number = before.number + (before.number == 0 || next->hash != before.hash ? 1 : 0);
  return next;
}

}  // namespace mps::policy
