#include "admission/plan.h"

#include <doctest/doctest.h>

#include <memory>
#include <string>

#include "policy/generation.h"

using namespace mps;
using namespace mps::admission;

namespace {

const char* const k_policies = R"(apiVersion: mps-supervisor.dev/v1
kind: MpsPolicy
metadata: {namespace: team-a}
spec:
  client: {activeThreadPercentage: 40, pinnedDeviceMemory: 4Gi}
  quota: {clients: 3}
  overrides:
    - match: {podLabels: {size: large}}
      client: {activeThreadPercentage: 80, pinnedDeviceMemory: 8Gi}
    - match: {podLabels: {size: small}}
      client: {activeThreadPercentage: 10}
---
apiVersion: mps-supervisor.dev/v1
kind: MpsPolicy
metadata: {namespace: team-b}
spec: {isolation: dedicated, devices: ["0"]}
---
apiVersion: mps-supervisor.dev/v1
kind: MpsPolicy
metadata: {namespace: "docker:*"}
spec: {}
)";

std::shared_ptr<const policy::Generation> generation() {
  return policy::next_generation({}, {{"all.yaml", k_policies, ""}}, {});
}

Place place(const std::string& instance = "gpu0.shared", const std::string& domain = "shared") {
  return {instance, domain, {.name = "gpu0", .uuid = "GPU-0"}};
}

identity::Identity pod(const std::string& subject) {
  identity::Identity who;
  who.subject = subject;
  who.pod = "web-0";
  who.container_name = "cuda";
  return who;
}

// "40 4096", or the refusal.
std::string planned(const identity::Identity& who, const Place& where) {
  const auto plan = plan_for(*generation(), who, where);
  if (const auto* refusal = std::get_if<share::Refusal>(&plan)) {
    return std::string(to_string(refusal->code)) + ": " + refusal->sentence;
  }
  const auto& grant = std::get<share::Plan>(plan).grant;
  const auto memory = grant.pinned_memory_mebibytes;
  return std::to_string(static_cast<int>(grant.active_thread_percentage)) + " " +
         (memory ? std::to_string(*memory) : "unlimited");
}

}  // namespace

TEST_CASE("a pod gets what its labels select; without labels the least that any would get") {
  auto who = pod("team-a");
  CHECK(planned(who, place()) == "10 4096");
  who.labels = identity::Labels{};
  CHECK(planned(who, place()) == "40 4096");
  who.labels = identity::Labels{{"size", "large"}, {"app", "x"}};
  CHECK(planned(who, place()) == "80 8192");
  who.labels = identity::Labels{{"size", "small"}};
  CHECK(planned(who, place()) == "10 4096");
  const auto plan = plan_for(*generation(), who, place());
  CHECK(std::get<share::Plan>(plan).quota.clients->value == 3);
}

TEST_CASE("what is no pod has no labels to be unknown") {
  CHECK(planned(pod("docker:web"), place()) == "100 unlimited");
}

TEST_CASE("a namespace with an instance of its own gets in there, and only it") {
  const auto own = place("gpu0.ns-team-b", "ns-team-b");
  CHECK(planned(pod("team-b"), own) == "100 unlimited");
  CHECK(planned(pod("team-b"), place()) ==
        "wrong_domain: team-b has an instance of its own, gpu0.ns-team-b, and this is the share of "
        "gpu0.shared");
  CHECK(planned(pod("team-a"), own) ==
        "wrong_domain: gpu0.ns-team-b is for ns-team-b alone, and this process is of team-a");
}

TEST_CASE("below the normal priority, where the policy says so or might") {
  const auto below = [](const std::string& spec, const identity::Identity& who) {
    const auto text =
        "apiVersion: mps-supervisor.dev/v1\nkind: MpsPolicy\nmetadata: {namespace: team-a}\n"
        "spec: " +
        spec + "\n";
    const auto made = policy::next_generation({}, {{"all.yaml", text, ""}}, {});
    return std::get<share::Plan>(plan_for(*made, who, place())).grant.below_normal;
  };
  auto who = pod("team-a");
  const std::string some =
      "{overrides: [{match: {podLabels: {size: small}}, client: {priority: below-normal}}]}";
  CHECK_FALSE(below("{}", who));
  CHECK(below("{client: {priority: below-normal}}", who));
  CHECK(below(some, who));  // nobody knows its labels
  who.labels = identity::Labels{};
  CHECK_FALSE(below(some, who));
  who.labels = identity::Labels{{"size", "small"}};
  CHECK(below(some, who));
}

TEST_CASE("whom no policy is for is not let in") {
  CHECK(planned(pod("team-c"), place()).starts_with("no_policy: "));
}

TEST_CASE("who it is, for people") {
  identity::Identity who = pod("team-a");
  CHECK(describe(who) == "pod web-0, container cuda");
  who.container_name.clear();
  CHECK(describe(who) == "pod web-0");
  who = {};
  who.subject = "docker:web";
  CHECK(describe(who) == "container web");
  who.subject = "unit:cron.service";
  CHECK(describe(who) == "unit cron.service");
  who.subject = "user:alice";
  CHECK(describe(who) == "user alice");
  who.subject = "team-a";
  who.container_id = "0123456789abcdef";
  CHECK(describe(who) == "container 0123456789ab");
}

TEST_CASE("a cgroup is found again from its record") {
  identity::Cgroup cgroup{{identity::Hierarchy::systemd, 2, "/kubepods/pod x"}, 4711};
  CHECK(to_record(cgroup) == "1 2 4711 /kubepods/pod x");
  CHECK((cgroup_from_record(to_record(cgroup)) == cgroup));
  CHECK(to_record({}).empty());
  for (const char* damaged : {"", "x", "1", "1 2", "1 2 3", "1 2 3 ", "9 2 3 /a", "1 2 3 a"}) {
    CHECK(cgroup_from_record(damaged).inode == 0);
  }
}
