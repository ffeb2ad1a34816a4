// How it is said what keeps somebody out.
#include "base/text.h"
#include "share/ledger.h"

namespace mps::share {

namespace {

std::string tenths(std::uint64_t value) {
  const auto whole = std::to_string(value / 10);
  return value % 10 == 0 ? whole : whole + "." + std::to_string(value % 10);
}

const char* kept_thing(Code code) {
  if (code == Code::device_memory) return "its next free memory";
  if (code == Code::device_threads) return "its next free share of the SMs";
  return "its next free place";
}

// An amount of memory (MiB) or of threads (tenths of a percent).
struct Amounts {
  bool memory = false;

  std::string one(std::uint64_t value) const {
    return memory ? format_mebibytes(value) : tenths(value) + " %";
  }
  const char* kind() const { return memory ? " of memory" : " of the SMs"; }
  std::string part(std::uint64_t used, std::uint64_t limit) const {
    return (memory ? format_mebibytes(used) : tenths(used)) + " of " + one(limit) + kind();
  }
};

}  // namespace

std::string Ledger::describe_limit(const Blocker& blocker, const Asking& asking,
                                   const Instance& instance) {
  const auto subject = printable(asking.request.subject);
  const auto device = printable(instance.device->name);
  const auto count = std::to_string(blocker.used) + " of " + std::to_string(blocker.limit);
  const Amounts amounts{blocker.code == Code::quota_memory || blocker.code == Code::device_memory};
  const auto needs = "this client needs " + amounts.one(blocker.need);
  const auto all = amounts.one(blocker.limit) + amounts.kind();
  switch (blocker.code) {
    case Code::quota_clients:
      return subject + " has " + count + " clients on " + device;
    case Code::device_clients:
      return printable(instance.facts.id) + " has " + count + " clients";
    case Code::quota_threads:
    case Code::quota_memory:
      if (blocker.final) return needs + ", and " + subject + " may have " + all + " on " + device;
      return subject + " has " + amounts.part(blocker.used, blocker.limit) + " on " + device +
             ", and " + needs;
    default:
      if (blocker.final) return needs + ", and " + device + " has " + all + " to grant";
      return device + " has granted " + amounts.part(blocker.used, blocker.limit) + ", and " +
             needs;
  }
}

Refusal Ledger::explain(const Blocker& blocker, const Asking& asking,
                        const Instance& instance) const {
  using Kind = Blocker::Kind;
  const auto& id = instance.facts.id;
  const auto device = printable(instance.device->name);
  const auto subject = printable(asking.request.subject);
  switch (blocker.kind) {
    case Kind::door:
      if (const auto* closed = std::get_if<Closed>(&instance.facts.door)) return closed->refusal;
      if (const auto* waiting = std::get_if<NotReady>(&instance.facts.door)) {
        return not_ready(id, waiting->state);
      }
      return {Code::not_ready, {}};
    case Kind::node:
      return {blocker.code, "this node has " + std::to_string(blocker.used) + " of " +
                                std::to_string(blocker.limit) +
                                (blocker.need == 0 ? " clients" : " admitted containers")};
    case Kind::limit:
      return {blocker.code, describe_limit(blocker, asking, instance)};
    case Kind::no_memory_limit:
      return {blocker.code, subject + " has a memory quota on " + device +
                                ", and this client has no memory limit"};
    case Kind::other_uid:
      return {blocker.code, printable(id) + " serves uid " + std::to_string(blocker.uid) +
                                " until its last client ends, and this client is of uid " +
                                std::to_string(asking.request.uid)};
    case Kind::kept:
      return {blocker.code, device + " keeps " + kept_thing(blocker.code) +
                                " for a request that has waited longer"};
    case Kind::behind:
      return explain_behind(asking, instance);
  }
  return {blocker.code, {}};
}

Refusal Ledger::explain_behind(const Asking& asking, const Instance& instance) const {
  const auto& line = instance.lines.at(asking.request.subject);
  const auto& first = *line.asking.front();
  const auto why = blocker(first, instance, line.account);
  auto refusal = why ? explain(*why, first, instance) : Refusal{Code::timeout, "its turn is next"};
  refusal.sentence = "others of " + printable(asking.request.subject) +
                     " wait before this one on " + printable(instance.facts.id) +
                     "; the first: " + refusal.sentence;
  return refusal;
}

Refusal Ledger::explain_waiting(const Asking& asking) const {
  const auto& instance = *asking.line->instance;
  if (const auto why = waiting_blocker(asking)) return explain(*why, asking, instance);
  return {Code::timeout, "its turn on " + printable(instance.facts.id) + " has not come"};
}

}  // namespace mps::share
