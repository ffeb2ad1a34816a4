#include "control/fault_lists.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace mps::control {
namespace {

// What a log's lines come to: "sticky 901", "list", "devices", or "-" for the rest.
std::vector<std::string> read(const std::vector<std::string>& lines) {
  FaultLists lists;
  std::vector<std::string> all;
  for (const auto& text : lines) {
    const bool whole = text.starts_with("[") || text.empty();
    auto line = parse_log_line(whole ? text : "[2026-11-20 23:22:15.182 Other   500] " + text);
    lists.take(line);
    std::string what = "-";
    if (const auto* one = std::get_if<StickyClient>(&line.kind)) {
      what = "sticky " + std::to_string(one->pid);
    } else if (std::holds_alternative<StickyListBegins>(line.kind)) {
      what = "list";
    } else if (std::holds_alternative<DeviceListBegins>(line.kind)) {
      what = "devices";
    }
    all.push_back(what);
  }
  return all;
}

using Words = std::vector<std::string>;
const std::string k_list = "The following clients have a sticky error set:";
const std::string k_devices = "The following devices will be reset:";
const std::string k_control = "[2026-11-20 23:22:15.182 Control  400] ";

}  // namespace

TEST_CASE("the lists of a fault") {
  struct Case {
    const char* what;
    Words lines;
    Words read;
  };
  const std::vector<Case> cases{
      {"as 535 and 550 print them",
       {k_devices, "0", k_list, "901", "902", "Client {901, 1} exit", "903"},
       {"devices", "-", "list", "sticky 901", "sticky 902", "-", "-"}},
      {"as NVIDIA's sample has them",
       {"Volta MPS: The following devices", "0", "1",
        "Volta MPS: The following clients have a sticky error set:", "11641"},
       {"devices", "-", "-", "list", "sticky 11641"}},
      {"its list of devices behind it",
       {k_list, "901", k_devices, "0"},
       {"list", "sticky 901", "devices", "-"}},
      {"another's list of devices in between",
       {k_list, "[2026-11-20 23:22:15.182 Other   501] " + k_devices,
        "[2026-11-20 23:22:15.182 Other   501] 0", "901"},
       {"list", "devices", "-", "sticky 901"}},
      {"lines of others in between",
       {k_list, "901", k_control + "Accepting connection...", k_control + "77",
        "[2026-11-20 23:22:15.182 Other   501] 78", "902"},
       {"list", "sticky 901", "-", "-", "-", "sticky 902"}},
      {"a spoilt line in between", {k_list, "9\x01\xff", "902"}, {"list", "-", "sticky 902"}},
      {"an empty line in between",
       {k_list, "901", "[2026-11-20 23:22:15.182 Other   500] ", "902"},
       {"list", "sticky 901", "-", "sticky 902"}},
      {"without its first line", {"901", "902"}, {"-", "-"}},
      {"of another one of this pid",
       {k_list, "[2026-11-20 23:22:15.182 Server   500] 901"},
       {"list", "-"}},
      {"without a prefix", {k_list, "", "901"}, {"list", "-", "sticky 901"}},
      {"no numbers", {k_list, "-5", "901", "902"}, {"list", "-", "-", "-"}},
      {"two at once: the later one counts",
       {k_list, "[2026-11-20 23:22:15.182 Other   501] " + k_list, "901",
        "[2026-11-20 23:22:15.182 Other   501] 902"},
       {"list", "list", "-", "sticky 902"}},
      {"the control daemon has none", {k_control + k_list, k_control + "901"}, {"-", "-"}},
      {"that has only begun", {k_list}, {"list"}},
  };
  for (const auto& one : cases) {
    CAPTURE(one.what);
    CHECK(read(one.lines) == one.read);
  }
}

TEST_CASE("a list without an end has one") {
  std::vector<std::string> lines{k_list};
  for (int i = 0; i < 300; ++i) lines.push_back(std::to_string(1000 + i));
  const auto all = read(lines);
  CHECK(all[FaultLists::k_longest] == "sticky 1255");
  CHECK(all[FaultLists::k_longest + 1] == "-");
  CHECK(all.back() == "-");
}

}  // namespace mps::control
