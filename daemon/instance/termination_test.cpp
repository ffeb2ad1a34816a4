// The answers are those of the real control daemons 535 and 550 with simulated servers.
#include "instance/termination.h"

#include <doctest/doctest.h>

#include <set>

namespace mps::instance {
namespace {

using Lines = std::vector<std::string>;
using Kind = Termination::Kind;

struct Kit {
  explicit Kit(std::vector<pid_t> pids) : terminator(clients(pids), lives()) {}

  static std::vector<ClientProcess> clients(const std::vector<pid_t>& pids) {
    std::vector<ClientProcess> list;
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
  static control::Answer contexts_of(const Lines& pids) {
    Lines lines{
        "PID       ID        SERVER         DEVICE                    NAMESPACE      COMMAND       "
        " "};
    for (const auto& pid : pids) {
      lines.push_back(
          pid + "     0         500            GPU-00000000-0000-0000    4026531836     ./nbody");
    }
    return reply(pids.empty() ? Lines{} : lines);
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

TEST_CASE("a client is terminated: it is still listed, and has no context any more") {
  Kit kit({11});
  kit.found({"11", "12"});
  CHECK(kit.terminator.ends_a_client());
  CHECK(kit.asked() == Lines{"terminate_client 500 11"});
  kit.answer({Kit::reply({"0"})});
  CHECK_FALSE(kit.terminator.ends_a_client());
  CHECK(kit.asked() == Lines{"get_client_list 500"});
  kit.answer({Kit::reply({"11", "12"})});
  CHECK(kit.asked() == Lines{"ps"});
  kit.answer({Kit::contexts_of({"12"})});
  CHECK(kit.terminator.done());
  CHECK(kit.terminator.results() == std::vector<Termination>{{{11, 7}, Kind::terminated, ""}});
}

TEST_CASE("a client that is listed no more is terminated, whatever contexts are listed") {
  Kit kit({11});
  kit.found({"11"});
  (void)kit.asked();
  kit.answer({Kit::reply({"0"})});
  (void)kit.asked();
  kit.answer({Kit::reply({})});
  CHECK(kit.kinds() == std::vector{Kind::terminated});
  CHECK(kit.terminator.done());
}

TEST_CASE("of the last client there is no list of contexts at all") {
  Kit kit({11});
  kit.found({"11"});
  (void)kit.asked();
  kit.answer({Kit::reply({"0"})});
  (void)kit.asked();
  kit.answer({Kit::reply({"11"})});
  (void)kit.asked();
  kit.answer({Kit::contexts_of({})});
  CHECK(kit.kinds() == std::vector{Kind::terminated});
}

TEST_CASE("what MPS says is not believed before it is seen") {
  Kit kit({11});
  kit.found({"11"});
  (void)kit.asked();
  kit.answer({Kit::reply({"0"})});
  for (unsigned look = 0; look < Terminator::k_looks; ++look) {
    CHECK(kit.terminator.looks_again() == (look > 0));
    REQUIRE(kit.asked() == Lines{"get_client_list 500"});
    kit.answer({Kit::reply({"11"})});
    REQUIRE(kit.asked() == Lines{"ps"});
    kit.answer({Kit::contexts_of({"11"})});
  }
  CHECK(kit.terminator.done());
  CHECK(kit.terminator.results() ==
        std::vector<Termination>{
            {{11, 7}, Kind::refused, "MPS says that it has ended it, and still lists it"}});
}

TEST_CASE("a client that ends after it was terminated needs no further look") {
  Kit kit({11});
  kit.found({"11"});
  (void)kit.asked();
  kit.ended = {11};
  kit.answer({Kit::reply({"0"})});
  CHECK(kit.terminator.done());
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
    CHECK(kit.asked().empty());
    kit.answer({});
    CHECK(kit.asked() == Lines{"terminate_client 500 12"});
    CHECK(kit.kinds()[0] == Kind::gone);
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
  CHECK(kit.asked() == Lines{"terminate_client 501 11"});
  kit.answer({Kit::reply({"0"})});
  CHECK(kit.asked() == Lines{"terminate_client 500 12"});
}

TEST_CASE("a refusal comes with MPS's own words") {
  Kit kit({11, 12, 13, 14});
  kit.found({"11", "12", "13", "14"});
  (void)kit.asked();
  kit.answer({Kit::refusal("Invalid process 11!")});
  (void)kit.asked();
  kit.answer({Kit::reply({"1"})});
  (void)kit.asked();
  kit.answer({Kit::reply({})});
  (void)kit.asked();
  kit.answer({Kit::reply({"perhaps", "0"})});
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
  SUBCASE("to the ending of one: the others are ended, and it is looked whether it has gone") {
    Kit kit({11, 12});
    kit.found({"11", "12"});
    (void)kit.asked();
    kit.terminator.take(control::Unanswered{"no answer within 5s"});
    CHECK(kit.asked() == Lines{"terminate_client 500 12"});
    kit.answer({Kit::reply({"0"})});
    (void)kit.asked();
    SUBCASE("it has") {
      kit.answer({Kit::reply({})});
      CHECK(kit.kinds() == std::vector{Kind::terminated, Kind::terminated});
    }
    SUBCASE("it has not, and that it has no context proves nothing") {
      kit.answer({Kit::reply({"11"})});
      for (unsigned look = 1; look < Terminator::k_looks; ++look) {
        REQUIRE(kit.asked() == Lines{"get_client_list 500"});
        kit.answer({Kit::reply({"11"})});
      }
      CHECK(kit.kinds() == std::vector{Kind::unanswered, Kind::terminated});
      CHECK(kit.terminator.results()[0].why == "no answer within 5s");
    }
  }
  SUBCASE("to the looks") {
    Kit kit({11});
    kit.found({"11"});
    (void)kit.asked();
    kit.answer({Kit::reply({"0"})});
    for (unsigned look = 0; look < Terminator::k_looks; ++look) {
      REQUIRE_FALSE(kit.terminator.done());
      (void)kit.asked();
      kit.terminator.take(control::Stopped{});
    }
    CHECK(kit.terminator.results() ==
          std::vector<Termination>{{{11, 7},
                                    Kind::unanswered,
                                    "MPS says that it has ended it, and then, asked for its "
                                    "clients: the control daemon is stopped"}});
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

TEST_CASE("nobody is terminated at once") {
  Kit kit({});
  CHECK(kit.terminator.done());
}

}  // namespace mps::instance
