// The answers are those of the real control daemons 535 and 550 with simulated servers.
#include "instance/termination.h"

#include <doctest/doctest.h>

#include <set>

namespace mps::instance {
namespace {

using Lines = std::vector<std::string>;
using Kind = Termination::Kind;

struct Kit {
  explicit Kit(const std::vector<pid_t>& pids) : terminator(clients(pids), lives()) {}

  static std::vector<ClientProcess> clients(const std::vector<pid_t>& pids) {
    std::vector<ClientProcess> list;
    list.reserve(pids.size());
    for (const auto pid : pids) list.push_back({pid, 7});
    return list;
  }
  Terminator::Lives lives() {
    return [this](const ClientProcess& process) { return !ended.contains(process.pid); };
  }
  // The commands of the next batch, and what is answered to them.
  Lines asked() {
    Lines lines;
    for (const auto& command : terminator.batch()) lines.push_back(command.text);
    return lines;
  }
  static control::Answer reply(Lines lines) { return control::Reply{std::move(lines)}; }
  static control::Answer refusal(const std::string& words) { return control::Refusal{words}; }
  // So many "0".
  void done(std::size_t count) { answer(std::vector<control::Answer>(count, reply({"0"}))); }
  void answer(std::vector<control::Answer> answers) {
    terminator.take(control::Answered{std::move(answers)});
  }
  // As far as the first terminate_client.
  void found(Lines listed) {
    REQUIRE(asked() == Lines{"get_server_list"});
    answer({reply({"500"})});
    REQUIRE(asked() == Lines{"get_client_list 500"});
    answer({reply(std::move(listed))});
  }
  [[nodiscard]] std::vector<Kind> kinds() const {
    std::vector<Kind> list;
    for (const auto& result : terminator.results()) list.push_back(result.kind);
    return list;
  }

  std::set<pid_t> ended;
  Terminator terminator;
};

}  // namespace

TEST_CASE("clients are ended in one batch, and MPS's word is taken for it") {
  Kit kit({11, 13});
  kit.found({"11", "12", "13"});
  CHECK(kit.terminator.ends() == 2);
  CHECK(kit.asked() == Lines{"terminate_client 500 11", "terminate_client 500 13"});
  kit.done(2);
  CHECK(kit.terminator.done());
  CHECK(kit.terminator.ends() == 0);
  CHECK(kit.terminator.results() ==
        std::vector<Termination>{{{11, 7}, Kind::terminated, ""}, {{13, 7}, Kind::terminated, ""}});
}

TEST_CASE("many are ended batch by batch") {
  std::vector<pid_t> pids;
  Lines listed;
  for (pid_t pid = 11; pid < 11 + 48; ++pid) {
    pids.push_back(pid);
    listed.push_back(std::to_string(pid));
  }
  Kit kit(pids);
  kit.found(listed);
  std::vector<std::size_t> sizes;
  while (!kit.terminator.done()) {
    CHECK(kit.terminator.ends() == Terminator::k_at_a_time);
    sizes.push_back(kit.asked().size());
    kit.done(sizes.back());
    REQUIRE(sizes.size() < 4);
  }
  CHECK(sizes == std::vector<std::size_t>{16, 16, 16});
  CHECK(kit.kinds() == std::vector<Kind>(48, Kind::terminated));
}

TEST_CASE("of a batch that is not answered each is asked for again, alone, after the others") {
  std::vector<pid_t> pids;
  for (pid_t pid = 11; pid <= 27; ++pid) pids.push_back(pid);
  Kit kit(pids);
  Lines listed;
  for (const auto pid : pids) listed.push_back(std::to_string(pid));
  kit.found(listed);
  CHECK(kit.asked().size() == 16);
  kit.terminator.take(control::Unanswered{"no answer within 8s"});
  CHECK(kit.terminator.ends() == 1);
  CHECK(kit.asked() == Lines{"terminate_client 500 27"});
  kit.done(1);
  // Whoever was ended before is answered so again; 13 is the one that hangs.
  for (pid_t pid = 11; pid <= 26; ++pid) {
    REQUIRE(kit.asked() == Lines{"terminate_client 500 " + std::to_string(pid)});
    if (pid == 13) {
      kit.terminator.take(control::Unanswered{"no answer within 5s"});
    } else {
      kit.done(1);
    }
  }
  for (unsigned look = 0; look < Terminator::k_looks; ++look) {
    REQUIRE(kit.asked() == Lines{"get_client_list 500"});
    kit.answer({Kit::reply(listed)});
  }
  CHECK(kit.terminator.done());
  auto expected = std::vector<Kind>(17, Kind::terminated);
  expected[2] = Kind::unanswered;
  CHECK(kit.kinds() == expected);
  CHECK(kit.terminator.results()[2].why == "no answer within 5s");
}

TEST_CASE("who gives up in the middle of an unanswered batch says what was not answered") {
  Kit kit({11, 12});
  kit.found({"11", "12"});
  (void)kit.asked();
  kit.terminator.take(control::Unanswered{"no answer within 5.2s"});
  kit.ended = {12};
  kit.terminator.give_up("not within 20s");
  CHECK(kit.kinds() == std::vector{Kind::unanswered, Kind::terminated});
  CHECK(kit.terminator.results()[0].why == "no answer within 5.2s");
}

TEST_CASE("an answer to some of a batch is none") {
  Kit kit({11, 12});
  kit.found({"11", "12"});
  (void)kit.asked();
  kit.done(1);
  CHECK(kit.asked() == Lines{"terminate_client 500 11"});
}

TEST_CASE("a client that ends after it was terminated is no other") {
  Kit kit({11});
  kit.found({"11"});
  (void)kit.asked();
  kit.ended = {11};
  kit.done(1);
  CHECK(kit.kinds() == std::vector{Kind::terminated});
}

TEST_CASE("nobody is asked to be ended whose pid may be another's by now") {
  SUBCASE("gone before anything was asked") {
    Kit kit({11, 12});
    kit.ended = {11, 12};
    (void)kit.asked();
    kit.answer({Kit::reply({"500"})});
    CHECK(kit.terminator.done());
    CHECK(kit.kinds() == std::vector{Kind::gone, Kind::gone});
  }
  SUBCASE("gone when its turn has come") {
    Kit kit({11, 12});
    kit.found({"11", "12"});
    kit.ended = {11};
    CHECK(kit.asked() == Lines{"terminate_client 500 12"});
    kit.done(1);
    CHECK(kit.kinds() == std::vector{Kind::gone, Kind::terminated});
  }
  SUBCASE("all of them gone then") {
    Kit kit({11});
    kit.found({"11"});
    kit.ended = {11};
    CHECK(kit.asked().empty());
    kit.answer({});
    CHECK(kit.kinds() == std::vector{Kind::gone});
    CHECK(kit.terminator.done());
  }
}

TEST_CASE("nobody whom no server has") {
  SUBCASE("there is no server") {
    Kit kit({11});
    (void)kit.asked();
    kit.answer({Kit::reply({})});
    CHECK(kit.terminator.done());
    CHECK(kit.kinds() == std::vector{Kind::no_client});
  }
  SUBCASE("it has not come to it yet") {
    Kit kit({11});
    kit.found({"12"});
    CHECK(kit.terminator.done());
    CHECK(kit.kinds() == std::vector{Kind::no_client});
  }
  SUBCASE("the server has gone meanwhile") {
    Kit kit({11});
    (void)kit.asked();
    kit.answer({Kit::reply({"500"})});
    (void)kit.asked();
    kit.answer({Kit::refusal("Server 500 not found")});
    CHECK(kit.kinds() == std::vector{Kind::no_client});
  }
}

TEST_CASE("each by the server that has it") {
  Kit kit({11, 12});
  (void)kit.asked();
  kit.answer({Kit::reply({"500", "501"})});
  CHECK(kit.asked() == Lines{"get_client_list 500", "get_client_list 501"});
  kit.answer({Kit::reply({"12"}), Kit::reply({"11"})});
  CHECK(kit.asked() == Lines{"terminate_client 501 11", "terminate_client 500 12"});
}

TEST_CASE("a refusal comes with MPS's own words") {
  Kit kit({11, 12, 13, 14});
  kit.found({"11", "12", "13", "14"});
  (void)kit.asked();
  kit.answer({Kit::refusal("Invalid process 11!"), Kit::reply({"1"}), Kit::reply({}),
              Kit::reply({"perhaps", "0"})});
  CHECK(kit.terminator.done());
  CHECK(kit.terminator.results() ==
        std::vector<Termination>{{{11, 7}, Kind::refused, "MPS says \"Invalid process 11!\""},
                                 {{12, 7}, Kind::refused, "MPS says CUDA error 1"},
                                 {{13, 7}, Kind::refused, "MPS says nothing"},
                                 {{14, 7}, Kind::refused, "MPS says \"perhaps\""}});
}

TEST_CASE("a client that ended while MPS was asked is gone, not refused") {
  Kit kit({11});
  kit.found({"11"});
  (void)kit.asked();
  kit.ended = {11};
  kit.answer({Kit::refusal("Invalid process 11!")});
  CHECK(kit.kinds() == std::vector{Kind::gone});
}

TEST_CASE("without an answer it is not known what came of it") {
  SUBCASE("to the first question") {
    Kit kit({11});
    (void)kit.asked();
    kit.terminator.take(control::Busy{42, "bash"});
    CHECK(kit.terminator.done());
    CHECK(kit.terminator.results() ==
          std::vector<Termination>{
              {{11, 7}, Kind::unanswered, "the one command session is held by pid 42 (bash)"}});
  }
  SUBCASE("to the ending of one: it is looked whether it has gone") {
    Kit kit({11});
    kit.found({"11"});
    (void)kit.asked();
    kit.terminator.take(control::Unanswered{"no answer within 5s"});
    CHECK(kit.terminator.ends() == 0);
    REQUIRE(kit.asked() == Lines{"get_client_list 500"});
    SUBCASE("it has") {
      kit.answer({Kit::reply({})});
      CHECK(kit.kinds() == std::vector{Kind::terminated});
    }
    SUBCASE("it has not: who was terminated is listed, too") {
      kit.answer({Kit::reply({"11"})});
      for (unsigned look = 1; look < Terminator::k_looks; ++look) {
        CHECK(kit.terminator.looks_again());
        REQUIRE(kit.asked() == Lines{"get_client_list 500"});
        kit.answer({Kit::reply({"11"})});
      }
      CHECK(kit.kinds() == std::vector{Kind::unanswered});
      CHECK(kit.terminator.results()[0].why == "no answer within 5s");
    }
    SUBCASE("nor are the looks answered") {
      for (unsigned look = 0; look < Terminator::k_looks; ++look) {
        REQUIRE_FALSE(kit.terminator.done());
        (void)kit.asked();
        kit.terminator.take(control::Stopped{});
      }
      CHECK(kit.terminator.results() ==
            std::vector<Termination>{{{11, 7}, Kind::unanswered, "no answer within 5s"}});
    }
  }
}

TEST_CASE("who gives up says why, and keeps what is known") {
  Kit kit({11, 12, 13});
  kit.found({"11", "12"});
  (void)kit.asked();
  kit.ended = {12};
  kit.terminator.give_up("there is no more time");
  CHECK(kit.terminator.done());
  CHECK(kit.kinds() == std::vector{Kind::unanswered, Kind::gone, Kind::no_client});
  CHECK(kit.terminator.results()[0].why == "there is no more time");
  CHECK(to_string(kit.kinds()[2]) == std::string("noClient"));
}

TEST_CASE("a fault's requests have places that others cannot take, and each has so many") {
  const struct {
    Behalf behalf, other;
    std::size_t limit;
    const char* full;
  } cases[] = {
      {Behalf::others, Behalf::fault, 8, "8 such requests are under way already"},
      {Behalf::fault, Behalf::others, 4, "4 such requests are under way already"},
  };
  for (const auto& row : cases) {
    TerminationPlaces places;
    for (std::size_t i = 0; i < row.limit; ++i) CHECK_FALSE(places.take(row.behalf));
    CHECK(places.take(row.behalf) == row.full);
    CHECK_FALSE(places.take(row.other));
    places.give_back(row.behalf);
    CHECK_FALSE(places.take(row.behalf));
    CHECK(places.take(row.behalf) == row.full);
  }
}

TEST_CASE("nobody is terminated at once") {
  Kit kit({});
  CHECK(kit.terminator.done());
}

}  // namespace mps::instance
