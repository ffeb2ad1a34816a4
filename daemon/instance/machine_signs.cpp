// Signs: of a client's fault, each of which is enough by itself (a line of the log may be lost, or
// spoilt), and of an end that somebody asked for.
//
// A client that is INACTIVE is no sign: so is one that was terminated. The lines stand together in
// the log and before its "Creating server context", so a sign that comes while the server is known
// to be in fault is of the same one.
//
// An end is orderly, and no incident, where
//   * we have the daemon or its server end;
//   * somebody has told them to (`quit`, `shutdown_server`, which the log has) within the last
//     10 s, or at any time before, and no client was connected;
//   * 550 says that it has the server end, and not that it stays after all;
//   * a client of another uid waits for a server of its own, and no client was connected.
// Its status says nothing: a server that was killed has 0 in the log, too.
#include <algorithm>
#include <utility>

#include "base/text.h"
#include "instance/machine.h"

namespace mps::instance {

namespace {
constexpr Milliseconds k_suspicions{1000};  // one that is looked into, within so long
constexpr unsigned k_looks = 3;
constexpr Milliseconds k_look_after{100};  // then 200
}  // namespace

// ---- of a fault ----

bool Machine::concerns(const control::LogEvent& line) const {
  using namespace control;
  const auto& kind = line.kind;
  const bool of_fault =
      std::holds_alternative<FatalFault>(kind) || std::holds_alternative<FaultCulprit>(kind) ||
      std::holds_alternative<StickyListBegins>(kind) ||
      std::holds_alternative<StickyClient>(kind) || std::holds_alternative<ClientStatus>(kind) ||
      std::holds_alternative<ContextCreated>(kind);
  return !of_fault || !is_others(line.pid);
}

void Machine::on_log(const control::FaultCulprit&) {
  if (!in_fault() && !is_others(line_writer_)) fault_noticed(line_writer_, "culprit");
}

void Machine::on_log(const control::StickyListBegins& list) {
  if (!in_fault() && !is_others(list.server)) fault_noticed(list.server, "sticky_clients");
}

void Machine::on_log(const control::StickyClient&) {
  if (!in_fault() && !is_others(line_writer_)) fault_noticed(line_writer_, "sticky_clients");
}

void Machine::fault_noticed(pid_t server, const char* sign) {
  // The line that told of its start was lost, or read by an earlier supervisor. Whether it is one
  // of this daemon's is seen when it is watched, or when the daemon is taken up.
  if (!server_ && server > 0) {
    server_ = Server{server, std::nullopt, ServerStatus::fault, "", 0};
    if (daemon_ != 0) act(WatchServer{server});
  }
  if (server_) server_->status = ServerStatus::fault;
  answers_are_old_ = batch_running_;
  looks_left_ = 0;
  if (state_ == State::ready) enter(State::faulted);
  last_error_ = "a client's fault: the server refuses newcomers until its clients have gone";
  emit("fault", last_error_, {{"server", std::to_string(server)}, {"sign", sign}});
  if (serving()) begin_fault_recovery();
}

void Machine::handle(const FaultSuspected&) {
  const bool can_be_asked = capabilities_ && capabilities_->server_status && server_ &&
                            server_->status == ServerStatus::active;
  if (state_ != State::ready || ending_ != Ending::none || !can_be_asked) return;
  if (suspected_at_ && now_ - *suspected_at_ < k_suspicions) return;
  suspected_at_ = now_;
  looks_left_ = k_looks;
  look_for_fault();
}

// Also behind each probe, until there have been enough.
void Machine::look_for_fault() {
  if (looks_left_ == 0 || state_ != State::ready) return;
  const auto look = k_looks - looks_left_;
  if (batch_running_) return;  // behind it
  --looks_left_;
  probe_in(k_look_after * look);
}

// ---- of an end ----

void Machine::on_log(const control::CommandLogged& command) {
  const auto& text = command.text;
  const auto word = text.substr(0, text.find(' '));
  if (word != "quit" && word != "shutdown_server") return;
  pid_t server = 0;
  if (word == "shutdown_server") {
    const auto rest = trim(std::string_view(text).substr(word.size()));
    server = parse_number<pid_t>(rest.substr(0, rest.find(' '))).value_or(0);
    // Of another one it comes to nothing, and excuses no end of ours.
    if (server <= 0 || (server_ && server_->pid != server)) return;
  }
  end_asked_ = EndAsked{"as the command " + word + " asked", now_, server, word == "quit"};
}

void Machine::on_log(const control::CommandRefused&) {
  end_asked_.reset();
}

void Machine::on_log(const control::ServerToEnd& ending) {
  // That may be what a command comes to.
  const bool told = end_asked_ && now_ - end_asked_->at <= k_asked_just_now;
  auto how = told ? end_asked_->how : "as its control daemon asked";
  end_asked_ = EndAsked{std::move(how), now_, ending.pid, told && end_asked_->quit};
}

void Machine::on_log(const control::ServerStays& staying) {
  if (end_asked_ && end_asked_->server == staying.pid) end_asked_.reset();
}

// Empty: nobody knows.
std::string Machine::why_it_ends(pid_t server) const {
  if (ending_ != Ending::none) return "with its control daemon, which we end";
  if (fault_rung_ == FaultRung::shutdown) return "to end a fault";
  const bool asked = end_asked_ && (end_asked_->server == 0 || end_asked_->server == server) &&
                     (now_ - end_asked_->at <= k_asked_just_now || !anybody_connected());
  if (asked) return end_asked_->how;
  if (other_uid_waits_ && !anybody_connected()) return "to make room for a client of another uid";
  return "";
}

}  // namespace mps::instance
