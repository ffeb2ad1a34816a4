#include "instance/termination.h"

#include <algorithm>
#include <utility>

#include "base/text.h"

namespace mps::instance {

namespace {

constexpr std::size_t k_servers = 8;  // MPS has one that serves, and perhaps one that ends

std::string held_by(const std::optional<pid_t>& holder, const std::string& name) {
  if (!holder) return "a process that cannot be seen from here";
  return "pid " + std::to_string(*holder) + (name.empty() ? "" : " (" + printable(name, 64) + ")");
}

std::string why_not(const control::Outcome& outcome) {
  if (const auto* busy = std::get_if<control::Busy>(&outcome)) {
    return "the one command session is held by " + held_by(busy->holder, busy->holder_name);
  }
  if (const auto* blocked = std::get_if<control::Blocked>(&outcome)) {
    return "the control daemon waits for a connection that says nothing, of " +
           held_by(blocked->holder, blocked->holder_name);
  }
  if (const auto* silent = std::get_if<control::Unanswered>(&outcome)) return silent->why;
  if (const auto* absent = std::get_if<control::Absent>(&outcome)) return absent->why;
  if (std::holds_alternative<control::Stopped>(outcome)) return "the control daemon is stopped";
  return "the answers do not match the questions";
}

// "0", or why it is not that: MPS's own words, or a CUDA error's number.
std::string trouble(const control::Answer& answer) {
  if (const auto* refusal = std::get_if<control::Refusal>(&answer)) {
    return "MPS says \"" + printable(refusal->words, 200) + "\"";
  }
  const auto& lines = std::get<control::Reply>(answer).lines;
  const auto first = lines.empty() ? std::string_view() : trim(lines.front());
  if (first == "0" && lines.size() == 1) return {};
  if (const auto code = parse_number<int>(first); code && lines.size() == 1) {
    return "MPS says CUDA error " + std::to_string(*code);
  }
  return "MPS says " + (first.empty() ? "nothing" : "\"" + printable(first, 200) + "\"");
}

}  // namespace

const char* to_string(Termination::Kind kind) {
  switch (kind) {
    case Termination::Kind::terminated:
      return "terminated";
    case Termination::Kind::gone:
      return "gone";
    case Termination::Kind::no_client:
      return "noClient";
    case Termination::Kind::refused:
      return "refused";
    case Termination::Kind::unanswered:
      break;
  }
  return "unanswered";
}

std::optional<std::string> TerminationPlaces::take(Behalf behalf) {
  const auto limit = behalf == Behalf::fault ? k_of_faults : k_of_others;
  if (taken(behalf) >= limit) {
    return std::to_string(limit) + " such requests are under way already";
  }
  ++taken(behalf);
  return std::nullopt;
}

Terminator::Terminator(const std::vector<ClientProcess>& clients, Lives lives)
    : lives_(std::move(lives)), clients_(clients.size()) {
  results_.reserve(clients.size());
  for (const auto& client : clients) results_.push_back({client, Termination::Kind::unanswered});
  settle_ended();
}

// ---- what to ask ----

std::vector<std::size_t> Terminator::next_to_end() const {
  std::vector<std::size_t> next;
  for (const auto progress : {Progress::open, Progress::alone}) {
    const auto most = progress == Progress::open ? k_at_a_time : 1;
    for (std::size_t i = 0; i < clients_.size() && next.size() < most; ++i) {
      if (clients_[i].progress == progress && lives(i)) next.push_back(i);
    }
    if (!next.empty()) break;
  }
  return next;
}

std::size_t Terminator::ends() const {
  if (stage_ != Stage::ending) return 0;
  const auto open = std::count_if(clients_.begin(), clients_.end(), [](const Client& client) {
    return client.progress == Progress::open;
  });
  return std::clamp(static_cast<std::size_t>(open), std::size_t{1}, k_at_a_time);
}

std::vector<control::Command> Terminator::batch() {
  std::vector<control::Command> batch;
  asked_for_.clear();
  if (stage_ == Stage::servers) batch = {control::get_server_list()};
  if (stage_ == Stage::clients || stage_ == Stage::listing) {
    for (const auto server : servers_) batch.push_back(control::get_client_list(server));
  }
  if (stage_ == Stage::ending) asked_for_ = next_to_end();
  for (const auto i : asked_for_) {
    batch.push_back(control::terminate_client(clients_[i].server, results_[i].process.pid));
  }
  asked_ = batch.size();
  return batch;
}

void Terminator::take(const control::Outcome& outcome) {
  if (done()) return;
  const auto* answered = std::get_if<control::Answered>(&outcome);
  if (answered == nullptr || answered->answers.size() != asked_)
    return not_answered(why_not(outcome));
  const auto& answers = answered->answers;
  switch (stage_) {
    case Stage::servers:
      return see_servers(answers.front());
    case Stage::clients:
      return see_clients(answers);
    case Stage::ending:
      return see_ending(answers);
    case Stage::listing:
      return see_listing(answers);
    case Stage::done:
      break;
  }
}

// ---- who has it ----

void Terminator::see_servers(const control::Answer& answer) {
  auto servers = control::read_pids(answer);
  if (!servers) return give_up("its list of servers makes no sense");
  if (servers->size() > k_servers) servers->resize(k_servers);
  servers_ = std::move(*servers);
  settle_ended();
  if (done()) return;
  if (!servers_.empty()) {
    stage_ = Stage::clients;
    return;
  }
  for (std::size_t i = 0; i < clients_.size(); ++i) settle(i, Termination::Kind::no_client);
  finish_if_settled();
}

std::optional<std::vector<pid_t>> Terminator::listed(const std::vector<control::Answer>& answers,
                                                     pid_t server) const {
  const auto place = std::find(servers_.begin(), servers_.end(), server);
  if (place == servers_.end()) return std::nullopt;
  const auto& answer = answers[static_cast<std::size_t>(place - servers_.begin())];
  // It has gone, and its clients with it.
  if (std::holds_alternative<control::Refusal>(answer)) return std::vector<pid_t>{};
  return control::read_pids(answer);
}

void Terminator::see_clients(const std::vector<control::Answer>& answers) {
  for (const auto server : servers_) {
    const auto pids = listed(answers, server);
    if (!pids) return give_up("its list of clients makes no sense");
    for (std::size_t i = 0; i < clients_.size(); ++i) {
      const auto pid = results_[i].process.pid;
      if (std::find(pids->begin(), pids->end(), pid) != pids->end()) clients_[i].server = server;
    }
  }
  settle_ended();
  for (std::size_t i = 0; i < clients_.size(); ++i) {
    if (clients_[i].server == 0) settle(i, Termination::Kind::no_client);
  }
  go_on();
}

// ---- ending ----

// Who has ended before its turn came is settled on the way; an empty batch ends nobody.
void Terminator::go_on() {
  settle_ended();
  if (done()) return;
  const bool more = std::any_of(clients_.begin(), clients_.end(), [](const Client& client) {
    return client.progress == Progress::open || client.progress == Progress::alone;
  });
  stage_ = more ? Stage::ending : Stage::listing;
}

void Terminator::see_ending(const std::vector<control::Answer>& answers) {
  for (std::size_t at = 0; at < asked_for_.size(); ++at) {
    const auto i = asked_for_[at];
    auto why = trouble(answers[at]);
    if (why.empty()) {
      settle(i, Termination::Kind::terminated);
    } else if (!lives(i)) {
      settle(i, Termination::Kind::gone);
    } else {
      settle(i, Termination::Kind::refused, std::move(why));
    }
  }
  go_on();
}

// ---- looking what became of those whose end was not answered ----

void Terminator::see_listing(const std::vector<control::Answer>& answers) {
  for (std::size_t i = 0; i < clients_.size(); ++i) {
    const auto pids = listed(answers, clients_[i].server);
    const bool there =
        !pids || std::find(pids->begin(), pids->end(), results_[i].process.pid) != pids->end();
    if (!there) settle(i, Termination::Kind::terminated);
  }
  look_once_more({});
}

void Terminator::look_once_more(const std::string& why) {
  settle_ended();
  if (!done() && ++looks_ >= k_looks) give_up(why);
}

// ---- no answer, and the end ----

void Terminator::not_answered(const std::string& why) {
  if (stage_ == Stage::servers || stage_ == Stage::clients) return give_up(why);
  if (stage_ == Stage::listing) return look_once_more(why);
  for (const auto i : asked_for_) {
    clients_[i].progress = asked_for_.size() > 1 ? Progress::alone : Progress::doubtful;
    results_[i].why = why;
  }
  go_on();
}

void Terminator::give_up(const std::string& why) {
  settle_ended();
  for (std::size_t i = 0; i < clients_.size(); ++i) {
    if (clients_[i].progress == Progress::settled) continue;
    if (results_[i].why.empty()) results_[i].why = why;
    settle(i, Termination::Kind::unanswered, std::move(results_[i].why));
  }
  stage_ = Stage::done;
}

void Terminator::settle(std::size_t index, Termination::Kind kind, std::string why) {
  if (clients_[index].progress == Progress::settled) return;
  clients_[index].progress = Progress::settled;
  results_[index].kind = kind;
  results_[index].why = std::move(why);
}

void Terminator::settle_ended() {
  for (std::size_t i = 0; i < clients_.size(); ++i) {
    if (clients_[i].progress == Progress::settled || lives(i)) continue;
    const bool ours = clients_[i].progress != Progress::open;
    settle(i, ours ? Termination::Kind::terminated : Termination::Kind::gone);
  }
  finish_if_settled();
}

void Terminator::finish_if_settled() {
  const bool settled = std::all_of(clients_.begin(), clients_.end(), [](const Client& client) {
    return client.progress == Progress::settled;
  });
  if (settled) stage_ = Stage::done;
}

}  // namespace mps::instance
