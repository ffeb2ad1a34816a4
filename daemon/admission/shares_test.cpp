#include "admission/shares.h"

#include <doctest/doctest.h>

using namespace mps;
using namespace mps::admission;
using namespace std::chrono_literals;

namespace {

const char* const k_policies = R"(apiVersion: mps-supervisor.dev/v1
kind: MpsPolicy
metadata: {namespace: team-a}
spec: {isolation: dedicated, client: {activeThreadPercentage: 50}}
---
apiVersion: mps-supervisor.dev/v1
kind: MpsPolicy
metadata: {namespace: team-b}
spec: {client: {activeThreadPercentage: 10}, quota: {clients: 1}}
)";

const Place k_shared{"gpu0.shared", "shared", {.name = "gpu0", .uuid = "GPU-0"}};
const Place k_own{"gpu0.ns-team-a", "ns-team-a", {.name = "gpu0", .uuid = "GPU-0"}};

SystemTime at(std::int64_t milliseconds) {
  return SystemTime(std::chrono::milliseconds(milliseconds));
}

share::Share made(std::string subject = "") {
  return make_share(7, {"gpu0.shared", std::move(subject), {25, 12288}, {}}, at(1000));
}

std::string judged(const std::string& subject, const Place& place, const share::Share& share) {
  const auto generation = policy::next_generation({}, {{"all.yaml", k_policies, ""}}, {});
  identity::Identity who;
  who.subject = subject;
  const auto plan = plan_for_share(*generation, who, place, share);
  if (const auto* refusal = std::get_if<share::Refusal>(&plan)) {
    return std::string(to_string(refusal->code)) + ": " + refusal->sentence;
  }
  const auto& granted = std::get<share::Plan>(plan);
  CHECK_FALSE(granted.quota.clients);
  return share::describe(granted.grant);
}

}  // namespace

TEST_CASE("a share is known by its id, at its instance") {
  const Shares shares{{7, made()}};
  CHECK(find_share(shares, "gpu0.shared", "s7") == &shares.at(7));
  CHECK(find_share(shares, "gpu1.shared", "s7") == nullptr);
  CHECK(find_share(shares, "s7") == &shares.at(7));
  for (const auto* other : {"", "s", "7", "s07", "s8", "s7 ", "S7", "open", "s-7"}) {
    CHECK(find_share(shares, other) == nullptr);
  }
  CHECK(ledger_name("gpu0.shared", "s7") == "gpu0.shared/s7");
}

TEST_CASE("a share has its time") {
  auto ends = make_share(1, {"gpu0.shared", "", {}, 500ms}, at(1000));
  CHECK(ends.made_at == 1000);
  CHECK(ends.expires_at == 1500);
  Shares shares{{1, ends}, {2, made()}};
  CHECK(next_expiry(shares) == at(1500));
  CHECK(expired(shares, at(1499)).empty());
  CHECK(expired(shares, at(1500)) == std::vector<std::uint64_t>{1});
  shares.at(1).closing = true;
  CHECK(expired(shares, at(1500)).empty());
  CHECK_FALSE(next_expiry(shares));
}

TEST_CASE("whoever it is for gets the share's limits, past the policy's and its quota") {
  CHECK(judged("team-b", k_shared, made()) == "25 % of the SMs, 12Gi");
  CHECK(judged("team-b", k_shared, made("team-b")) == "25 % of the SMs, 12Gi");
  CHECK(judged("docker:web", k_shared, made("docker:web")) == "25 % of the SMs, 12Gi");
  CHECK(judged("team-c", k_shared, made()) == "25 % of the SMs, 12Gi");
}

TEST_CASE("nobody else") {
  CHECK(judged("team-c", k_shared, made("team-b")) ==
        "wrong_pod: share s7 is for team-b, and this process is of team-c");
}

TEST_CASE("a namespace with an instance of its own stays there, and is alone there") {
  CHECK(judged("team-a", k_own, made()) == "25 % of the SMs, 12Gi");
  CHECK(judged("team-a", k_shared, made("team-a")) ==
        "wrong_domain: team-a has an instance of its own, gpu0.ns-team-a, and this is the share of "
        "gpu0.shared");
  CHECK(judged("team-b", k_own, made()) ==
        "wrong_domain: gpu0.ns-team-a is for ns-team-a alone, and this process is of team-b");
  CHECK(judged("team-c", k_own, made()) ==
        "wrong_domain: gpu0.ns-team-a is for ns-team-a alone, and this process is of team-c");
}

TEST_CASE("a share is described") {
  auto share = made("team-b");
  CHECK(describe(share) ==
        "share s7 of gpu0.shared: 25 % of the SMs, 12Gi for each client, for team-b");
  share.subject.clear();
  share.grant = {};
  share.expires_at = 1'000'000'000'000;
  CHECK(describe(share) ==
        "share s7 of gpu0.shared: 100 % of the SMs, no memory limit for each client, for whoever "
        "has it mounted, until 2001-09-09T01:46:40.000Z");
}
