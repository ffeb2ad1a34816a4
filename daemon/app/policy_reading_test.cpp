#include "app/policy_reading.h"

#include <doctest/doctest.h>

#include <ctime>
#include <filesystem>
#include <fstream>

#include "app/policy_directory.h"

using namespace mps;
using namespace mps::app;
using namespace std::chrono_literals;
using policy::SourceFile;
using Strings = std::vector<std::string>;
using TimePoint = std::chrono::steady_clock::time_point;

namespace {

std::string text(const std::string& subject, const std::string& percentage) {
  return "apiVersion: mps-supervisor.dev/v1\nkind: MpsPolicy\nmetadata: {namespace: \"" + subject +
         "\"}\nspec: {client: {activeThreadPercentage: " + percentage + "}}\n";
}

SourceFile file(const std::string& name, const std::string& subject,
                const std::string& percentage = "50") {
  return {name, text(subject, percentage), ""};
}

const TimePoint k_now{100s};

struct Readings {
  explicit Readings(const std::vector<SourceFile>& files) {
    order.before = policy::next_generation({}, files, {});
    order.gone.emplace();
  }
  [[nodiscard]] PolicyReading read(std::vector<SourceFile> files, bool one_version = false) const {
    return next_reading(order, std::move(files), one_version, k_now);
  }
  ReadingOrder order;
};

Strings subjects(const PolicyReading& reading) {
  Strings found;
  for (const auto& [subject, policy] : reading.generation->policies) found.push_back(subject);
  return found;
}

}  // namespace

TEST_CASE("a file that is missing says what it said for a moment, and others change at once") {
  Readings readings({file("a.yaml", "a"), file("b.yaml", "b")});
  auto reading = readings.read({file("b.yaml", "b", "75")});
  CHECK(reading.kept == Strings{"a.yaml"});
  CHECK_FALSE(reading.undecided);
  CHECK(subjects(reading) == Strings{"a", "b"});
  CHECK(reading.generation->number == 2);
  CHECK(reading.generation->policies.at("b")->client.active_thread_percentage->value == 75);

  readings.order.gone = {{"a.yaml", k_now - 99ms}};
  CHECK(readings.read({file("b.yaml", "b")}).kept == Strings{"a.yaml"});
  readings.order.gone = {{"a.yaml", k_now - 100ms}};
  reading = readings.read({file("b.yaml", "b")});
  CHECK(reading.kept.empty());
  CHECK(subjects(reading) == Strings{"b"});
}

TEST_CASE("a file that comes back counts as it is then") {
  Readings readings({file("a.yaml", "a")});
  readings.order.gone = {{"a.yaml", k_now - 1h}};
  const auto reading = readings.read({file("a.yaml", "a", "250")});
  CHECK(reading.kept.empty());
  CHECK(reading.generation->files[0].state == policy::File::State::last_good);
}

TEST_CASE("a version of a ConfigMap says what was removed, and so does the first reading") {
  Readings readings({file("a.yaml", "a"), file("b.yaml", "b")});
  CHECK(subjects(readings.read({file("b.yaml", "b")}, true)) == Strings{"b"});
  readings.order.gone.reset();
  CHECK(subjects(readings.read({file("b.yaml", "b")})) == Strings{"b"});
}

TEST_CASE("a file that may have got another name is waited for") {
  Readings readings({file("a.yaml", "a")});
  auto reading = readings.read({file("z.yaml", "a")});
  CHECK(reading.undecided);
  CHECK(reading.kept == Strings{"a.yaml"});
  CHECK(reading.generation == readings.order.before);
  readings.order.gone = {{"a.yaml", k_now - 100ms}};
  reading = readings.read({file("z.yaml", "a")});
  CHECK_FALSE(reading.undecided);
  CHECK(reading.generation->files.size() == 1);
  CHECK(reading.generation->files[0].state == policy::File::State::good);
}

TEST_CASE("a bad file that is missing is shown as it was") {
  Readings readings({file("a.yaml", "a")});
  readings.order.before = policy::next_generation(
      *readings.order.before, {{"a.yaml", text("a", "250") + "---\n" + text("b", "1"), ""}}, {});
  REQUIRE(readings.order.before->refused.contains("b"));
  const auto reading = readings.read({});
  CHECK(reading.generation->number == readings.order.before->number);
  CHECK(reading.generation->files[0].errors == readings.order.before->files[0].errors);
  CHECK(reading.generation->refused.contains("b"));
  const PolicyReading before{.generation = readings.order.before, .error = "", .kept = {}};
  CHECK(policy_news(before, reading, "/p").empty());
}

TEST_CASE("one that never was good is not waited for") {
  const Readings readings({{"a.yaml", "bad", ""}});
  CHECK(readings.read({}).kept.empty());
}

TEST_CASE("a store is read as it was written, and another version's is refused") {
  const auto generation = policy::next_generation(
      {}, {{"a.yaml", text("team-a", "25"), ""}, {"b.yaml", "bad", ""}}, {});
  const auto again = from_store(*to_store(*generation));
  REQUIRE(again);
  CHECK((*again)->number == 1);
  CHECK((*again)->hash == generation->hash);
  CHECK((*again)->policies.contains("team-a"));
  CHECK(from_store("{\"version\": 2, \"generation\": 1, \"files\": []}").error().message ==
        "is of another version of mps-supervisor");
  CHECK(from_store("[]").error().message == "is damaged");
}
