#include "app/fault_ender.h"

#include <doctest/doctest.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <csignal>

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
                               instance::Actor::Terminated told) {
      if (!there) return false;
      std::vector<Termination> results;
      for (const auto& client : clients) {
        done.push_back("terminate " + std::to_string(client.pid));
        results.push_back({client, ending, ""});
      }
      boost::asio::post(io, [told, results] { told(results); });
      return true;
    };
    sources.is_faulted = [this](const std::string&) { return looks++ < faulted_looks; };
    sources.signal = [this](const ClientProcess& client, int number) -> Result<void> {
      if (client.pid == gone) return Error{"it has ended"};
      done.push_back("signal " + std::to_string(client.pid) + " " + std::to_string(number));
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
  int looks = 0;
  int faulted_looks = 0;
  Lines done;
  std::shared_ptr<FaultEnder> ender;
};

}  // namespace

TEST_CASE_FIXTURE(Fixture, "clients are ended through MPS, and left alone when that was enough") {
  end({10, 11});
  CHECK(done == Lines{"terminate 10", "terminate 11", "ended 2, waited for 0"});
}

TEST_CASE_FIXTURE(Fixture, "whose policy says so is waited for") {
  patient = 11;
  end({10, 11});
  CHECK(done == Lines{"terminate 10", "ended 1, waited for 1"});
}

TEST_CASE_FIXTURE(Fixture, "where all are waited for nobody is asked") {
  patient = 11;
  end({11});
  CHECK(done == Lines{"ended 0, waited for 1"});
}

TEST_CASE_FIXTURE(Fixture, "processes that the server still waits for are ended, too") {
  faulted_looks = 2;
  gone = 11;
  end({10, 11});
  CHECK(done == Lines{"terminate 10", "terminate 11", "ended 2, waited for 0", "signal 10 15",
                      "fault_clients_signalled: 1 clients that hold a fault were sent SIGTERM: the "
                      "server still waits for them",
                      "signal 10 9",
                      "fault_clients_signalled: 1 clients that hold a fault were sent SIGKILL: the "
                      "server still waits for them"});
}

TEST_CASE_FIXTURE(Fixture, "SIGTERM may be enough") {
  faulted_looks = 1;
  end({10});
  CHECK(done.size() == 4);
  CHECK(done[2] == "signal 10 15");
}

TEST_CASE_FIXTURE(Fixture, "what went wrong is told") {
  ending = Kind::unanswered;
  end({10});
  CHECK(done == Lines{"terminate 10", "ended 0, waited for 0; client 10: unanswered"});
}

TEST_CASE_FIXTURE(Fixture, "an instance that is gone") {
  there = false;
  end({10});
  CHECK(done == Lines{"ended 0, waited for 0"});
}
