#include "ctl/commands.h"

#include <unistd.h>

#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "api/http.h"
#include "base/text.h"
#include "ctl/ask.h"
#include "ctl/views.h"

namespace mps::ctl {

namespace {

using api::percent_encode;
using nlohmann::json;

constexpr std::chrono::seconds k_retry_pause{1};
constexpr std::chrono::seconds k_terminate_timeout{35};  // the supervisor takes 30 s at most

SystemTime now() {
  return std::chrono::system_clock::now();
}

bool wide(const Console& console) {
  return console.format == Format::wide;
}

std::string events_target(const EventsOptions& options, std::optional<std::uint64_t> since) {
  std::string target = options.follow ? "/v1/events?follow=1" : "/v1/events?follow=0";
  if (since) target += "&since=" + std::to_string(*since);
  if (options.limit) target += "&limit=" + std::to_string(*options.limit);
  if (!options.kind.empty()) target += "&kind=" + percent_encode(options.kind);
  if (!options.instance.empty()) target += "&instance=" + percent_encode(options.instance);
  return target;
}

std::string event_text(Format format, const json& event, const std::string& line) {
  if (format == Format::json) return line + "\n";
  if (format == Format::yaml) return "---\n" + to_yaml(event);
  return event_line(event, format == Format::wide);
}

// How a stream came to its end, and whether another one may go further.
struct StreamEnd {
  int status = k_done;
  std::string message;
  bool passes = true;
};

StreamEnd end_of_stream(const Console& console, const Result<Response>& ended) {
  if (!ended) return {k_unreachable, ended.error().message};
  if (ended->status >= 300) return {k_failed, error_message(*ended), ended->status >= 500};
  return {k_done, "the supervisor at " + console.socket + " has ended the stream"};
}

int follow_events(const Console& console, const EventsOptions& options) {
  auto since = options.since;
  const auto on_line = [&console, &since](const std::string& line) {
    const auto event = json::parse(line, nullptr, false);
    if (!event.is_object()) return true;
    for (const char* name : {"id", "lastId"}) {
      const auto found = event.find(name);
      if (found != event.end() && found->is_number_unsigned()) since = found->get<std::uint64_t>();
    }
    console.out << event_text(console.format, event, line) << std::flush;
    return console.out.good();
  };
  for (;;) {
    const auto ended = Client(console.socket).follow(events_target(options, since), on_line);
    if (!console.out.good()) return fail(console, k_failed, "the output cannot be written");
    const auto why = end_of_stream(console, ended);
    const int status = fail(console, why.status, why.message);
    if (!options.retry || !why.passes) return status;
    std::this_thread::sleep_for(k_retry_pause);
  }
}

int watch_clients(const Console& console, const std::string& target, const View& view,
                  std::chrono::milliseconds interval) {
  const bool terminal = &console.out == &std::cout && ::isatty(STDOUT_FILENO) == 1;
  std::string shown;
  for (;;) {
    const auto answered = ask(console, "GET", target);
    if (answered.status != k_done) return answered.status;
    auto text = render(console.format, answered.value, view);
    if (text != shown) {
      if (terminal) console.out << "\x1b[H\x1b[2J";
      console.out << text << std::flush;
      shown = std::move(text);
    }
    if (!console.out.good()) return k_failed;
    std::this_thread::sleep_for(interval);
  }
}

}  // namespace

int show_status(const Console& console) {
  return show(console, "/v1/status", [](const json& value) { return status_text(value, now()); });
}

int show_devices(const Console& console) {
  return show(console, "/v1/devices",
              [&console](const json& value) { return devices_text(value, wide(console)); });
}

int show_instances(const Console& console) {
  return show(console, "/v1/instances", [&console](const json& value) {
    return instances_text(value, wide(console), now());
  });
}

int show_clients(const Console& console, const ClientsOptions& options) {
  std::string target = "/v1/clients";
  if (!options.instance.empty()) target += "?instance=" + percent_encode(options.instance);
  const View view = [&console](const json& value) {
    return clients_text(value, wide(console), now());
  };
  if (options.watch) return watch_clients(console, target, view, options.interval);
  return show(console, target, view);
}

int show_admissions(const Console& console, const AdmissionsOptions& options) {
  if (options.use) return show(console, "/v1/admissions/use", use_text);
  std::string target = options.waiting ? "/v1/admissions/waiting" : "/v1/admissions";
  if (!options.subject.empty()) target += "?namespace=" + percent_encode(options.subject);
  return show(console, target, [&console, &options](const json& value) {
    return options.waiting ? waiting_text(value, wide(console), now())
                           : admissions_text(value, wide(console));
  });
}

int show_events(const Console& console, const EventsOptions& options) {
  if (options.follow) return follow_events(console, options);
  return show(console, events_target(options, options.since), [&console](const json& events) {
    std::string text;
    for (const auto& event : events) text += event_line(event, wide(console));
    return text;
  });
}

int carry_out(const Console& console, const std::string& verb, const std::string& instance,
              bool force) {
  const auto answered =
      ask(console, "POST", "/v1/instances/" + percent_encode(instance) + ":" + verb,
          force ? R"({"force":true})" : "");
  if (answered.status != k_done) return answered.status;
  console.out << render(console.format, answered.value, [](const json& value) {
    return printable(value.value("message", std::string("accepted")), 1000) + "\n";
  });
  return k_done;
}

int terminate(const Console& console, const std::string& pid) {
  const auto answered = ask(console, "POST", "/v1/clients/" + percent_encode(pid) + ":terminate",
                            "", k_terminate_timeout);
  if (answered.status != k_done) return answered.status;
  console.out << render(console.format, answered.value, [](const json& value) {
    return printable(value.value("message", std::string("terminated")), 1000) + "\n";
  });
  return k_done;
}

int show_version(const Console& console) {
  const auto response = Client(console.socket).request("GET", "/v1/status");
  const auto status = response ? json::parse(response->body, nullptr, false) : json();
  json versions{{"client", MPS_VERSION}, {"supervisor", nullptr}};
  if (status.is_object() && status.contains("version")) {
    versions["supervisor"] = status["version"];
  }
  console.out << render(console.format, versions, [](const json& value) {
    const auto& supervisor = value["supervisor"];
    return "mps-ctl " MPS_VERSION "\nmps-supervisor " +
           (supervisor.is_string() ? printable(supervisor.get<std::string>())
                                   : std::string("not reachable")) +
           "\n";
  });
  return k_done;
}

}  // namespace mps::ctl
