#include <doctest/doctest.h>

#include "log_pipe.h"
#include "memory_book.h"
#include "steering.h"
#include "values.h"

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

}  // namespace mps::sim
