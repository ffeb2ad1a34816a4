// A line of the log, without its line end; should there be some, each line is taken for itself, and
// all of them in order for the lists that they may make.
#include <algorithm>
#include <string>
#include <string_view>
#include <variant>

#include "base/text.h"
#include "control/fault_lists.h"
#include "control/log_event.h"
#include "targets.h"

namespace mps::fuzz {

namespace {

using namespace mps::control;

bool is_printable(std::string_view text) {
  return std::none_of(text.begin(), text.end(), [](char letter) {
    const auto byte = static_cast<unsigned char>(letter);
    return byte < 0x20 || byte == 0x7f;
  });
}

struct Check {
  const LogEvent& event;

  void operator()(const DaemonListening& kind) const { from_control(kind.socket); }
  void operator()(const CommandLogged& kind) const { from_control(kind.text); }
  void operator()(const ClientAsked& kind) const { from_control("", kind.pid); }
  void operator()(const ServerStarting& kind) const { from_control("", kind.pid); }
  void operator()(const ServerReady& kind) const { from_control("", kind.pid); }
  void operator()(const ServerExited& kind) const { from_control("", kind.pid); }
  void operator()(const ServerStartFailed& kind) const {
    require(is_printable(kind.cause), "a cause is printable");
    require(kind.pid == event.pid, "a server speaks for itself");
  }
  void operator()(const ClientConnected& kind) const { from_server(kind.pid); }
  void operator()(const ClientGone& kind) const { from_server(kind.pid); }
  void operator()(const FatalFault& kind) const { from_server(kind.server); }
  void operator()(const FaultCulprit& kind) const { from_server(kind.pid); }
  void operator()(const StickyListBegins& kind) const { from_server(kind.server); }
  void operator()(const DeviceListBegins&) const { from_server(0); }
  void operator()(const ClientStatus& kind) const { from_server(kind.pid); }
  void operator()(const LimitConfirmed& kind) const {
    from_server(kind.server);
    require(kind.percentage.has_value() != kind.pinned_bytes.has_value(), "one limit a line");
  }
  void operator()(const ClientsExceeded& kind) const {
    from_server(0);
    require(is_printable(kind.text), "a text is printable");
  }
  template <typename Other>
  void operator()(const Other&) const {}

  void from_control(std::string_view text, pid_t pid = 0) const {
    require(event.role == "Control", "the daemon's events come from the daemon");
    require(is_printable(text), "a text is printable");
    require(pid >= 0, "no pid is negative");
  }
  void from_server(pid_t pid) const {
    require(!event.role.empty() && event.role != "Control", "a server's events come from a server");
    require(pid >= 0, "no pid is negative");
  }
};

LogEvent check_line(std::string_view line) {
  auto event = parse_log_line(line);
  require(is_printable(event.text) && event.text.size() < 4096, "a text is printable and bounded");
  require(event.pid >= 0, "no pid is negative");
  require(event.role.empty() == !event.time.has_value(), "a prefix is whole or not there");
  std::visit(Check{event}, event.kind);
  const bool command = event.role == "Control" && event.text.starts_with("Cmd:");
  require(command == std::holds_alternative<CommandLogged>(event.kind),
          "a command is a command, and nothing else is");
  return event;
}

// What a line means by itself stays; a number of a list is its server's.
class CheckLists {
 public:
  void take(const LogEvent& line) {
    auto taken = line;
    lists_.take(taken);
    if (std::holds_alternative<StickyListBegins>(line.kind)) count_ = 0;
    if (taken.kind == line.kind) return;
    const auto* client = std::get_if<StickyClient>(&taken.kind);
    require(client != nullptr, "a number of a list is a client");
    require(std::holds_alternative<Noise>(line.kind), "a line with a meaning keeps it");
    require(!line.role.empty() && line.role != "Control", "a server's list is a server's");
    require(client->pid >= 0 && parse_number<pid_t>(line.text) == client->pid,
            "a client of a list is the line's number");
    require(++count_ <= FaultLists::k_longest, "a list is bounded");
  }

 private:
  FaultLists lists_;
  std::size_t count_ = FaultLists::k_longest;  // none before a first line
};

}  // namespace

void log_line(const std::uint8_t* data, std::size_t size) {
  const std::string text(data, data + size);
  CheckLists lists;
  for (const auto line : split_lines(text)) lists.take(check_line(line));
  // What somebody may send as a command is never anything else, whatever it holds.
  const auto event = parse_log_line("[2026-11-20 23:22:15.182 Control  3056] Cmd:" + text);
  require(std::holds_alternative<CommandLogged>(event.kind),
          "a command's text is a command's text");
}

}  // namespace mps::fuzz
