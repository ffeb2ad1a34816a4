// A ledger with short ways to ask it, and its answers as lines of text.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "share/ledger.h"

namespace mps::share {

struct Kit {
  using Lines = std::vector<std::string>;

  explicit Kit(LedgerSettings settings = {}) : ledger(settings) {
    facts.id = "gpu0.shared";
    facts.device = "GPU-0";
    facts.device_name = "gpu0";
    facts.door = Serving{};
    facts.max_clients = 48;
    facts.memory_mebibytes = 100 * 1024;
    tell();
  }

  Lines tell() { return lines(ledger.instance_changed(facts, now)); }
  Lines door(Door next) {
    facts.door = std::move(next);
    return tell();
  }

  // Process 100 + id, in a container of its own, which waits for a minute.
  Request make(RequestId id, const std::string& subject = "team-a") const {
    Request request;
    request.id = id;
    request.share = "open";
    request.instance = facts.id;
    request.container = "c" + std::to_string(id);
    request.cgroup = "/c" + std::to_string(id);
    request.subject = subject;
    request.process = {static_cast<pid_t>(100 + id), 7};
    request.uid = 1000;
    request.deadline = now + std::chrono::seconds(60);
    return request;
  }

  // And was it foreseen?
  Lines ask(const Request& request) {
    const auto foreseen = ledger.foresee(request, now);
    auto told = lines(ledger.request(request, now));
    const auto own = std::find_if(told.begin(), told.end(), [&request](const std::string& line) {
      return line.starts_with(std::to_string(request.id) + " ");
    });
    REQUIRE(own != told.end());
    const auto came = own->substr(own->find(' ') + 1);
    const bool granted = came.starts_with("in ") || came.starts_with("again ");
    CHECK(granted == (foreseen.kind == Prospect::Kind::granted));
    if (!granted) CHECK(came == to_line(foreseen));
    return told;
  }
  static std::string to_line(const Prospect& prospect) {
    if (prospect.kind == Prospect::Kind::granted) return "";
    const bool waits = prospect.kind == Prospect::Kind::waits;
    return (waits ? "waits " : "refused ") + std::string(to_string(prospect.why.code)) + ": " +
           prospect.why.sentence;
  }
  Lines ask(RequestId id, const std::string& subject = "team-a") { return ask(make(id, subject)); }
  Lines end(SlotId slot) { return lines(ledger.slot_ended(slot, now)); }
  Lines after(std::chrono::milliseconds time) {
    now += time;
    return lines(ledger.time_passed(now));
  }

  // "1 in slot 1", "2 again slot 1", "3 refused failed: …", "4 waits quota_clients: …".
  Lines lines(const Effects& effects) {
    Lines result;
    for (const auto& [request, verdict] : effects.decisions) {
      result.push_back(std::to_string(request) + " " + to_line(verdict));
    }
    for (const auto& change : effects.changes) changes.push_back(change);
    return result;
  }

  static std::string to_line(const std::variant<LetIn, Refused, Waits>& verdict) {
    if (const auto* in = std::get_if<LetIn>(&verdict)) {
      return (in->again ? "again slot " : "in slot ") + std::to_string(in->slot);
    }
    const auto* refused = std::get_if<Refused>(&verdict);
    const Refusal& why =
        refused != nullptr ? static_cast<const Refusal&>(*refused) : std::get<Waits>(verdict);
    return (refused != nullptr ? "refused " : "waits ") + std::string(to_string(why.code)) + ": " +
           why.sentence;
  }

  static policy::Quota clients(unsigned count) {
    policy::Quota quota;
    quota.clients = {count, {}};
    return quota;
  }

  Ledger ledger;
  InstanceFacts facts;
  TimePoint now{};
  std::vector<Change> changes;
};

inline Request with(Request request, Grant grant, const policy::Quota& quota = {}) {
  request.grant = grant;
  request.quota = quota;
  return request;
}

}  // namespace mps::share
