// For the machine's tests: gives it inputs and reads its actions as text.
#pragma once

#include <string>
#include <vector>

#include "instance/machine.h"

namespace mps::instance {

struct Kit {
  using Lines = std::vector<std::string>;

  explicit Kit(MachineSettings settings = {}) : machine("gpu0.shared", settings) {}

  Lines give(const Input& input) {
    Lines lines;
    for (const auto& action : machine.on(input, now)) lines.push_back(describe(action));
    return lines;
  }
  // A line as the control daemon writes it, or one of its servers (whose lines it passes on).
  Lines line(const std::string& text) { return written(text, "Control  3056"); }
  Lines server_line(const std::string& text) { return written(text, "Other  500"); }
  Lines written(const std::string& text, const std::string& by) {
    return give(
        LogLine{.event = control::parse_log_line("[2026-11-20 23:22:15.182 " + by + "] " + text),
                .command = "python3",
                .start_ticks = 77,
                .at = {}});
  }
  Lines due(Timer timer) { return give(TimerDue{timer}); }
  void later(std::chrono::milliseconds span) { now += span; }

  // Answers of a daemon that has the default limits and, if given, one server with these clients.
  static control::Answer reply(std::vector<std::string> lines) {
    return control::Reply{std::move(lines)};
  }
  static control::Answered limits(const std::string& percentage = "100.0",
                                  std::vector<std::string> pinned = {}) {
    return {{reply({percentage}), reply(std::move(pinned)), reply({"0"})}};
  }
  // The answers to the batches; with `clients`, to those that ask about a server too, whose own
  // limits are `server` (the defaults' without it).
  ConfigureDone configured(control::Answered read = limits(), Lines servers = {},
                           std::optional<Lines> clients = {}) const {
    control::Answered all{{reply({}), reply({}), reply({})}};
    const auto own = read;
    for (auto& answer : read.answers) all.answers.push_back(std::move(answer));
    all.answers.push_back(reply(std::move(servers)));
    if (clients) {
      all.answers.push_back(reply(std::move(*clients)));
      all.answers.push_back(reply({}));
      all.answers.push_back(reply({}));
      all.answers.push_back(own.answers[0]);
      all.answers.push_back(own.answers[1]);
    }
    if (machine.capabilities()) return {std::move(all)};
    for (std::size_t i = 0; i < control::capability_probe().size(); ++i) {
      all.answers.push_back(control::Refusal{"Unknown command \"x\""});
    }
    return {std::move(all)};
  }
  static ProbeDone probed(control::Answered read = limits(), Lines servers = {},
                          std::optional<Lines> clients = {},
                          const std::optional<control::Answered>& server = {}) {
    const auto own = server.value_or(read);
    read.answers.push_back(reply(std::move(servers)));
    if (clients) {
      read.answers.push_back(reply(std::move(*clients)));
      read.answers.push_back(own.answers[0]);
      read.answers.push_back(own.answers[1]);
    }
    return {std::move(read)};
  }

  // As far as `ready`, ten seconds ago.
  void make_ready() {
    give(StartWanted{});
    give(DaemonSpawned{100});
    line("Starting control daemon using socket /run/mps/gpu0.shared/pipe/control");
    give(configured());
    later(std::chrono::seconds{10});
  }
  // With server 500 and client 900 on it.
  void make_busy() {
    make_ready();
    line("NEW CLIENT 900 from user 1000: Server is not ready, push client to pending list");
    line("Starting new server 500 for user 1000");
    line("NEW SERVER 500: Ready");
  }

  Machine machine;
  Machine::TimePoint now{std::chrono::hours{1}};
};

}  // namespace mps::instance
