#include "admission/audit.h"

#include <doctest/doctest.h>

#include <memory>

using namespace mps;
using namespace mps::admission;
using namespace std::chrono_literals;

namespace {

constexpr auto k_without_slot = FindingKind::client_without_slot;
constexpr auto k_over_memory = FindingKind::client_over_memory;
constexpr auto k_outside = FindingKind::outside_mps;

AuditedClient client(pid_t pid, bool has_slot = false) {
  return {.process = {pid, 7}, .name = "train", .uid = 1000, .has_slot = has_slot};
}

AuditedSlot slot(pid_t pid, std::optional<std::uint64_t> memory, share::AdmissionId admission = 5) {
  return {{.id = 9,
           .admission = admission,
           .instance = "gpu0.shared",
           .device = "GPU-A",
           .process = {pid, 7},
           .grant = {.pinned_memory_mebibytes = memory}},
          "team-a",
          "pod web-0"};
}

AuditedProcess process(pid_t pid, std::uint64_t memory = 0) {
  return {.process = {pid, 7}, .name = "train", .uid = 1000, .memory_mebibytes = memory};
}

// A gated instance that serves, on a device that NVML tells of.
AuditInput usual() {
  AuditInput input;
  input.instances.push_back({.id = "gpu0.shared",
                             .device = "GPU-A",
                             .gated = true,
                             .ready = true,
                             .settled = true,
                             .clients = {}});
  input.devices.push_back({.uuid = "GPU-A", .known = true, .processes = {}});
  return input;
}

// "client_without_slot 12", of one look.
std::string told(const std::vector<Finding>& findings) {
  std::string text;
  for (const auto& finding : findings) {
    text += (text.empty() ? "" : ", ") + std::string(to_string(finding.kind)) + " " +
            std::to_string(finding.process.pid);
  }
  return text;
}

// What begins within two looks at the same.
std::string begins(const AuditInput& input) {
  Audit audit;
  CHECK(told(audit.look(input).begun).empty());
  return told(audit.look(input).begun);
}

std::shared_ptr<const policy::Generation> policies() {
  const std::string head = "apiVersion: mps-supervisor.dev/v1\nkind: MpsPolicy\nmetadata:\n";
  const std::vector<policy::SourceFile> files{
      {"a.yaml", head + "  namespace: team-a\nspec:\n  onViolation: terminate\n", ""},
      {"b.yaml", head + "  namespace: team-b\nspec:\n  onViolation: report\n", ""},
      {"units.yaml", head + "  namespace: \"unit:*\"\nspec:\n  onViolation: terminate\n", ""}};
  return policy::next_generation({}, files, {});
}

}  // namespace

TEST_CASE("a client without a slot is found where there is a gate") {
  auto input = usual();
  input.instances[0].clients = {client(12), client(13, true)};
  CHECK(begins(input) == "client_without_slot 12");
  SUBCASE("a direct instance has no slots") {
    input.instances[0].gated = false;
    CHECK(begins(input).empty());
  }
  SUBCASE("one that has ended is nobody") {
    input.instances[0].clients[0].process.start_ticks = 0;
    CHECK(begins(input).empty());
  }
  SUBCASE("NVML is not needed for it") {
    input.devices[0].known = false;
    CHECK(begins(input) == "client_without_slot 12");
  }
}

TEST_CASE("a client over its memory is found beyond doubt only") {
  CHECK(tolerated_memory(2048) == 1024);
  CHECK(tolerated_memory(40960) == 4096);
  auto input = usual();
  input.instances[0].clients = {client(12, true)};
  input.slots = {slot(12, 2048)};
  const auto with = [&input](std::uint64_t memory) {
    input.devices[0].processes = {process(12, memory)};
    return begins(input);
  };
  CHECK(with(3072).empty());
  CHECK(with(3073) == "client_over_memory 12");
  SUBCASE("two slots on a device add up") {
    input.slots.push_back(slot(12, 1024));
    CHECK(with(4096).empty());
    CHECK(with(4097) == "client_over_memory 12");
  }
  SUBCASE("without a limit there is none to be over") {
    input.slots = {slot(12, std::nullopt)};
    CHECK(with(100000).empty());
    input.slots = {slot(12, 2048), slot(12, std::nullopt)};
    CHECK(with(100000).empty());
  }
  SUBCASE("nobody knows what an adopted one was granted") {
    input.slots = {slot(12, 2048, 0)};
    CHECK(with(100000).empty());
  }
  SUBCASE("a slot of another process, or on another device") {
    input.slots[0].slot.process.start_ticks = 8;
    CHECK(with(100000).empty());
    input.slots = {slot(12, 2048)};
    input.slots[0].slot.device = "GPU-B";
    CHECK(with(100000).empty());
  }
  SUBCASE("not told, not known") {
    input.devices[0].processes = {process(12)};
    input.devices[0].processes[0].memory_mebibytes.reset();
    CHECK(begins(input).empty());
    input.devices[0].known = false;
    CHECK(with(100000).empty());
  }
}

TEST_CASE("who uses a device and is nothing of MPS is outside") {
  auto input = usual();
  input.instances[0].clients = {client(12, true)};
  input.devices[0].processes = {process(12), process(13)};
  CHECK(begins(input) == "outside_mps 13");
  SUBCASE("the server, or a program of ours") {
    input.devices[0].processes[1].is_ours = true;
    CHECK(begins(input).empty());
  }
  SUBCASE("a client of a server that is not ours: that server is found") {
    input.devices[0].processes[1].mps_client = true;
    input.devices[0].processes.push_back(process(14));
    CHECK(begins(input) == "outside_mps 14");
  }
  SUBCASE("a client of another instance of the device") {
    input.instances.push_back(input.instances[0]);
    input.instances[1].id = "gpu0.ns-team-a";
    input.instances[1].clients = {client(13, true)};
    CHECK(begins(input).empty());
  }
  SUBCASE("a client that may have ended") {
    input.instances[0].clients.push_back(client(13, true));
    input.instances[0].clients[1].process.start_ticks = 0;
    CHECK(begins(input).empty());
  }
  SUBCASE("an instance that starts may have clients that it does not list") {
    input.instances[0].settled = false;
    CHECK(begins(input).empty());
  }
  SUBCASE("a device that nobody serves is anybody's") {
    input.instances[0].ready = false;
    CHECK(begins(input).empty());
    input.instances.clear();
    CHECK(begins(input).empty());
  }
  SUBCASE("what NVML says of pids is of no use here") {
    input.devices[0].known = false;
    CHECK(begins(input).empty());
  }
  SUBCASE("direct instances too") {
    input.instances[0].gated = false;
    CHECK(begins(input) == "outside_mps 13");
  }
}

TEST_CASE("each is told once while it lasts, and its end") {
  auto with = usual();
  with.devices[0].processes = {process(13)};
  const auto without = usual();
  Audit audit;
  const auto step = [&audit](const AuditInput& input) {
    const auto news = audit.look(input);
    return told(news.begun) + (news.over.empty() ? "" : "; over: " + told(news.over));
  };
  const auto standing = [&audit] { return audit.counts().at("GPU-A").at(k_outside).standing; };
  CHECK(step(with).empty());
  CHECK(step(without).empty());
  CHECK(step(with).empty());
  CHECK(step(with) == "outside_mps 13");
  CHECK(standing() == 1);
  CHECK(step(with).empty());
  // Missed once is not gone.
  CHECK(step(without).empty());
  CHECK(step(with).empty());
  CHECK(standing() == 1);
  SUBCASE("gone is gone") {
    CHECK(step(without).empty());
    CHECK(step(without) == "; over: outside_mps 13");
    CHECK(standing() == 0);
    CHECK(step(with).empty());
    CHECK(step(with) == "outside_mps 13");
    CHECK(audit.counts().at("GPU-A").at(k_outside).found == 2);
  }
  SUBCASE("not to be seen is not gone") {
    auto blind = without;
    SUBCASE("NVML does not answer") {
      blind.devices[0].known = false;
    }
    SUBCASE("the instance starts again") {
      blind.instances[0].settled = false;
    }
    for (int i = 0; i < 5; ++i) CHECK(step(blind).empty());
    CHECK(step(with).empty());
    CHECK(standing() == 1);
  }
  SUBCASE("another process of that pid is another") {
    auto other = with;
    other.devices[0].processes[0].process.start_ticks = 8;
    CHECK(step(other).empty());
    CHECK(step(other) == "outside_mps 13; over: outside_mps 13");
  }
}

TEST_CASE("a blind look between two is none") {
  auto with = usual();
  with.devices[0].processes = {process(13)};
  auto blind = usual();
  blind.devices[0].known = false;
  Audit audit;
  audit.look(with);
  audit.look(blind);
  CHECK(told(audit.look(with).begun) == "outside_mps 13");
}

TEST_CASE("no more are remembered than a bound, of each kind") {
  auto input = usual();
  for (pid_t pid = 1; pid <= 1000; ++pid) input.devices[0].processes.push_back(process(pid));
  input.instances[0].clients = {client(2000)};
  Audit audit;
  audit.look(input);
  CHECK(audit.look(input).begun.size() == Audit::k_most + 1);
  CHECK(audit.counts().at("GPU-A").at(k_outside).standing == Audit::k_most);
  CHECK(audit.counts().at("GPU-A").at(k_without_slot).standing == 1);
  // Room comes back.
  audit.look(usual());
  CHECK(audit.look(usual()).over.size() == Audit::k_most + 1);
  audit.look(input);
  CHECK(audit.look(input).begun.size() == Audit::k_most + 1);
}

TEST_CASE("every device that is looked at has a count of each kind") {
  Audit audit;
  audit.look(usual());
  CHECK(audit.counts().at("GPU-A").size() == 3);
  CHECK(audit.counts().at("GPU-A").at(k_over_memory).found == 0);
}

TEST_CASE("who is ended is what the namespace's policy says") {
  const auto in_force = policies();
  Finding finding{.kind = k_without_slot, .subject = "team-a"};
  CHECK(to_be_ended(finding, *in_force));
  finding.kind = k_over_memory;
  CHECK(to_be_ended(finding, *in_force));
  finding.subject = "unit:cron.service";
  CHECK(to_be_ended(finding, *in_force));
  SUBCASE("MPS cannot end what is not its own") {
    finding.kind = k_outside;
  }
  SUBCASE("never one that was there before") {
    finding.adopted = true;
  }
  SUBCASE("never somebody unknown") {
    finding.subject.clear();
  }
  SUBCASE("report") {
    finding.subject = "team-b";
  }
  SUBCASE("without a policy") {
    finding.subject = "team-c";
  }
  CHECK_FALSE(to_be_ended(finding, *in_force));
}

TEST_CASE("who lasts is to be ended, and asked for again after a while") {
  auto input = usual();
  input.instances[0].clients = {client(12)};
  Audit audit;
  const auto in_force = policies();
  const Audit::TimePoint start{};
  audit.look(input);
  CHECK(audit.to_end(*in_force, start).empty());
  const auto begun = audit.look(input).begun;
  REQUIRE(begun.size() == 1);
  CHECK(audit.to_end(*in_force, start).empty());  // nobody knows whose it is
  auto known = begun[0];
  known.subject = "team-a";
  audit.know(known);
  CHECK(told(audit.to_end(*in_force, start)) == "client_without_slot 12");
  audit.look(input);
  CHECK(audit.to_end(*in_force, start + 59s).empty());
  CHECK(told(audit.to_end(*in_force, start + 60s)) == "client_without_slot 12");
  audit.look(usual());  // it may be gone
  CHECK(audit.to_end(*in_force, start + 200s).empty());
}

TEST_CASE("NVML's pids are believed where they are the node's, or one of ours is among them") {
  const device::DeviceProcesses two{"GPU-A", {{.pid = 11}, {.pid = 12}}, ""};
  const std::string strangers =
      "NVML's pids may be others here: the supervisor has to be in the node's pid namespace "
      "(hostPID)";
  CHECK(why_unusable(two, {}, true).empty());
  CHECK(why_unusable(two, {12, 13}, false).empty());
  CHECK(why_unusable(two, {13}, false) == strangers);
  CHECK(why_unusable({"GPU-A", {}, ""}, {13}, false) == strangers);
  CHECK(why_unusable({"GPU-A", {}, ""}, {13}, true).empty());
  CHECK(why_unusable({"GPU-A", {{.pid = 0}}, ""}, {}, true) ==
        "NVML does not tell pids: the supervisor has to be in the node's pid namespace (hostPID)");
  CHECK(why_unusable({"GPU-A", {}, "nvmlInit: Driver Not Loaded"}, {}, true) ==
        "nvmlInit: Driver Not Loaded");
}

TEST_CASE("what is said of them") {
  Finding who{.process = {12, 7}, .name = "tr\nain", .uid = 1000};
  CHECK(describe_process(who) == "process 12 (tr\\x0aain) of uid 1000");
  who.subject = "team-a";
  CHECK(describe_process(who) == "process 12 (tr\\x0aain) of uid 1000, team-a,");
  who.description = "pod web-0";
  CHECK(describe_process(who) == "process 12 (tr\\x0aain) of uid 1000, team-a, pod web-0,");
  Finding finding{.kind = k_without_slot, .instance = "gpu0.shared"};
  CHECK(describe(finding) == "is a client of gpu0.shared that no gate has let in");
  finding.adopted = true;
  CHECK(describe(finding) ==
        "is a client of gpu0.shared that no gate has let in; it was there before this supervisor, "
        "and is left alone");
  finding = {.kind = k_over_memory, .instance = "gpu0.shared", .used = 4000, .granted = 2048};
  CHECK(describe(finding) == "has 4000Mi of the device's memory, and may have 2048Mi");
  finding = {.kind = k_outside, .instance = "gpu0.shared"};
  CHECK(describe(finding) == "uses the device of gpu0.shared without MPS, and without limits");
}
