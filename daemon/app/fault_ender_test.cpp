#include "app/fault_ender.h"

#include <doctest/doctest.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <csignal>
#include <set>

using namespace mps;
using namespace mps::app;
using instance::ClientProcess;
using instance::Termination;
using Kind = Termination::Kind;
using Lines = std::vector<std::string>;

namespace {

struct Fixture {
  Fixture() {
    FaultEnder::Sources sources;
    sources.is_waited_for = [this](const ClientProcess& client) { return client.pid == patient; };
    sources.terminate = [this](const std::string&, const FaultEnder::Clients& clients,
                               const instance::Actor::Terminated& told) {
      if (!there) return false;
      std::vector<Termination> results;
      for (const auto& client : clients) {
        done.push_back("terminate " + std::to_string(client.pid));
        results.push_back({client, ending, ""});
      }
      const auto answers = [this, told, results] {
        for (const auto pid : ended_by_it) there_still.erase(pid);
        told(results);
      };
      if (late) {
        answer_later = answers;
      } else {
        boost::asio::post(io, answers);
      }
      return true;
    };
    sources.waits_for = [this](const std::string& instance, pid_t client) {
      return instance == "gpu0.shared" && there_still.contains(client);
    };
    sources.signal = [this](const ClientProcess& client, int number) -> Result<void> {
      CHECK(client.start_ticks == 7);
      if (client.pid == gone) return Error{"it has ended"};
      done.push_back("signal " + std::to_string(client.pid) + " " + std::to_string(number));
      if (number == ends_them) there_still.erase(client.pid);
      if (late && number == SIGTERM) boost::asio::post(io, answer_later);
      return {};
    };
    sources.say = [this](const std::string& kind, const std::string&, const std::string& message) {
      done.push_back(kind + ": " + message);
    };
    ender = std::make_shared<FaultEnder>(
        io.get_executor(), std::move(sources),
        FaultEnder::Patience{std::chrono::milliseconds{1}, std::chrono::milliseconds{1}});
  }

  void end(const std::vector<pid_t>& pids) {
    std::vector<instance::Client> clients;
    for (const auto pid : pids) {
      instance::Client client;
      client.pid = pid;
      client.start_ticks = 7;
      clients.push_back(client);
    }
    ender->end("gpu0.shared", clients, [this](const instance::FaultedClientsEnded& sum) {
      done.push_back("ended " + std::to_string(sum.ended) + ", waited for " +
                     std::to_string(sum.waited_for) + (sum.trouble.empty() ? "" : "; ") +
                     sum.trouble);
    });
    CHECK(std::none_of(done.begin(), done.end(),
                       [](const auto& line) { return line.starts_with("ended"); }));
    io.run();
  }

  boost::asio::io_context io;
  bool there = true;
  Kind ending = Kind::terminated;
  pid_t patient = 0;
  pid_t gone = 0;
  std::set<pid_t> there_still{10, 11, 12};  // whom a faulted server has
  std::set<pid_t> ended_by_it;              // whom MPS's ending makes go
  int ends_them = 0;                        // the signal that does
  bool late = false;                        // MPS answers after SIGTERM only
  std::function<void()> answer_later;
  Lines done;
  std::shared_ptr<FaultEnder> ender;
};

}  // namespace

namespace {

std::string signalled(int count, const std::string& name) {
  return "fault_clients_signalled: " + std::to_string(count) +
         " clients that hold a fault were sent " + name + ": the server still waits for them";
}

}  // namespace

TEST_CASE_FIXTURE(Fixture, "clients are ended through MPS, and left alone when that was enough") {
  ended_by_it = {10, 11};
  end({10, 11});
  CHECK(done == Lines{"terminate 10", "terminate 11", "ended 2, waited for 0"});
}

TEST_CASE_FIXTURE(Fixture, "whose policy says so is waited for, and gets no signal") {
  patient = 11;
  end({10, 11});
  CHECK(done == Lines{"terminate 10", "ended 1, waited for 1", "signal 10 15",
                      signalled(1, "SIGTERM"), "signal 10 9", signalled(1, "SIGKILL")});
}

TEST_CASE_FIXTURE(Fixture, "where all are waited for nobody is asked") {
  patient = 11;
  end({11});
  CHECK(done == Lines{"ended 0, waited for 1"});
}

TEST_CASE_FIXTURE(Fixture, "processes that the server still waits for are ended, too") {
  ended_by_it = {12};
  gone = 11;
  end({10, 11, 12});
  CHECK(done == Lines{"terminate 10", "terminate 11", "terminate 12", "ended 3, waited for 0",
                      "signal 10 15", signalled(1, "SIGTERM"), "signal 10 9",
                      signalled(1, "SIGKILL")});
}

TEST_CASE_FIXTURE(Fixture, "SIGTERM may be enough") {
  ends_them = SIGTERM;
  end({10});
  CHECK(done ==
        Lines{"terminate 10", "ended 1, waited for 0", "signal 10 15", signalled(1, "SIGTERM")});
}

TEST_CASE_FIXTURE(Fixture, "SIGTERM does not wait for MPS, SIGKILL does") {
  late = true;
  end({10});
  CHECK(done == Lines{"terminate 10", "signal 10 15", signalled(1, "SIGTERM"),
                      "ended 1, waited for 0", "signal 10 9", signalled(1, "SIGKILL")});
}

TEST_CASE_FIXTURE(Fixture, "a supervisor that ends meanwhile signals nobody any more") {
  late = true;
  ender->close();
  end({10});
  CHECK(done == Lines{"ended 0, waited for 0"});
}

TEST_CASE_FIXTURE(Fixture, "what went wrong is told") {
  ending = Kind::unanswered;
  ended_by_it = {10};
  end({10});
  CHECK(done == Lines{"terminate 10", "ended 0, waited for 0; client 10: unanswered"});
}

TEST_CASE_FIXTURE(Fixture, "an instance that is gone") {
  there = false;
  end({10});
  CHECK(done == Lines{"ended 0, waited for 0"});
}
