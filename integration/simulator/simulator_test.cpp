#include <doctest/doctest.h>

#include <chrono>
#include <csignal>
#include <set>
#include <string>
#include <vector>

#include "blast.h"
#include "device_model.h"
#include "event_board.h"
#include "log_pipe.h"
#include "memory_book.h"
#include "orders.h"
#include "steering.h"
#include "values.h"
#include "work.h"

namespace mps::sim {

TEST_CASE("percentages are read as strtod reads them") {
  CHECK(read_percentage("50") == 50.0);
  CHECK(read_percentage("25%") == 25.0);
  CHECK(read_percentage("1e1") == 10.0);
  CHECK(read_percentage("0x10") == 16.0);
  for (const char* refused : {"0", "-5", "abc", "100.1", "nan", "inf", ""}) {
    CAPTURE(refused);
    CHECK_FALSE(read_percentage(refused).has_value());
  }
  CHECK(print_percentage(33.37) == "33.4");
  CHECK(print_percentage(0.04) == "0.0");
}

TEST_CASE("memory limits are misread as the real daemon misreads them") {
  const auto round_trip = [](const char* text) {
    return print_pinned_limit(read_pinned_limit(text));
  };
  CHECK(round_trip("512M") == "512M");
  CHECK(round_trip("1536M") == "1G");
  CHECK(round_trip("12345") == "12G");
  CHECK(round_trip("2147483648") == "2097152G");
  CHECK(round_trip("1.5G") == "1M");
  CHECK(round_trip("-1G") == "17179869183G");
  CHECK(round_trip("1Gi") == "1G");
  CHECK(round_trip("5g") == "5G");
  CHECK(round_trip("2X") == "2M");
  for (const char* removes : {"0M", "G", "abc", ""}) CHECK(read_pinned_limit(removes) == 0);
}

TEST_CASE("a client's own limits only lower the server's") {
  CHECK(lower_percentage(50.0, "25") == 25.0);
  CHECK(lower_percentage(50.0, "75") == 50.0);
  CHECK(lower_percentage(50.0, "150") == 50.0);
  CHECK(lower_percentage(50.0, "") == 50.0);
  PinnedLimits server{};
  server[0] = 1000;
  const PinnedLimits lower = lower_limits(server, read_limit_list("1=1M,x=2M,0=zz", {}));
  CHECK(lower[0] == 1000);
  CHECK(lower[1] == 1U << 20U);
  CHECK(lower_limits(server, read_limit_list("0=1G", {}))[0] == 1000);
  CHECK(multiprocessors(132, 50.0) == 66);
  CHECK(multiprocessors(132, 25.0) == 32);
  CHECK(multiprocessors(132, 0.1) == 2);
}

TEST_CASE("log lines have the real form") {
  LogRecord record;
  record.role = static_cast<std::uint32_t>(Role::k_control);
  record.pid = 3056;
  record.year = 2026;
  record.month = 11;
  record.day = 20;
  record.hour = 3;
  record.minute = 4;
  record.second = 5;
  record.millisecond = 6;
  CHECK(log_line(record, "NEW UI") == "[2026-11-20 03:04:05.006 Control  3056] NEW UI\n");
  record.role = static_cast<std::uint32_t>(Role::k_other);
  record.pid = 4194304;
  CHECK(log_line(record, "x\n") == "[2026-11-20 03:04:05.006 Other 4194304] x\n");
}

TEST_CASE("steering is key = value, with comments") {
  const Steering steering = Steering::from_text("# version = 1\nversion=535\n hang = 1 \nx\n");
  CHECK(steering.is_535());
  CHECK(steering.flag("hang"));
  CHECK_FALSE(steering.flag("rubbish"));
  CHECK(steering.text("devices", "none") == "none");
}

TEST_CASE("the version that newer programs print") {
  CHECK(Steering::from_text("").newer_binary().empty());
  CHECK(Steering::from_text("version = 550").newer_binary().empty());
  CHECK(Steering::from_text("version = 580").newer_binary() == "13000");
  CHECK(Steering::from_text("version = 590").newer_binary() == "13010");
}

TEST_CASE("memory is counted per client, against its limit and the device") {
  std::vector<Device> devices(1);
  devices[0].memory = 1000;
  MemoryBook book(devices);
  PinnedLimits limits{};
  limits[0] = 600;
  const Reply first = book.handle(1, limits, {Ask::k_allocate, 0, 500});
  CHECK(first.result == k_success);
  CHECK(book.handle(1, limits, {Ask::k_allocate, 0, 200}).result == k_out_of_memory);
  CHECK(book.handle(2, limits, {Ask::k_allocate, 0, 500}).result == k_success);
  CHECK(book.handle(3, PinnedLimits{}, {Ask::k_allocate, 0, 1}).result == k_out_of_memory);
  CHECK(book.handle(2, limits, {Ask::k_free, 0, first.first}).result == k_invalid_value);
  CHECK(book.handle(1, limits, {Ask::k_free, 0, first.first}).result == k_success);
  book.forget(2);
  CHECK(book.used(0) == 0);
  CHECK(book.handle(1, limits, {Ask::k_memory, 0, 0}).first == 600);
  CHECK(book.handle(1, limits, {Ask::k_memory, 9, 0}).result == k_invalid_device);
}

TEST_CASE("kernels are known by the names of their entries") {
  CHECK(
      entries_of(".version 6.0\n.visible .entry mps_probe_spin(.param .u64 n)\n{}\n.entry\tx{}") ==
      std::vector<std::string>{"mps_probe_spin", "x"});
  CHECK(entries_of(".entry").empty());
  CHECK(kernel_named("mps_probe_spin") == Kernel::k_spin);
  CHECK(kernel_named("mps_probe_hang") == Kernel::k_hang);
  CHECK(kernel_named("x") == Kernel::k_nothing);
  CHECK(is_fault(kernel_named("mps_probe_trap")));
  CHECK(is_fault(kernel_named("mps_probe_bad_address")));
}

TEST_CASE("a client's kernels run one after another") {
  using namespace std::chrono_literals;
  const Work::Time now{100s};
  Work work;
  CHECK_FALSE(work.is_busy(now));
  work.spin(10ms, now);
  work.spin(10ms, now);
  CHECK(work.is_busy(now + 19ms));
  CHECK_FALSE(work.is_busy(now + 20ms));
  CHECK(work.end() == now + 20ms);
  work.hang();
  work.spin(10ms, now);
  CHECK_FALSE(work.end().has_value());
  CHECK(work.is_busy(now + 1000h));
  work.drop();
  CHECK_FALSE(work.is_busy(now));
}

TEST_CASE("a fault reaches all clients of the device and of those that they share") {
  const std::vector<Party> parties{{11, {0}}, {12, {1}}, {13, {0, 2}}, {14, {2, 2}}, {15, {}}};
  const Blast blast = blast_of(parties, 0);
  CHECK(blast.devices == std::set<std::uint32_t>{0, 2});
  CHECK(blast.parties == std::vector<std::size_t>{0, 2, 3});
  CHECK(blast_of(parties, 1).parties == std::vector<std::size_t>{1});
}

TEST_CASE("what the log says about a fault") {
  const std::vector<Party> parties{{11, {0}}, {12, {0}}};
  const Blast blast = blast_of(parties, 0);
  CHECK(fault_lines({false}, parties, blast, parties[1], true) ==
        std::vector<std::string>{
            "Server is handling a fatal GPU error.",
            "Client process 12 encountered a fatal GPU error.",
            "Status of client {11, 1} is INACTIVE",
            "Status of client {12, 1} is INACTIVE",
            "The following devices will be reset:",
            "0",
            "The following clients have a sticky error set:",
            "11",
            "12",
        });
  CHECK(fault_lines({true}, parties, blast, parties[0], true)[1] ==
        "Client process {PID: 11, Context ID: 1} encountered a fatal GPU error.");
  CHECK(fault_lines({true}, parties, blast, parties[0], false)[1] ==
        "Status of client {PID: 11, Context ID: 1} is INACTIVE");
  CHECK(garbled("Worker created") == "Work\x01\xff\x1b[31m%s\xc3");
}

TEST_CASE("orders are understood or refused") {
  const auto fault = parse_order("fault 17 trap");
  REQUIRE(fault);
  CHECK(std::get<order::Fault>(*fault).client == 17);
  CHECK(std::get<order::Fault>(*fault).kind == Kernel::k_trap);
  CHECK(std::get<order::Fault>(*parse_order("fault 17")).kind == Kernel::k_bad_address);
  CHECK(std::get<order::Die>(*parse_order("die")).signal == SIGKILL);
  CHECK(std::get<order::Die>(*parse_order("die signal 11")).signal == 11);
  CHECK(std::get<order::Die>(*parse_order("die status 3")).status == 3);
  CHECK_FALSE(std::get<order::Answer>(*parse_order("stop answering")).again);
  CHECK(std::get<order::Slow>(*parse_order(" slow  20\n")).each == std::chrono::milliseconds(20));
  CHECK(std::get<order::Lose>(*parse_order("lose 3")).lines == 3);
  CHECK(std::get<order::Xid>(*parse_order("xid 79 GPU-1")).device == "GPU-1");
  CHECK(std::get<order::Recovery>(*parse_order("recovery drain-and-reset")).action == 4);
  CHECK(std::get<order::Recovery>(*parse_order("recovery 7 GPU-1")).action == 7);
  CHECK(std::get<order::Set>(*parse_order("set most_clients 2")).value == "2");
  for (const char* refused : {"", "fault", "fault x", "fault 1 slip", "fault 1 trap 2", "hang -1",
                              "die 9", "die signal x", "stop", "garble", "lose", "lose x",
                              "slow 1 2", "xid 1 2 3", "recovery repair", "set a", "status now"}) {
    CAPTURE(refused);
    CHECK_FALSE(parse_order(refused).has_value());
  }
}

TEST_CASE("lines about troubles of the hardware") {
  const auto xid = parse_board_line("xid 31 GPU-1 4711");
  REQUIRE(xid);
  CHECK(xid->kind == BoardEvent::Kind::k_xid);
  CHECK(xid->number == 31);
  CHECK(xid->uuid == "GPU-1");
  CHECK(parse_board_line("action 1 GPU-1")->kind == BoardEvent::Kind::k_action);
  CHECK(parse_board_line("drop 2")->number == 2);
  for (const char* refused : {"", "xid", "xid 31", "xid x GPU-1", "drop", "drop 1 2", "action 1"}) {
    CAPTURE(refused);
    CHECK_FALSE(parse_board_line(refused).has_value());
  }
}

TEST_CASE("UUIDs are written as NVIDIA writes them") {
  const auto device = device_of_uuid("GPU-5130-0001");
  REQUIRE(device);
  CHECK(uuid_text(*device) == "GPU-51300001-0000-0000-0000-000000000000");
  CHECK(uuid_text(*device_of_uuid("MIG-51300000-0000-4000-8000-00000000002f")) ==
        "MIG-51300000-0000-4000-8000-00000000002f");
  CHECK_FALSE(device_of_uuid("0").has_value());
  CHECK_FALSE(device_of_uuid("GPU-xyz").has_value());
}

}  // namespace mps::sim
