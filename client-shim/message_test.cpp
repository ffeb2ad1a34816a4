#include "message.h"

#include <doctest/doctest.h>

#include <cstring>
#include <random>
#include <string>

using namespace mps::client;

namespace {

bool accepted(const std::string& text, Message& message) {
  std::memcpy(message.text, text.data(), std::min(text.size(), k_message_limit));
  return accept(message, text.size());
}

Grant grant_of(const std::string& fields) {
  Message message;
  REQUIRE(accepted("granted\n" + fields, message));
  Grant grant;
  REQUIRE(read_grant(message, grant));
  return grant;
}

}  // namespace

TEST_CASE("a message is a kind and lines") {
  Message message;
  CHECK(accepted("granted\nslot=17\nactive-thread-percentage=25.0\n", message));
  CHECK(is(message, "granted"));
  CHECK_FALSE(is(message, "grant"));
  CHECK(number(message, "slot") == 17);
  CHECK(number(message, "again") == -1);
  Text<8> text;
  CHECK(value(message, "active-thread-percentage", text));
  CHECK(std::string(text.c_str()) == "25.0");
  Text<4> small;
  CHECK_FALSE(value(message, "active-thread-percentage", small));
  CHECK(small.empty());
  // A key is a whole one.
  CHECK_FALSE(value(message, "thread-percentage", text));
  CHECK_FALSE(value(message, "active", text));
}

TEST_CASE("what is no message is not taken for one") {
  Message message;
  for (const std::string& bad :
       {std::string(), std::string("granted"), std::string("\nslot=1\n"), std::string("Granted\n"),
        std::string("granted\nslot\0=1\n", 16), std::string("granted \n"),
        std::string(33, 'a') + "\n", std::string(k_message_limit + 1, 'a')}) {
    CAPTURE(bad);
    CHECK_FALSE(accepted(bad, message));
  }
}

TEST_CASE("what was granted") {
  auto grant = grant_of(
      "active-thread-percentage=25.5\npinned-memory-mib=10240\n"
      "client-priority=1\nvisible-devices=GPU-1\n");
  CHECK(std::string(grant.percentage.c_str()) == "25.5");
  CHECK(grant.memory_mib == 10240);
  CHECK(grant.below_normal);
  CHECK(std::string(grant.visible_devices.c_str()) == "GPU-1");

  grant = grant_of("active-thread-percentage=100.0\n");
  CHECK(grant.percentage.empty());
  CHECK(grant.memory_mib == -1);
  CHECK_FALSE(grant.below_normal);
  CHECK(grant.visible_devices.empty());
}

TEST_CASE("a grant that is not understood is none") {
  for (const char* fields : {"", "active-thread-percentage=\n", "active-thread-percentage=25\n",
                             "active-thread-percentage=0.0\n", "active-thread-percentage=25.00\n",
                             "active-thread-percentage=2500.0\n", "active-thread-percentage=x.0\n",
                             "active-thread-percentage=25.0\npinned-memory-mib=\n",
                             "active-thread-percentage=25.0\npinned-memory-mib=0\n",
                             "active-thread-percentage=25.0\npinned-memory-mib=-5\n"}) {
    CAPTURE(fields);
    Message message;
    REQUIRE(accepted(std::string("granted\n") + fields, message));
    Grant grant;
    CHECK_FALSE(read_grant(message, grant));
  }
}

TEST_CASE("whatever comes is read within its bounds") {
  std::mt19937 random(20261121);  // NOLINT: the same each time
  const std::string good =
      "granted\nslot=17\nactive-thread-percentage=25.0\npinned-memory-mib=10240\n";
  for (int round = 0; round < 20'000; ++round) {
    std::string text = good;
    for (int change = 0; change < 4; ++change)
      text[random() % text.size()] = static_cast<char>(random());
    text.resize(1 + random() % text.size());
    Message message;
    if (!accepted(text, message)) continue;
    Grant grant;
    (void)read_grant(message, grant);
    CHECK(std::strlen(message.text) == text.size());
  }
}
