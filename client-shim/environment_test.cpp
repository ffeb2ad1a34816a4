#include "environment.h"

#include <doctest/doctest.h>
#include <errno.h>
#include <unistd.h>

#include <string>
#include <vector>

using namespace mps::client;

namespace {

// The process' own environment comes back.
struct Fixture {
  Fixture() : before(environ) {}
  ~Fixture() { environ = before; }
  Fixture(const Fixture&) = delete;
  Fixture& operator=(const Fixture&) = delete;

  void begin(std::vector<std::string> entries) {
    texts = std::move(entries);
    pointers.clear();
    for (auto& text : texts) pointers.push_back(text.data());
    pointers.push_back(nullptr);
    environ = pointers.data();
  }
  static std::string all() {
    std::string text;
    for (char** entry = environ; *entry != nullptr; ++entry) text += std::string(*entry) + ";";
    return text;
  }

  char** before;
  std::vector<std::string> texts;
  std::vector<char*> pointers;
};

}  // namespace

TEST_CASE_FIXTURE(Fixture, "variables are found, changed and added") {
  begin({"A=1", "AB=2", "B=", "odd"});
  CHECK(std::string(variable("A")) == "1");
  CHECK(std::string(variable("B")).empty());
  CHECK(variable("odd") == nullptr);
  CHECK(variable("C") == nullptr);
  CHECK(set_variable("A", "9") == 0);
  CHECK(set_variable("C", "3") == 0);
  CHECK(set_variable("D", "") == 0);
  CHECK(set_variable("C", "4") == 0);
  CHECK(all() == "A=9;AB=2;B=;odd;C=4;D=;");
  unset_variable("AB");
  unset_variable("nobody");
  CHECK(all() == "A=9;B=;odd;C=4;D=;");
}

TEST_CASE_FIXTURE(Fixture, "of a variable that is there twice one is left") {
  begin({"A=1", "B=2", "A=3"});
  CHECK(set_variable("A", "9") == 0);
  CHECK(all() == "A=9;B=2;");
  begin({"A=1", "B=2", "A=3"});
  unset_variable("A");
  CHECK(all() == "B=2;");
}

TEST_CASE_FIXTURE(Fixture, "where nothing is set yet, and where there is nothing at all") {
  begin({});
  CHECK(set_variable("A", "1") == 0);
  CHECK(all() == "A=1;");
  environ = nullptr;
  CHECK(variable("A") == nullptr);
  unset_variable("A");
  CHECK(set_variable("A", "1") == 0);
  CHECK(all() == "A=1;");
}

TEST_CASE_FIXTURE(Fixture, "more than there is room for is said, and nothing changes") {
  begin({"A=1"});
  CHECK(set_variable("B", std::string(9000, 'x').c_str()) == ENOMEM);
  CHECK(all() == "A=1;");
}
