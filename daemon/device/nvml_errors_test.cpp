#include <doctest/doctest.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "device/error_source.h"
#include "device/test_support.h"

using namespace mps::device;
using namespace mps::device::test;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

// Whole, as the simulator looks its recovery action up.
const std::string k_gpu = "GPU-11111111-2222-3333-4444-555555555555";
const std::string k_with_actions = "driver 570.124.06\ngpu " + k_gpu + "\ngpu GPU-B\n";
// As of a GPU that is lost, or whose GSP is dead.
const std::string k_unreadable = "fail nvmlDeviceGetFieldValues 15\n";
constexpr const char* k_two_gpus = "gpu GPU-A\ngpu GPU-B\n";

struct Errors : Fixture {
  using Numbers = std::vector<std::pair<std::string, unsigned>>;

  Errors() {
    fs::remove(board());
    errors = make_errors({.library = MPS_SIM_NVML_LIB, .wait = 20ms, .patience = k_generous});
  }
  // The thread has ended before the next test changes anything.
  ~Errors() { write(""); }
  Errors(const Errors&) = delete;
  Errors& operator=(const Errors&) = delete;

  static fs::path board() { return folder().file().string() + ".events"; }
  static void post(const std::string& lines) { std::ofstream(board(), std::ios::app) << lines; }

  std::unique_ptr<ErrorSource> make_errors(ErrorSettings settings) {
    return make_nvml_error_source(
        io().get_executor(), std::move(settings),
        {.on_error =
             [this](const std::string& gpu, const XidSeen& xid) {
               xids.emplace_back(gpu, xid.number);
               last = xid;
             },
         .on_action = [this](const std::string& gpu,
                             unsigned action) { actions.emplace_back(gpu, action); },
         .on_listening = [this](const std::string& gpu,
                                const std::string& why_not) { listening[gpu].push_back(why_not); },
         .on_lost = [this](std::uint64_t count) { lost += count; }});
  }

  void until(const std::function<bool()>& is_so) {
    const auto deadline = std::chrono::steady_clock::now() + k_generous;
    io().restart();
    while (!is_so() && std::chrono::steady_clock::now() < deadline) {
      io().run_one_for(10ms);
      io().restart();
    }
    REQUIRE(is_so());
  }
  void until_listening(const std::string& gpu, const std::string& why_not = "") {
    until([this, gpu, why_not] {
      return !listening[gpu].empty() && listening[gpu].back() == why_not;
    });
  }

  Numbers xids;
  Numbers actions;
  XidSeen last;
  std::map<std::string, std::vector<std::string>> listening;
  std::uint64_t lost = 0;
  std::unique_ptr<ErrorSource> errors;
};

}  // namespace

TEST_CASE_FIXTURE(Errors, "Xids are told with their GPU, in their order") {
  write(k_two_gpus);
  errors->watch({"GPU-A", "GPU-B"});
  until_listening("GPU-A");
  until_listening("GPU-B");
  const auto begin = std::chrono::system_clock::now();
  post("xid 31 GPU-A\nxid 45 GPU-B\nxid 43 GPU-A\n");
  until([this] { return xids.size() == 3; });
  CHECK(xids == Numbers{{"GPU-A", 31}, {"GPU-B", 45}, {"GPU-A", 43}});
  CHECK_FALSE(last.gpu_instance);
  CHECK_FALSE(last.compute_instance);
  CHECK(last.mig_uuid.empty());
  CHECK(last.time >= begin);
  CHECK(lost == 0);
}

TEST_CASE_FIXTURE(Errors, "a MIG device's Xid is its GPU's, and names it") {
  write("gpu GPU-A\ngpu GPU-B mig=on\nmig MIG-1 sms=16\nmig MIG-2 sms=16 place=4\n");
  errors->watch({"GPU-A", "GPU-B"});
  until_listening("GPU-B");
  post("xid 94 MIG-2\n");
  until([this] { return xids.size() == 1; });
  CHECK(xids == Numbers{{"GPU-B", 94}});
  CHECK(last.gpu_instance == 5);
  CHECK(last.compute_instance == 0);
  CHECK(last.mig_uuid == "MIG-2");
}

TEST_CASE_FIXTURE(Errors, "a recovery action is told when it changes, and after errors") {
  write(k_with_actions);
  errors->watch({k_gpu});
  until_listening(k_gpu);
  until([this] { return actions == Numbers{{k_gpu, 0}}; });
  post("xid 31 " + k_gpu + "\n");
  until([this] { return actions == Numbers{{k_gpu, 0}, {k_gpu, 0}}; });
  post("action 1 " + k_gpu + "\n");
  until([this] { return actions.back().second == 1; });
  CHECK(xids.back() == std::pair{k_gpu, 154U});
}

TEST_CASE_FIXTURE(Errors, "an action of before is told, and that it is over") {
  write(k_with_actions);
  post("action 2 " + k_gpu + "\n");
  errors->watch({k_gpu});
  until([this] { return !actions.empty(); });
  CHECK(actions == Numbers{{k_gpu, 2}});
  // No event says that a reset is done.
  std::ofstream(board(), std::ios::trunc) << "";
  until([this] {
    errors->watch({k_gpu});
    return actions.size() == 2;
  });
  CHECK(actions.back() == std::pair{k_gpu, 0U});
}

TEST_CASE_FIXTURE(Errors, "an action that could not be read is told once it can be") {
  write(k_with_actions + k_unreadable);
  errors->watch({k_gpu});
  until_listening(k_gpu);
  CHECK(actions.empty());
  write(k_with_actions);
  until([this] {
    errors->watch({k_gpu});
    return !actions.empty();
  });
  errors->watch({k_gpu});
  post("action 1 " + k_gpu + "\n");
  until([this] { return actions.back().second == 1; });
  CHECK(actions == Numbers{{k_gpu, 0}, {k_gpu, 1}});
}

TEST_CASE_FIXTURE(Errors, "of a GPU that was lost the same action as before is news") {
  write(k_with_actions);
  errors->watch({k_gpu});
  until([this] { return actions == Numbers{{k_gpu, 0}}; });
  write(k_with_actions + k_unreadable);
  post("xid 119 " + k_gpu + "\n");
  until([this] { return !xids.empty(); });
  // Its end is told of after the Xid's action was asked for.
  write(k_with_actions + k_unreadable + "fail nvmlEventSetWait_v2 15\n");
  until_listening(k_gpu, "nvmlEventSetWait: GPU is lost");
  CHECK(actions.size() == 1);
  write(k_with_actions);
  until([this] { return actions.size() == 2; });
  CHECK(actions.back() == std::pair{k_gpu, 0U});
}

TEST_CASE_FIXTURE(Errors, "a driver that knows no recovery action tells Xids all the same") {
  write("driver 535.261.03\ngpu GPU-A\nfail nvmlDeviceGetSupportedEventTypes 13\n");
  errors->watch({"GPU-A"});
  until_listening("GPU-A");
  post("action 1 GPU-A\nxid 79 GPU-A\n");
  until([this] { return !xids.empty(); });
  CHECK(xids == Numbers{{"GPU-A", 79}});
  CHECK(actions.empty());
}

TEST_CASE_FIXTURE(Errors, "GPUs come, and go, while others are listened to") {
  write(k_two_gpus);
  errors->watch({"GPU-A"});
  until_listening("GPU-A");
  errors->watch({"GPU-A", "GPU-B"});
  until_listening("GPU-B");
  post("xid 31 GPU-B\n");
  until([this] { return xids == Numbers{{"GPU-B", 31}}; });
  errors->watch({"GPU-B"});
  errors->watch({"GPU-A", "GPU-B"});  // told of anew
  until([this] { return listening["GPU-A"].size() == 2; });
  errors->watch({});
  post("xid 13 GPU-B\n");
  errors->watch({"GPU-A"});
  until([this] { return listening["GPU-A"].size() == 3; });
  post("xid 13 GPU-A\n");
  until([this] { return xids.size() == 2; });
  CHECK(xids.back() == std::pair<std::string, unsigned>{"GPU-A", 13});
}

TEST_CASE_FIXTURE(Errors, "a GPU that comes back is listened to once that is said, not before") {
  errors = make_errors({.library = MPS_SIM_NVML_LIB, .wait = 20ms, .patience = 100ms});
  write(k_two_gpus);
  errors->watch({"GPU-A", "GPU-B"});
  until_listening("GPU-A");
  write(std::string(k_two_gpus) + "hang nvmlEventSetCreate\n");
  errors->watch({"GPU-B"});
  // The thread is still in the step of before, in which it did listen to GPU-A.
  until([this] {
    errors->watch({"GPU-A", "GPU-B"});
    return !listening["GPU-A"].back().empty();
  });
  write(k_two_gpus);
  until_listening("GPU-A");
  CHECK(listening["GPU-A"] == std::vector<std::string>{"", "NVML did not answer within 100ms", ""});
  post("xid 31 GPU-A\n");
  until([this] { return xids == Numbers{{"GPU-A", 31}}; });
}

TEST_CASE_FIXTURE(Errors, "why a GPU's errors are not told is said once, and the others' are") {
  write("gpu GPU-A\ngpu GPU-B\nfail nvmlDeviceRegisterEvents 3 GPU-B\n");
  errors->watch({"GPU-A", "GPU-B", "GPU-Z"});
  until_listening("GPU-A");
  until_listening("GPU-B", "nvmlDeviceRegisterEvents: Not Supported");
  until_listening("GPU-Z", "nvmlDeviceGetHandleByUUID: Not Found");
  post("xid 31 GPU-A\n");
  until([this] { return xids == Numbers{{"GPU-A", 31}}; });
  CHECK(listening["GPU-B"].size() == 1);
  // It is asked again, after a pause.
  write("gpu GPU-A\ngpu GPU-B\n");
  until_listening("GPU-B");
  post("xid 31 GPU-B\n");
  until([this] { return xids.size() == 2; });
}

TEST_CASE_FIXTURE(Errors, "a library without events, and none at all") {
  write("gpu GPU-A\nfail nvmlEventSetCreate 13\n");
  errors->watch({"GPU-A"});
  until_listening("GPU-A", "nvmlEventSetCreate: Function Not Found");
  errors = make_errors({.library = "libno-such-nvml.so.1"});
  errors->watch({"GPU-A"});
  until_listening("GPU-A",
                  "libno-such-nvml.so.1: cannot open shared object file: No such file or "
                  "directory");
}

TEST_CASE_FIXTURE(Errors, "a driver that is reloaded is listened to again") {
  write("gpu GPU-A\n");
  errors->watch({"GPU-A"});
  until_listening("GPU-A");
  write("gpu GPU-A\nfail nvmlEventSetWait_v2 999\nfail nvmlInit_v2 9\n");
  until_listening("GPU-A", "nvmlInit: Driver Not Loaded");
  write("gpu GPU-A\n");
  until_listening("GPU-A");
  CHECK(listening["GPU-A"] == std::vector<std::string>{"", "nvmlInit: Driver Not Loaded", ""});
  post("xid 31 GPU-A\n");
  until([this] { return xids == Numbers{{"GPU-A", 31}}; });
}

TEST_CASE_FIXTURE(Errors, "a wait that fails again and again is said once") {
  write("gpu GPU-A\n");
  errors->watch({"GPU-A"});
  until_listening("GPU-A");
  write("gpu GPU-A\nfail nvmlEventSetWait_v2 15\n");
  until_listening("GPU-A", "nvmlEventSetWait: GPU is lost");
  write("gpu GPU-A\n");
  until_listening("GPU-A");
  CHECK(listening["GPU-A"].size() == 3);
}

TEST_CASE_FIXTURE(Errors, "NVML that hangs is said, and delays neither the inventory nor the end") {
  write("gpu GPU-A\n");
  REQUIRE(list().devices.size() == 1);
  errors = make_errors({.library = MPS_SIM_NVML_LIB, .wait = 20ms, .patience = 100ms});
  errors->watch({"GPU-A"});
  until_listening("GPU-A");
  write("gpu GPU-A\nhang nvmlEventSetWait_v2\n");
  until([this] {
    errors->watch({"GPU-A"});
    return listening["GPU-A"].back() == "NVML did not answer within 100ms";
  });
  CHECK(list().devices.at(0).error.empty());
  write("gpu GPU-A\n");
  until_listening("GPU-A");
}

TEST_CASE_FIXTURE(Errors, "more errors than are taken are counted") {
  write("gpu GPU-A\n");
  errors->watch({"GPU-A"});
  until_listening("GPU-A");
  std::string lines;
  for (int i = 0; i < 1000; ++i) lines += "xid 31 GPU-A\n";
  post(lines);
  // However they are taken, each is told or counted.
  until([this] { return xids.size() + lost == 1000; });
}

TEST_CASE_FIXTURE(Errors, "a source may end in its own callback, or with what is not told yet") {
  write("gpu GPU-A\n");
  bool told = false;
  errors = make_nvml_error_source(
      io().get_executor(), {.library = MPS_SIM_NVML_LIB, .wait = 20ms, .patience = k_generous},
      {.on_error = [](const std::string&, const XidSeen&) { CHECK(false); },
       .on_action = [](const std::string&, unsigned) { CHECK(false); },
       .on_listening =
           [this, &told](const std::string&, const std::string&) {
             told = true;
             errors.reset();
           },
       .on_lost = [](std::uint64_t) { CHECK(false); }});
  errors->watch({"GPU-A"});
  until([&told] { return told; });
  CHECK(errors == nullptr);
  errors = make_errors({.library = MPS_SIM_NVML_LIB, .wait = 20ms, .patience = k_generous});
  errors->watch({"GPU-A"});
  errors.reset();
  io().restart();
  io().poll();
  CHECK(listening.empty());
}
