#include "policy/subject.h"

#include <doctest/doctest.h>

#include <set>
#include <string>
#include <utility>

using namespace mps::policy;

namespace {

std::string letters(std::size_t count, char letter = 'n') {
  return std::string(count, letter);
}

}  // namespace

TEST_CASE("a namespace's name, or a kind with a name") {
  for (const auto& good :
       {std::string("a"), std::string("team-a"), std::string("0"), std::string("a--b"), letters(63),
        std::string("*"), std::string("docker:web"), std::string("docker:*"),
        std::string("unit:train@1.service"), std::string("unit:dev-disk\\x2d1.mount"),
        std::string("unit:*"), std::string("user:Ann.B_c"), std::string("user:a:b"),
        std::string("user:*"), "user:" + letters(128)}) {
    CAPTURE(good);
    CHECK(is_subject(good));
  }
  for (const auto& bad :
       {std::string(""), std::string("-a"), std::string("a-"), std::string("A"), std::string("a.b"),
        std::string("a_b"), std::string("**"), std::string("a*"), letters(64),
        std::string("docker:"), std::string("docker:a b"), std::string("docker:a/b"),
        std::string("user:a*"), std::string("pod:a"), "user:" + letters(129),
        std::string("Docker:a"), std::string("user:\xc3\xa4"), std::string("a\0b", 3)}) {
    CAPTURE(bad);
    CHECK_FALSE(is_subject(bad));
  }
}

TEST_CASE("who stands in for whom") {
  const std::pair<const char*, const char*> cases[] = {
      {"team-a", "*"},        {"*", "*"},          {"docker:web", "docker:*"}, {"unit:a", "unit:*"},
      {"user:ann", "user:*"}, {"unit:*", "unit:*"}};
  for (const auto& [subject, fallback] : cases) {
    CAPTURE(subject);
    CHECK(kind_default(subject) == fallback);
    CHECK(is_kind_default(subject) == (std::string(subject) == fallback));
  }
  CHECK(is_for_pods("team-a"));
  CHECK(is_for_pods("*"));
  CHECK(is_for_pods("docker"));
  CHECK_FALSE(is_for_pods("docker:*"));
  CHECK_FALSE(is_for_pods("user:ann"));
}

TEST_CASE("labels are Kubernetes' labels") {
  for (const auto& good :
       {std::string("app"), std::string("A"), std::string("a.b_c-d"),
        std::string("example.com/app"), letters(63), letters(253) + "/app", std::string("a/B")}) {
    CAPTURE(good);
    CHECK(is_label_key(good));
  }
  for (const auto& bad : {std::string(""), std::string("-a"), std::string("a-"), std::string("a b"),
                          std::string("/a"), std::string("a/"), std::string("a/b/c"),
                          std::string("A/b"), std::string("a..b/c"), std::string("a-/c"),
                          letters(64), letters(254) + "/app", std::string("\xc3\xa4")}) {
    CAPTURE(bad);
    CHECK_FALSE(is_label_key(bad));
  }
  CHECK(is_label_value(""));
  CHECK(is_label_value("1.2.3"));
  CHECK(is_label_value(letters(63)));
  CHECK_FALSE(is_label_value(letters(64)));
  CHECK_FALSE(is_label_value("_a"));
  CHECK_FALSE(is_label_value("a/b"));
}

TEST_CASE("an instance's name says whose it is, in 24 bytes") {
  CHECK(dedicated_domain("team-a") == "ns-team-a");
  CHECK(instance_id("gpu0", "shared") == "gpu0.shared");
  CHECK(instance_id("gpu0", "ns-team-a") == "gpu0.ns-team-a");
  CHECK(instance_id("gpu0", "ns-sixteen-letters") == "gpu0.ns-sixteen-letters");
  CHECK(instance_id("gpu0", "ns-sixteen-letterss") == "gpu0.ns-sixteen-letterss");  // 24
  CHECK(instance_id("gpu0", "ns-team-machine-learning") ==
        "gpu0.ns-team-mach-" + short_hash("ns-team-machine-learning").substr(0, 6));
  CHECK(instance_id("gpu0", "ns-user:Ann") ==
        "gpu0.ns-user--nn-" + short_hash("ns-user:Ann").substr(0, 6));
}

TEST_CASE("every instance's name is short, plain and its own") {
  std::set<std::string> ids;
  std::size_t count = 0;
  for (const auto& device : {std::string("gpu0"), std::string("gpu255"), std::string("gpu0-mig0"),
                             std::string("gpu255-mig255")}) {
    CAPTURE(device);
    const auto try_one = [&](const std::string& subject) {
      CAPTURE(subject);
      const auto id = instance_id(device, dedicated_domain(subject));
      CHECK(id.size() <= k_instance_name_limit);
      CHECK(id.starts_with(device + ".ns"));
      CHECK(id.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-.") == std::string::npos);
      CHECK_FALSE(id.ends_with('-'));
      ids.insert(id);
      ++count;
    };
    for (std::size_t size = 1; size <= 63; ++size) try_one(letters(size));
    for (const auto* other : {"user:ann", "user:Ann", "unit:ann", "docker:ann", "unit:a.service",
                              "unit:a@service", "unit:a\\x2d.mount", "user:-"}) {
      try_one(other);
    }
  }
  CHECK(ids.size() == count);
}

TEST_CASE("a hash is the same on every node and in every release") {
  CHECK(short_hash("").size() == 12);
  CHECK(short_hash("") == "e129f27c5103");
  CHECK(short_hash("team-a") != short_hash("team-b"));
}
