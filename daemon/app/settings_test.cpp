#include "app/settings.h"

#include <doctest/doctest.h>

#include <fstream>
#include <iterator>
#include <ostream>

namespace mps::app {
namespace {

using namespace std::chrono_literals;

using Messages = std::vector<std::string>;

Messages errors_of(std::string_view text) {
  const auto result = parse_settings(text, "s.yaml");
  const auto* errors = std::get_if<SettingsErrors>(&result);
  return errors != nullptr ? errors->messages : Messages{};
}

Settings parsed(std::string_view text) {
  CHECK(errors_of(text) == Messages{});
  auto result = parse_settings(text, "s.yaml");
  auto* settings = std::get_if<Settings>(&result);
  return settings != nullptr ? *settings : Settings{};
}

struct Bad {
  const char* text;
  const char* message;
};

void check_all(std::initializer_list<Bad> table) {
  for (const auto& row : table) {
    CAPTURE(std::string(row.text));
    const auto errors = errors_of(row.text);
    REQUIRE(errors.size() == 1);
    CHECK(errors[0] == std::string(row.message));
  }
}

TEST_CASE("an empty file, or one of comments, leaves the defaults") {
  for (const char* text : {"", "\n\n", "# nothing\n", "---\n", "{}\n"}) {
    CAPTURE(text);
    const auto settings = parsed(text);
    CHECK(settings.run_dir == "/run/mps");
    CHECK(settings.state_dir == "/var/lib/mps-supervisor");
    CHECK(settings.cdi_dir == "/var/run/cdi");
    CHECK(settings.operators_group == "mps-operators");
    CHECK_FALSE(settings.devices.has_value());
    CHECK(settings.nvml_library == "libnvidia-ml.so.1");
    CHECK(settings.metrics_listen == "127.0.0.1:9464");
    CHECK(settings.probe == Settings::Probe{});
    CHECK(settings.backoff == Settings::Backoff{});
    CHECK(check_settings(settings) == Messages{});
  }
}

TEST_CASE("every key is read") {
  const auto settings = parsed(R"(runDir: /run/other/
stateDir: /var/lib//other
cdiDir: /etc/cdi/
operatorsGroup: gpu-team
nvmlLibrary: /opt/nvidia/libnvidia-ml.so.1
mpsPath: [/opt/nvidia/bin, /usr/sbin]
libraryPath: [/opt/nvidia/lib]
computeMode: exclusive
gate: on
overcommit: {threads: 1.5, memory: 0.9}
admission: {wait: 10s}
audit: {interval: 20s}
hardLimits: on
uidConflict: wait
metricsListen: "[::1]:9000"
stopInstances: true
limits: {activeThreadPercentage: 12.5, pinnedDeviceMemory: 10Gi, clientPriority: below-normal}
probe: {interval: 10s, timeout: 500ms, failures: 5}
channelHolder: end
backoff: {initial: 50ms, max: 1m, budget: {failures: 7, within: 5m}}
drainTimeout: 10m
shutdownTimeout: 1m
)");
  CHECK(settings.run_dir == "/run/other");
  CHECK(settings.state_dir == "/var/lib/other");
  CHECK(settings.operators_group == "gpu-team");
  CHECK(settings.cdi_dir == "/etc/cdi");
  CHECK(settings.nvml_library == "/opt/nvidia/libnvidia-ml.so.1");
  CHECK(settings.mps_path == std::vector<std::filesystem::path>{"/opt/nvidia/bin", "/usr/sbin"});
  CHECK(settings.library_path == std::vector<std::filesystem::path>{"/opt/nvidia/lib"});
  CHECK(settings.exclusive_compute_mode);
  CHECK(settings.gate == Settings::Gate::on);
  CHECK(settings.overcommit_threads == 1.5);
  CHECK(settings.overcommit_memory == 0.9);
  CHECK(settings.admission_wait == 10s);
  CHECK(settings.audit_interval == 20s);
  CHECK(settings.hard_limits);
  CHECK(settings.uid_conflict_waits);
  CHECK(settings.metrics_listen == "[::1]:9000");
  CHECK(settings.stop_instances);
  CHECK(settings.limits == instance::Limits{12.5, 10240, 1});
  CHECK(settings.probe == Settings::Probe{10s, 500ms, 5});
  CHECK(settings.end_channel_holder);
  CHECK(settings.backoff == Settings::Backoff{50ms, 1min, 7, 5min});
  CHECK(settings.drain_timeout == 10min);
  CHECK(settings.shutdown_timeout == 1min);
}

TEST_CASE("the other word of each choice") {
  const auto settings = parsed(
      "computeMode: leave\ngate: off\nhardLimits: off\nuidConflict: refuse\nmetricsListen: "
      "off\nstopInstances: "
      "false\n"
      "limits: {clientPriority: normal, pinnedDeviceMemory: 1536Mi}\nchannelHolder: report\n"
      "devices: auto\n");
  CHECK_FALSE(settings.exclusive_compute_mode);
  CHECK(settings.gate == Settings::Gate::off);
  CHECK_FALSE(settings.hard_limits);
  CHECK_FALSE(settings.uid_conflict_waits);
  CHECK_FALSE(settings.stop_instances);
  CHECK_FALSE(settings.end_channel_holder);
  CHECK(settings.metrics_listen.empty());
  CHECK(settings.limits == instance::Limits{100.0, 1536, 0});
}

TEST_CASE("what the text does not set comes from the base") {
  Settings base;
  base.stop_instances = true;
  base.probe.failures = 9;
  const auto result = parse_settings("probe: {interval: 1s}", "s.yaml", base);
  REQUIRE(std::holds_alternative<Settings>(result));
  CHECK(std::get<Settings>(result).stop_instances);
  CHECK(std::get<Settings>(result).probe == Settings::Probe{1s, 3s, 9});
}

TEST_CASE("devices are declared") {
  const auto settings = parsed(R"(devices:
  - {uuid: GPU-8ca1, index: 0, memory: 141Gi, smCount: 132, name: NVIDIA H200}
  - {uuid: MIG-77, index: 1, migIndex: 3}
  - {uuid: MIG-78, index: 1, migIndex: 4}
)");
  REQUIRE(settings.devices.has_value());
  const auto& devices = *settings.devices;
  REQUIRE(devices.size() == 3);
  CHECK(devices[0].uuid == "GPU-8ca1");
  CHECK(devices[0].kind == device::Kind::gpu);
  CHECK(devices[0].memory_mebibytes == 144384);
  CHECK(devices[0].sm_count == 132);
  CHECK(devices[0].name == "NVIDIA H200");
  CHECK(devices[0].declared);
  CHECK(devices[1].kind == device::Kind::mig);
  CHECK(devices[1].index == 1);
  CHECK(devices[1].mig_index == 3U);
  CHECK(devices[2].memory_mebibytes == 0);
}

TEST_CASE("folders, names and words") {
  CHECK(parsed("cdiDir: \"\"").cdi_dir.empty());
  CHECK(check_settings(parsed("cdiDir: \"\"")) == Messages{});
  CHECK(check_settings(parsed("cdiDir: /")) ==
        Messages{"cdiDir: must be a folder of its own: \"/\""});
  check_all({
      {"cdiDir: cdi", "s.yaml:1:9: cdiDir: must be an absolute path: \"cdi\""},
      {"cdiDir: ~", "s.yaml:1:1: cdiDir: must be an absolute path: \"\""},
      {"cdiDir: [/run]", "s.yaml:1:9: cdiDir: must be an absolute path: a list"},
      {"runDir: run/mps", "s.yaml:1:9: runDir: must be an absolute path: \"run/mps\""},
      {"runDir:", "s.yaml:1:1: runDir: must be an absolute path: \"\""},
      {"runDir: ~", "s.yaml:1:1: runDir: must be an absolute path: \"\""},
      {"runDir: \"\"", "s.yaml:1:9: runDir: must be an absolute path: \"\""},
      {"runDir: [/run]", "s.yaml:1:9: runDir: must be an absolute path: a list"},
      {"runDir: /run/../mps", "s.yaml:1:9: runDir: must not have \"..\" in it: \"/run/../mps\""},
      {"runDir: \"/run/\\x07\"",
       "s.yaml:1:9: runDir: must not have control characters in it: \"/run/\\x07\""},
      {"\nstateDir: {a: b}", "s.yaml:2:11: stateDir: must be an absolute path: a mapping"},
      {"stateDir: state", "s.yaml:1:11: stateDir: must be an absolute path: \"state\""},
      {"operatorsGroup: \"\"",
       "s.yaml:1:17: operatorsGroup: must be the name of a group, or its number: \"\""},
      {"operatorsGroup: a b",
       "s.yaml:1:17: operatorsGroup: must be the name of a group, or its number: \"a b\""},
      {"nvmlLibrary: lib/x.so",
       "s.yaml:1:14: nvmlLibrary: must be the name of a library, or an absolute path: "
       "\"lib/x.so\""},
      {"mpsPath: /opt/bin", "s.yaml:1:10: mpsPath: must be a list of folders: \"/opt/bin\""},
      {"mpsPath:\n  - /opt/bin\n  - bin",
       "s.yaml:3:5: mpsPath[1]: must be an absolute path: \"bin\""},
      {"libraryPath: [\"/a:/b\"]",
       "s.yaml:1:15: libraryPath[0]: must not have a colon in it: \"/a:/b\""},
      {"libraryPath: [lib]", "s.yaml:1:15: libraryPath[0]: must be an absolute path: \"lib\""},
      {"computeMode: default", "s.yaml:1:14: computeMode: must be leave or exclusive: \"default\""},
      {"channelHolder: kill", "s.yaml:1:16: channelHolder: must be report or end: \"kill\""},
      {"stopInstances: yes", "s.yaml:1:16: stopInstances: must be true or false: \"yes\""},
      {"stopInstances:", "s.yaml:1:1: stopInstances: must be true or false: \"\""},
      {"gate: direct", "s.yaml:1:7: gate: must be auto, on or off: \"direct\""},
      {"gate: true", "s.yaml:1:7: gate: must be auto, on or off: \"true\""},
      {"overcommit: {threads: 0}",
       "s.yaml:1:23: overcommit.threads: must be a number from 0.1 to 100: \"0\""},
      {"overcommit: {memory: 1e1}",
       "s.yaml:1:22: overcommit.memory: must be a number from 0.1 to 100: \"1e1\""},
      {"overcommit: {cores: 2}", "s.yaml:1:14: overcommit.cores: unknown key: \"cores\""},
      {"audit: {interval: 1ms}", "s.yaml:1:19: audit.interval: must be between 1s and 1h: \"1ms\""},
      {"admission: {wait: 2h}", "s.yaml:1:19: admission.wait: must be between 0s and 1h: \"2h\""},
      {"hardLimits: auto", "s.yaml:1:13: hardLimits: must be off or on: \"auto\""},
      {"uidConflict: no", "s.yaml:1:14: uidConflict: must be refuse or wait: \"no\""},
  });
}

TEST_CASE("addresses to listen on") {
  constexpr const char* k_what =
      "must be an address and a port, such as 127.0.0.1:9464 or [::1]:9464, or off";
  for (const std::string value : {"9464", "localhost:9464", "127.0.0.1:", "127.0.0.1:65536",
                                  "127.0.0.1:-1", "::1:9464", "1.2.3:80", "[::1]9464"}) {
    CAPTURE(value);
    CHECK(errors_of("metricsListen: \"" + value + "\"") ==
          Messages{"s.yaml:1:16: metricsListen: " + std::string(k_what) + ": \"" + value + "\""});
  }
  CHECK(parsed("metricsListen: 0.0.0.0:0").metrics_listen == "0.0.0.0:0");
}

TEST_CASE("limits") {
  constexpr const char* k_percentage =
      "s.yaml:1:34: limits.activeThreadPercentage: must be above 0 and at most 100: ";
  for (const std::string value : {"0", "0.0", "-5", "100.1", "250", "abc", "25%", "1e1", "nan"}) {
    CAPTURE(value);
    CHECK(errors_of("limits: {activeThreadPercentage: " + value + "}") ==
          Messages{k_percentage + ("\"" + value + "\"")});
  }
  check_all({
      {"limits: 50", "s.yaml:1:9: limits: must be a mapping: \"50\""},
      {"limits: {activeThreadPercentage: 12.55}",
       "s.yaml:1:34: limits.activeThreadPercentage: must have one decimal at most: \"12.55\""},
      {"limits: {activeThreadPercentage: }",
       "s.yaml:1:10: limits.activeThreadPercentage: must be above 0 and at most 100: \"\""},
      {"limits: {pinnedDeviceMemory: lots}",
       "s.yaml:1:30: limits.pinnedDeviceMemory: must be an amount of memory, such as 512Mi or "
       "10Gi: \"lots\""},
      {"limits: {pinnedDeviceMemory: -1Gi}",
       "s.yaml:1:30: limits.pinnedDeviceMemory: must be an amount of memory, such as 512Mi or "
       "10Gi: \"-1Gi\""},
      {"limits: {pinnedDeviceMemory: 12345}",
       "s.yaml:1:30: limits.pinnedDeviceMemory: must be between 1Mi and 1Pi: \"12345\""},
      {"limits: {pinnedDeviceMemory: 2Pi}",
       "s.yaml:1:30: limits.pinnedDeviceMemory: must be between 1Mi and 1Pi: \"2Pi\""},
      {"limits: {clientPriority: 2}",
       "s.yaml:1:26: limits.clientPriority: must be normal or below-normal: \"2\""},
      {"limits: {priority: normal}", "s.yaml:1:10: limits.priority: unknown key: \"priority\""},
  });
}

TEST_CASE("times and counts") {
  check_all({
      {"probe: 30s", "s.yaml:1:8: probe: must be a mapping: \"30s\""},
      {"probe: {interval: 30}",
       "s.yaml:1:19: probe.interval: must be a time with its unit, such as 250ms, 3s or 2m: "
       "\"30\""},
      {"probe: {interval: 10ms}",
       "s.yaml:1:19: probe.interval: must be between 100ms and 1h: \"10ms\""},
      {"probe: {interval: 2h}",
       "s.yaml:1:19: probe.interval: must be between 100ms and 1h: \"2h\""},
      {"probe: {timeout: 5m}", "s.yaml:1:18: probe.timeout: must be between 100ms and 1m: \"5m\""},
      {"probe: {timeout: [3s]}",
       "s.yaml:1:18: probe.timeout: must be a time with its unit, such as 250ms, 3s or 2m: a list"},
      {"probe: {failures: 0}",
       "s.yaml:1:19: probe.failures: must be a whole number from 1 to 100: \"0\""},
      {"probe: {failures: 2.5}",
       "s.yaml:1:19: probe.failures: must be a whole number from 1 to 100: \"2.5\""},
      {"probe: {failures: -1}",
       "s.yaml:1:19: probe.failures: must be a whole number from 1 to 100: \"-1\""},
      {"probe: {failures: {}}",
       "s.yaml:1:19: probe.failures: must be a whole number from 1 to 100: a mapping"},
      {"backoff: []", "s.yaml:1:10: backoff: must be a mapping: a list"},
      {"backoff: {initial: 0ms}",
       "s.yaml:1:20: backoff.initial: must be between 1ms and 1h: \"0ms\""},
      {"backoff: {max: forever}",
       "s.yaml:1:16: backoff.max: must be a time with its unit, such as 250ms, 3s or 2m: "
       "\"forever\""},
      {"backoff: {budget: 5}", "s.yaml:1:19: backoff.budget: must be a mapping: \"5\""},
      {"backoff: {budget: {failures: 5000}}",
       "s.yaml:1:30: backoff.budget.failures: must be a whole number from 1 to 1000: \"5000\""},
      {"backoff: {budget: {within: 2d}}",
       "s.yaml:1:28: backoff.budget.within: must be a time with its unit, such as 250ms, 3s or 2m: "
       "\"2d\""},
      {"drainTimeout: 25h", "s.yaml:1:15: drainTimeout: must be between 0s and 24h: \"25h\""},
      {"shutdownTimeout: 1ms",
       "s.yaml:1:18: shutdownTimeout: must be between 100ms and 1h: \"1ms\""},
  });
}

TEST_CASE("devices that will not do") {
  constexpr const char* k_uuid = "must be GPU- or MIG- and then letters, digits, \"-\" and \"/\": ";
  for (const std::string value : {"8ca1", "GPU-", "gpu-1", "GPU-1;2", "GPU-1 2"}) {
    CAPTURE(value);
    CHECK(errors_of("devices: [{uuid: \"" + value + "\", index: 0}]") ==
          Messages{"s.yaml:1:18: devices[0].uuid: " + (k_uuid + ("\"" + value + "\""))});
  }
  check_all({
      {"devices: all", "s.yaml:1:10: devices: must be auto or a list of devices: \"all\""},
      {"devices: []", "s.yaml:1:10: devices: must name a device, or be auto: a list"},
      {"devices: [GPU-1]", "s.yaml:1:11: devices[0]: must be a mapping: \"GPU-1\""},
      {"devices: [{index: 0}]", "s.yaml:1:11: devices[0]: must have a uuid: a mapping"},
      {"devices: [{uuid: GPU-1}]", "s.yaml:1:11: devices[0]: must have an index: a mapping"},
      {"devices: [{uuid: GPU-1, index: x}]",
       "s.yaml:1:32: devices[0].index: must be a whole number from 0 to 255: \"x\""},
      {"devices: [{uuid: GPU-1, index: 0, smCount: 0}]",
       "s.yaml:1:44: devices[0].smCount: must be a whole number from 1 to 4096: \"0\""},
      {"devices: [{uuid: GPU-1, index: 0, memory: 80}]",
       "s.yaml:1:43: devices[0].memory: must be between 1Mi and 1Pi: \"80\""},
      {"devices: [{uuid: GPU-1, index: 0, name: }]",
       "s.yaml:1:35: devices[0].name: must be a name of at most 96 bytes: \"\""},
      {"devices: [{uuid: GPU-1, index: 0, memroy: 80Gi}]",
       "s.yaml:1:35: devices[0].memroy: unknown key, did you mean memory: \"memroy\""},
      {"devices: [{uuid: GPU-1, index: 0, migIndex: 1}]",
       "s.yaml:1:45: devices[0].migIndex: is for MIG devices alone: \"1\""},
      {"devices: [{uuid: MIG-1, index: 0}]",
       "s.yaml:1:11: devices[0]: must have a migIndex, as it is a MIG device: a mapping"},
      {"devices: [{uuid: GPU-1, index: 0}, {uuid: GPU-1, index: 1}]",
       "s.yaml:1:43: devices[1].uuid: given twice, first in devices[0]: \"GPU-1\""},
      {"devices: [{uuid: GPU-1, index: 0}, {uuid: GPU-2, index: 0}]",
       "s.yaml:1:57: devices[1].index: given twice, first in devices[0]: \"0\""},
      {"devices: [{uuid: MIG-1, index: 0, migIndex: 2}, {uuid: MIG-2, index: 0, migIndex: 2}]",
       "s.yaml:1:83: devices[1].migIndex: given twice, first in devices[0]: \"2\""},
  });
}

TEST_CASE("keys") {
  check_all({
      {"rundir: /run/mps", "s.yaml:1:1: rundir: unknown key, did you mean runDir: \"rundir\""},
      {"\n  quux: 1", "s.yaml:2:3: quux: unknown key: \"quux\""},
      {"probe: {intervall: 3s}",
       "s.yaml:1:9: probe.intervall: unknown key, did you mean interval: \"intervall\""},
      {"backoff: {budget: {witin: 3s}}",
       "s.yaml:1:20: backoff.budget.witin: unknown key, did you mean within: \"witin\""},
      {"<<: {runDir: /a}", "s.yaml:1:1: <<: unknown key: \"<<\""},
      {"\"a\\nb\": 1", "s.yaml:1:1: a\\x0ab: unknown key: \"a\\x0ab\""},
      {"? [x]\n: y", "s.yaml:1:3: every key must be a word: a list"},
      {"stopInstances: true\nrunDir: /a\nrunDir: /b",
       "s.yaml:3:1: runDir: given twice, first in line 2: \"/b\""},
      {"probe: {failures: 1, failures: 2}",
       "s.yaml:1:22: probe.failures: given twice, first in line 1: \"2\""},
  });
}

TEST_CASE("keys of later versions are known, and said not to work yet") {
  check_all({
      {"serverStartFailures: {close: never}",
       "s.yaml:1:22: serverStartFailures: not supported by this version of mps-supervisor: a "
       "mapping"},
      {"sharedMemory: auto",
       "s.yaml:1:15: sharedMemory: not supported by this version of mps-supervisor: \"auto\""},
  });
}

TEST_CASE("texts that are no settings") {
  check_all({
      {"[a",
       "s.yaml:2:1: not YAML: did not find expected ',' or ']' while parsing a flow sequence "
       "that begins on line 1"},
      {"a: b: c", "s.yaml:1:5: not YAML: mapping values are not allowed in this context"},
      {"- a", "s.yaml:1:1: must be a mapping: a list"},
      {"hello", "s.yaml:1:1: must be a mapping: \"hello\""},
      {"runDir: /a\n---\nrunDir: /b\n",
       "s.yaml:3:1: must be one document, without a second \"---\""},
  });
  CHECK(errors_of("runDir: *x") == Messages{"s.yaml:1:9: no anchor of this name before it: \"x\""});
  CHECK(errors_of(std::string(600, '[')) ==
        Messages{"s.yaml:1:17: nested too deeply, 16 levels are the limit"});
  CHECK(errors_of(std::string(262145, '#')) ==
        Messages{"s.yaml:1:1: must not be larger than 262144 bytes: \"262145\""});
  CHECK(errors_of(std::string(262144, '#')) == Messages{});
  // A list that holds itself is followed no further than the schema goes.
  CHECK(errors_of("&a [*a]") == Messages{"s.yaml:1:5: an alias within what it stands for"});
}

TEST_CASE("all errors of a file at once, in its order") {
  CHECK(errors_of("runDir: run\nprobe: {interval: 1, failurs: 2}\ndevices:\n- {uuid: x}\n") ==
        Messages{"s.yaml:1:9: runDir: must be an absolute path: \"run\"",
                 "s.yaml:2:19: probe.interval: must be a time with its unit, such as 250ms, 3s or "
                 "2m: \"1\"",
                 "s.yaml:2:22: probe.failurs: unknown key, did you mean failures: \"failurs\"",
                 "s.yaml:4:3: devices[0]: must have an index: a mapping",
                 "s.yaml:4:10: devices[0].uuid: must be GPU- or MIG- and then letters, digits, "
                 "\"-\" and \"/\": \"x\""});
}

TEST_CASE("a flood of errors and long values are cut") {
  std::string text;
  for (int i = 0; i < 150; ++i) text += "zzzz" + std::to_string(i) + ": 1\n";
  const auto errors = errors_of(text);
  REQUIRE(errors.size() == 101);
  CHECK(errors[99] == "s.yaml:100:1: zzzz99: unknown key: \"zzzz99\"");
  CHECK(errors[100] == "s.yaml: and 50 more errors");

  CHECK(errors_of("computeMode: " + std::string(5000, 'x')) ==
        Messages{"s.yaml:1:14: computeMode: must be leave or exclusive: \"" +
                 std::string(200, 'x') + "…\""});
  std::string folders = "mpsPath: [/a";
  for (int i = 0; i < 64; ++i) folders += ", /a";
  CHECK(errors_of(folders + "]") ==
        Messages{"s.yaml:1:10: mpsPath: must have at most 64 entries, and has 65: a list"});
}

TEST_CASE("settings that do not go together") {
  const auto with = [](auto&& change) {
    Settings settings;
    change(settings);
    return check_settings(settings);
  };
  CHECK(with([](Settings& s) { s.run_dir = "run"; }) ==
        Messages{"runDir: must be an absolute path: \"run\""});
  CHECK(with([](Settings& s) { s.run_dir = "/"; }) ==
        Messages{"runDir: must be a folder of its own: \"/\""});
  CHECK(with([](Settings& s) { s.state_dir = "state"; }) ==
        Messages{"stateDir: must be an absolute path: \"state\""});
  for (const char* folder : {"/tmp/nvidia-mps", "/tmp/nvidia-mps/", "/tmp//nvidia-mps/x"}) {
    CHECK(with([folder](Settings& s) { s.run_dir = folder; }) ==
          Messages{"runDir: must not be /tmp/nvidia-mps or lie in it, as every CUDA program looks "
                   "there: \"" +
                   std::string(folder) + "\""});
  }
  CHECK(with([](Settings& s) { s.run_dir = "/tmp/nvidia-mps2"; }) == Messages{});
  CHECK(with([](Settings& s) { s.state_dir = "/run//mps"; }) ==
        Messages{"stateDir: must not be the same as runDir: \"/run//mps\""});
  CHECK(with([](Settings& s) { s.metrics_listen = "x"; }) ==
        Messages{"metricsListen: must be an address and a port, such as 127.0.0.1:9464 or "
                 "[::1]:9464, or off: \"x\""});
  CHECK(with([](Settings& s) { s.metrics_listen.clear(); }) == Messages{});
  CHECK(with([](Settings& s) { s.backoff.initial = 1min; }) ==
        Messages{"backoff.max: must not be shorter than backoff.initial 1m: \"30s\""});
}

TEST_CASE("a run directory's sockets must fit their addresses") {
  Settings settings;
  const std::string longest = "/" + std::string(56, 'r');
  settings.run_dir = longest;
  CHECK(check_settings(settings) == Messages{});
  settings.run_dir = longest + "r";
  CHECK(check_settings(settings) ==
        Messages{"runDir: is 58 bytes long and may have 57: the path of a socket, <runDir>/<24 "
                 "bytes>/pipe/control_privileged, ends at 106; choose a shorter one: \"" +
                 longest + "r\""});
}

#ifdef MPS_PACKAGED_SETTINGS
TEST_CASE("the packaged settings file is one, and states the defaults") {
  std::ifstream file(MPS_PACKAGED_SETTINGS);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  REQUIRE_FALSE(text.empty());
  CHECK(errors_of(text) == Messages{});

  // "#key: value" is a setting that is commented out, "# Prose" is prose.
  std::string uncommented;
  std::size_t settings = 0;
  std::size_t start = 0;
  while (start < text.size()) {
    const auto end = text.find('\n', start);
    std::string line = text.substr(start, end - start);
    if (line.starts_with("#") && !line.starts_with("# ") && line.size() > 1) {
      line.erase(0, 1);
      ++settings;
    }
    uncommented += line + "\n";
    if (end == std::string::npos) break;
    start = end + 1;
  }
  CHECK(settings >= 15);
  const auto given = parsed(uncommented);
  const Settings defaults;
  CHECK(given.run_dir == defaults.run_dir);
  CHECK(given.state_dir == defaults.state_dir);
  CHECK(given.operators_group == defaults.operators_group);
  CHECK(given.devices == defaults.devices);
  CHECK(given.nvml_library == defaults.nvml_library);
  CHECK(given.mps_path == defaults.mps_path);
  CHECK(given.library_path == defaults.library_path);
  CHECK(given.exclusive_compute_mode == defaults.exclusive_compute_mode);
  CHECK(given.metrics_listen == defaults.metrics_listen);
  CHECK(given.stop_instances == defaults.stop_instances);
  CHECK(given.limits == defaults.limits);
  CHECK(given.probe == defaults.probe);
  CHECK(given.end_channel_holder == defaults.end_channel_holder);
  CHECK(given.backoff == defaults.backoff);
  CHECK(given.drain_timeout == defaults.drain_timeout);
  CHECK(given.shutdown_timeout == defaults.shutdown_timeout);
}
#endif

}  // namespace
}  // namespace mps::app
