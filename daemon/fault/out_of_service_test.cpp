#include "fault/out_of_service.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "base/text.h"
#include "fault/out_of_service_json.h"
#include "fault/tracker_kit.h"

using namespace mps;
using namespace mps::fault;
using fault::test::at;
using enum RecoveryAction;
using Strings = std::vector<std::string>;

namespace {

std::string text(const DeviceChange& change) {
  if (const auto* taken = std::get_if<DeviceTakenOut>(&change)) {
    const auto& entry = taken->entry;
    return "out " + entry.device + (entry.device == entry.gpu ? "" : " of " + entry.gpu) + " " +
           to_string(entry.needs) + ": " + reason_of(entry) +
           (entry.incident == 0 ? "" : ", " + id_of(entry.incident));
  }
  if (const auto* back = std::get_if<DeviceReturned>(&change)) {
    return "back " + back->device + ": " + back->why;
  }
  const auto& said = std::get<DriverOverruled>(change);
  return "overruled " + said.gpu + " " + to_string(said.action);
}

struct Node {
  Strings take(const DeviceChanges& changes) {
    Strings lines;
    for (const auto& change : changes) {
      out.apply(change);
      lines.push_back(text(change));
      // What the book keeps of it is all of it.
      const auto json = to_json(change);
      const auto& kind = json.items().begin().key();
      REQUIRE(is_device_change(kind));
      const auto read = device_change_from(kind, json.items().begin().value());
      REQUIRE(read.has_value());
      CHECK(*read == change);
    }
    return lines;
  }
  Strings xid(unsigned number, int when, const std::string& device = "GPU-a",
              std::uint64_t incident = 0) {
    return take(judge.on_xid(out, {device, "GPU-a", number, incident, at(when)}));
  }
  Strings action(RecoveryAction action, int when, std::uint64_t incident = 0) {
    return take(judge.on_action(out, "GPU-a", action, incident, at(when)));
  }
  Strings tick(int when) { return take(judge.tick(out, at(when))); }
  [[nodiscard]] bool is_out(const std::string& device = "GPU-a") const {
    return out.of(device, "GPU-a") != nullptr;
  }

  DevicesOut out;
  DeviceJudge judge{"boot-1"};
};

const std::string k_reset = "out GPU-a out_until_reset: ";
const std::string k_asks_nothing = "back GPU-a: the driver asks for nothing any more";

}  // namespace

TEST_CASE("what takes a device out, and what does not") {
  struct Step {
    std::optional<unsigned> xid;
    std::optional<RecoveryAction> action;
    int when;
    Strings changes;
  };
  struct Case {
    const char* what;
    std::vector<Step> steps;
    bool is_out;
  };
  const std::vector<Case> cases{
      {"an Xid, of a driver that tells no actions",
       {{46, {}, 0, {k_reset + "Xid 46 (GPU timeout)"}}},
       true},
      {"the same again is no news",
       {{46, {}, 0, {k_reset + "Xid 46 (GPU timeout)"}}, {48, {}, 9, {}}, {46, {}, 99999, {}}},
       true},
      {"something graver",
       {{46, {}, 0, {k_reset + "Xid 46 (GPU timeout)"}},
        {79, {}, 9, {"out GPU-a out_until_reboot: Xid 79 (GPU has fallen off the bus)"}},
        {46, {}, 10, {}}},
       true},
      {"what a program can bring about", {{31, {}, 0, {}}, {109, {}, 1, {}}}, false},
      {"an action alone", {{{}, gpu_reset, 0, {k_reset + "recovery action gpu_reset"}}}, true},
      {"an action after an Xid that means nothing by itself",
       {{{}, none, 0, {}},
        {109, {}, 10, {}},
        {{}, gpu_reset, 11, {k_reset + "recovery action gpu_reset"}}},
       true},
      {"the driver's word is waited for, and asks for nothing",
       {{{}, none, 0, {}}, {46, {}, 10, {}}, {{}, none, 20, {}}, {{}, none, 9000, {}}},
       false},
      {"it is waited for, and asks for a reset",
       {{{}, none, 0, {}},
        {46, {}, 10, {}},
        {{}, bus_reset, 20, {k_reset + "Xid 46 (GPU timeout), recovery action bus_reset"}}},
       true},
      {"it asks for more, or less, than the number says",
       {{{}, none, 0, {}},
        {79, {}, 10, {}},
        {{},
         gpu_reset,
         20,
         {k_reset + "Xid 79 (GPU has fallen off the bus), recovery action gpu_reset"}}},
       true},
      {"a word that nobody knows leaves it to the number",
       {{{}, none, 0, {}},
        {46, {}, 10, {}},
        {{}, RecoveryAction::unknown, 20, {k_reset + "Xid 46 (GPU timeout)"}}},
       true},
      {"an Xid first, then what the driver says of it",
       {{46, {}, 0, {k_reset + "Xid 46 (GPU timeout)"}}, {{}, none, 10, {k_asks_nothing}}},
       false},
      {"the action becomes another one, and then none",
       {{{}, gpu_reset, 0, {k_reset + "recovery action gpu_reset"}},
        {{}, gpu_reset, 1, {}},
        {{}, node_reboot, 2, {"out GPU-a out_until_reboot: recovery action node_reboot"}},
        {{}, drain_and_reset, 3, {k_reset + "recovery action drain_and_reset"}},
        {{}, RecoveryAction::unknown, 4, {}},
        {{}, none, 5, {k_asks_nothing}},
        {{}, none, 6, {}}},
       false},
  };
  for (const auto& [what, steps, is_out] : cases) {
    CAPTURE(std::string(what));
    Node node;
    for (const auto& step : steps) {
      CAPTURE(step.when);
      CHECK((step.xid ? node.xid(*step.xid, step.when) : node.action(*step.action, step.when)) ==
            step.changes);
    }
    CHECK(node.is_out() == is_out);
  }
}

TEST_CASE("a driver that does not answer in time leaves it to the number") {
  Node node;
  node.action(none, 0);
  CHECK(node.xid(46, 1000, "GPU-a", 3).empty());
  CHECK(node.xid(79, 1500).empty());
  CHECK(node.judge.deadline() == at(6000));
  CHECK(node.tick(5999).empty());
  CHECK(node.tick(6000) ==
        Strings{"out GPU-a out_until_reboot: Xid 79 (GPU has fallen off the bus), f3"});
  CHECK_FALSE(node.judge.deadline());
  CHECK(node.tick(9999).empty());
  // A clock that is set back keeps nobody waiting.
  Node other;
  other.action(none, 0);
  other.xid(46, 100000);
  CHECK(other.tick(0) == Strings{k_reset + "Xid 46 (GPU timeout)"});
}

TEST_CASE("one MIG device, and its GPU") {
  Node node;
  CHECK(node.xid(95, 0, "MIG-1", 4) ==
        Strings{"out MIG-1 of GPU-a out_until_reset: Xid 95 (uncontained memory error), f4"});
  CHECK(node.is_out("MIG-1"));
  CHECK_FALSE(node.is_out("MIG-2"));
  CHECK_FALSE(node.is_out("GPU-a"));
  // What the driver asks for is asked for the GPU.
  CHECK(node.action(gpu_reset, 10) ==
        Strings{k_reset + "Xid 95 (uncontained memory error), recovery action gpu_reset"});
  CHECK(node.is_out("MIG-2"));
  CHECK(node.action(none, 20) ==
        Strings{k_asks_nothing, "back MIG-1: the driver asks for nothing any more"});
  // Two of them at a time, while the driver's word is waited for: the GPU.
  node.xid(95, 100, "MIG-1");
  node.xid(95, 101, "MIG-2");
  CHECK(node.tick(9000) == Strings{k_reset + "Xid 95 (uncontained memory error)"});
}

TEST_CASE("a boot brings devices back, where both boots are known") {
  struct Case {
    std::string then, now;
    bool is_back;
  };
  for (const auto& [then, now, is_back] : std::vector<Case>{{"boot-1", "boot-2", true},
                                                            {"boot-1", "boot-1", false},
                                                            {"boot-1", "", false},
                                                            {"", "boot-2", false},
                                                            {"", "", false}}) {
    CAPTURE(then + " " + now);
    Node node;
    node.judge = DeviceJudge(then);
    node.xid(79, 0);
    node.out.apply(DriverOverruled{"GPU-b", gpu_reset, then});
    const auto lines = node.take(after_boot(node.out, now));
    CHECK(lines == (is_back
                        ? Strings{"back GPU-a: the node was booted since", "overruled GPU-b none"}
                        : Strings{}));
    CHECK(node.is_out() != is_back);
  }
}

TEST_CASE("MIG devices that were made anew are forgotten, GPUs never") {
  Node node;
  node.xid(95, 0, "MIG-1");
  node.xid(79, 0);
  CHECK(node.take(without_the_gone(node.out, {"GPU-a", "MIG-1"})).empty());
  // A GPU that has fallen off the bus is not reported, and its MIG devices are not either.
  CHECK(node.take(without_the_gone(node.out, {"GPU-b"})).empty());
  CHECK(node.take(without_the_gone(node.out, {"GPU-a", "MIG-2"})) ==
        Strings{"back MIG-1: there is no such MIG device any more"});
  CHECK(node.is_out());
}

TEST_CASE("an operator's word holds until the driver says something else") {
  Node node;
  node.action(gpu_reset, 0);
  const auto force = [&node] {
    return node.take(put_back(node.out, "GPU-a", "GPU-a", "uid 0 says so"));
  };
  CHECK(force() == Strings{"back GPU-a: uid 0 says so", "overruled GPU-a gpu_reset"});
  CHECK(force().empty());
  CHECK(node.action(gpu_reset, 10).empty());  // what was overruled
  SUBCASE("it asks for more") {
    CHECK(
        node.action(node_reboot, 20) ==
        Strings{"overruled GPU-a none", "out GPU-a out_until_reboot: recovery action node_reboot"});
  }
  SUBCASE("it asks for nothing, and then again") {
    CHECK(node.action(none, 20) == Strings{"overruled GPU-a none"});
    CHECK(node.action(gpu_reset, 30) == Strings{k_reset + "recovery action gpu_reset"});
  }
  SUBCASE("an Xid comes") {
    CHECK(node.xid(46, 20).empty());
    CHECK(node.action(gpu_reset, 30) ==
          Strings{"overruled GPU-a none",
                  k_reset + "Xid 46 (GPU timeout), recovery action gpu_reset"});
  }
  SUBCASE("an Xid that means nothing by itself comes") {
    CHECK(node.xid(109, 20).empty());
    CHECK(node.action(gpu_reset, 30).empty());
  }
}

TEST_CASE("a MIG device is put back with its GPU, and no other one") {
  Node node;
  node.xid(95, 0, "MIG-1");
  node.xid(95, 0, "MIG-2");
  node.xid(46, 0);
  CHECK(node.take(put_back(node.out, "MIG-1", "GPU-a", "so")) ==
        Strings{"back GPU-a: so", "back MIG-1: so"});
  CHECK(node.is_out("MIG-2"));
}

TEST_CASE("no more than so many") {
  Node node;
  for (unsigned number = 0; number < k_out_limit; ++number) {
    node.xid(95, static_cast<int>(number), "MIG-" + std::to_string(number));
  }
  CHECK(node.out.entries.size() == k_out_limit);
  CHECK(node.xid(95, 9999, "MIG-new") ==
        Strings{"back MIG-0: no more than 256 can be kept in mind",
                "out MIG-new of GPU-a out_until_reset: Xid 95 (uncontained memory error)"});
  CHECK(node.out.entries.size() == k_out_limit);
}

TEST_CASE("in words, and as the API shows it") {
  OutOfService entry{"GPU-a", "GPU-a", Consequence::out_until_reboot, 79, node_reboot, at(0),
                     3,       "boot-1"};
  CHECK(describe(entry) ==
        "GPU-a is out of service since " + format_time(at(0)) +
            " until the node is rebooted: Xid 79 (GPU has fallen off the bus), recovery action "
            "node_reboot, incident f3");
  const auto shown = to_json(entry);
  CHECK(shown["needs"] == "reboot");
  CHECK(shown["message"] == describe(entry));
  CHECK_FALSE(shown.contains("bootId"));
  entry = {"GPU-a", "GPU-a", Consequence::out_until_reset, 46, {}, at(0), 0, ""};
  CHECK(describe(entry) == "GPU-a is out of service since " + format_time(at(0)) +
                               " until it is reset: Xid 46 (GPU timeout)");
  CHECK(to_json(entry)["incident"].is_null());
  CHECK(to_json(entry)["action"].is_null());
}

TEST_CASE("what is no change is an error") {
  for (const char* text :
       {"{}", "[]", "7", R"({"device":"","gpu":"G","needs":"reset"})",
        R"({"device":"G","gpu":"G","needs":"rest","xid":1,"action":null,"since":null})",
        R"({"device":"G","gpu":"G","needs":"reset","xid":1,"action":"no","since":null})",
        R"({"device":"G","gpu":"G","needs":"reset","xid":1,"action":null,"since":"x"})"}) {
    CAPTURE(std::string(text));
    for (const char* kind : {"deviceOut", "deviceBack", "driverOverruled"}) {
      const auto read = device_change_from(kind, nlohmann::json::parse(text));
      if (std::string(kind) == "deviceOut") REQUIRE_FALSE(read.has_value());
      if (!read) CHECK(read.error().message == "lacks what it should say");
    }
  }
  CHECK(device_change_from("else", {}).error().message == "is of an unknown kind");
}
