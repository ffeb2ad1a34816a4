#include "gate/wire.h"

#include <doctest/doctest.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

using namespace mps;
using namespace mps::gate;

namespace {

std::string bytes_of(const Message& message) {
  Buffer buffer;
  const auto bytes = encode(message, buffer);
  return {bytes.begin(), bytes.end()};
}

std::vector<Kind> all_kinds() {
  std::vector<Kind> kinds;
  for (auto i = static_cast<int>(Kind::setup); i <= static_cast<int>(Kind::end); ++i)
    kinds.push_back(static_cast<Kind>(i));
  for (auto i = static_cast<int>(Kind::welcome); i <= static_cast<int>(Kind::refused); ++i)
    kinds.push_back(static_cast<Kind>(i));
  return kinds;
}

Message sample(Kind kind) {
  return {.kind = kind,
          .peer = 0xfedcba9876543210U,
          .pid = -7,
          .uid = 0xffffffffU,
          .gid = 5,
          .code = 110,
          .share = "open",
          .bytes = std::string_view("a\0b", 3)};
}

std::string error_of(const std::string& bytes) {
  const auto message = decode(bytes);
  return message ? "" : message.error().message;
}

}  // namespace

TEST_CASE("what is encoded is decoded the same, of every kind") {
  for (const auto kind : all_kinds()) {
    const auto bytes = bytes_of(sample(kind));
    const auto message = decode(bytes);
    REQUIRE(message.has_value());
    CHECK(message->kind == kind);
    CHECK(message->peer == 0xfedcba9876543210U);
    CHECK(message->pid == -7);
    CHECK(message->uid == 0xffffffffU);
    CHECK(message->gid == 5);
    CHECK(message->code == 110);
    CHECK(message->share == "open");
    CHECK(message->bytes == std::string_view("a\0b", 3));
    CHECK(bytes_of(*message) == bytes);
  }
}

TEST_CASE("the longest message fits, and longer texts are cut to it") {
  const std::string share(k_share_limit + 9, 's');
  const std::string bytes(k_bytes_limit + 9, 'b');
  const auto encoded = bytes_of({.kind = Kind::setup, .share = share, .bytes = bytes});
  CHECK(encoded.size() <= k_message_limit);
  const auto message = decode(encoded);
  REQUIRE(message.has_value());
  CHECK(message->share == share.substr(0, k_share_limit));
  CHECK(message->bytes == bytes.substr(0, k_bytes_limit));
}

TEST_CASE("a message that was cut anywhere, or is longer than it says, is none") {
  const auto whole = bytes_of(sample(Kind::ask));
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const auto* expected =
        size < 40 ? "a message that is too short" : "a message whose lengths are wrong";
    CHECK(error_of(whole.substr(0, size)) == expected);
  }
  CHECK(error_of(whole + "x") == "a message whose lengths are wrong");
}

TEST_CASE("lengths that do not agree with the message are seen") {
  const auto whole = bytes_of(sample(Kind::ask));
  const auto with_share = [&whole](unsigned size) {
    auto bytes = whole;
    const auto value = static_cast<std::uint16_t>(size);
    std::memcpy(bytes.data() + 6, &value, sizeof(value));
    return bytes;
  };
  for (unsigned size = 0; size <= 0xffffU; ++size) {
    if (size == 4) continue;
    REQUIRE(error_of(with_share(size)) == "a message whose lengths are wrong");
  }
  for (const std::uint32_t size : {0U, 2U, 4U, 1025U, 0xfffffffcU, 0xffffffffU}) {
    auto bytes = whole;
    std::memcpy(bytes.data() + 32, &size, sizeof(size));
    CHECK(error_of(bytes) == "a message whose lengths are wrong");
  }
}

TEST_CASE("other magic and other kinds are refused") {
  auto bytes = bytes_of(sample(Kind::end));
  for (unsigned kind = 0; kind <= 0xffffU; ++kind) {
    const auto value = static_cast<std::uint16_t>(kind);
    std::memcpy(bytes.data() + 4, &value, sizeof(value));
    const bool known = (kind >= 1 && kind <= static_cast<unsigned>(Kind::end)) ||
                       (kind >= 100 && kind <= static_cast<unsigned>(Kind::refused));
    const auto expected =
        known ? std::string() : "a message of an unknown kind: " + std::to_string(kind);
    REQUIRE(error_of(bytes) == expected);
  }
  bytes[0] = 'x';
  CHECK(error_of(bytes) == "not a message of the gate's protocol");
}

TEST_CASE("random bytes, and messages with random changes, are decoded within their bounds") {
  std::mt19937 random(7);
  for (int i = 0; i < 20000; ++i) {
    std::string bytes = i % 2 == 0 ? bytes_of(sample(Kind::listen)) : std::string(random() % 80, 0);
    for (auto changes = random() % 8; changes > 0 && !bytes.empty(); --changes)
      bytes[random() % bytes.size()] = static_cast<char>(random());
    const std::vector<char> exact(bytes.begin(), bytes.end());
    const auto message = decode(exact);
    if (!message) continue;
    REQUIRE(40 + message->share.size() + message->bytes.size() == bytes.size());
  }
}

TEST_CASE("texts are packed and unpacked") {
  const std::vector<std::string> texts{"", "a", std::string(255, 'x'), std::string("\0\1", 2)};
  CHECK(*unpack(pack(texts)) == texts);
  CHECK(unpack("")->empty());
  CHECK(unpack(pack({std::string(300, 'x')}))->front() == std::string(255, 'x'));
}

TEST_CASE("packed texts that are cut or too many are refused") {
  const auto packed = pack({"abc", "de"});
  for (std::size_t size = 1; size < packed.size(); ++size) {
    if (size == 4) continue;  // the first alone
    const auto texts = unpack(packed.substr(0, size));
    REQUIRE_FALSE(texts.has_value());
    CHECK(texts.error().message == "a text that is cut off");
  }
  CHECK(unpack(pack(std::vector<std::string>(16)))->size() == 16);
  const auto many = unpack(pack(std::vector<std::string>(17)));
  REQUIRE_FALSE(many.has_value());
  CHECK(many.error().message == "too many texts");
}

TEST_CASE("each reason for a refusal has a name") {
  CHECK(std::string(to_string(Refusal::unknown_opening)) == "unknown_opening");
  CHECK(std::string(to_string(Refusal::wrong_process)) == "wrong_process");
  CHECK(std::string(to_string(Refusal::had_descriptors)) == "had_descriptors");
  CHECK(std::string(to_string(Refusal::ended)) == "ended");
  CHECK(std::string(to_string(static_cast<Refusal>(9))) == "unknown");
}
