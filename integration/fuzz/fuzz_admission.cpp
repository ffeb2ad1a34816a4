// admission.sock between a desk and programs that each do anything: the input is a list of steps,
// two bytes each, and what is said in them. Every answer is a message within the limits, the desk
// hears of each end once, and nothing is left behind.
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "admission/hall.h"
#include "admission/protocol.h"
#include "base/text.h"
#include "base/unique_fd.h"
#include "gate/system.h"
#include "targets.h"

namespace mps::fuzz {

namespace {

using namespace mps::admission;

constexpr std::size_t k_steps = 64;
constexpr std::size_t k_programs = 16;
constexpr std::size_t k_connections = 8;

class Machine : public gate::System {
 public:
  TimePoint now() override { return clock; }
  std::string cgroup_of(pid_t) override { return cgroup; }
  int accept(int listener) override { return short_of() ? -1 : System::accept(listener); }
  int pidfd_of(int socket, const ucred& peer, bool& exact) override {
    return short_of() ? -1 : System::pidfd_of(socket, peer, exact);
  }
  ssize_t send(int socket, std::span<const char> bytes, const ucred* credentials,
               std::span<const int> descriptors) override {
    return short_of() ? -1 : System::send(socket, bytes, credentials, descriptors);
  }
  int watch(int epoll, int operation, int descriptor, unsigned events,
            unsigned long long data) override {
    if (operation == EPOLL_CTL_ADD && short_of()) return -1;
    return System::watch(epoll, operation, descriptor, events, data);
  }

  TimePoint clock{std::chrono::hours(1)};
  std::string cgroup;
  int failures = 0;  // of the next calls
  int error = 0;

 private:
  bool short_of() {
    if (failures == 0) return false;
    --failures;
    errno = error;
    return true;
  }
};

class Clerk : public Desk {
 public:
  RequestId ask(Peer peer, const Wish&, Told told) override {
    require(static_cast<bool>(peer.pidfd), "who asks is known");
    waiting_.push_back({++latest_, std::move(told)});
    return latest_;
  }
  void withdraw(RequestId request) override {
    const auto found = std::find_if(waiting_.begin(), waiting_.end(),
                                    [&](const auto& entry) { return entry.first == request; });
    require(found != waiting_.end(), "what is withdrawn waits, and once");
    waiting_.erase(found);
  }
  void connection_closed(share::SlotId slot) override {
    require(open_.erase(slot) == 1, "a connection that was let in ends once");
  }
  void standing(Peer, std::function<void(std::variant<Standing, share::Refusal>)> told) override {
    standings_.push_back(std::move(told));
  }
  void terminate_own(Peer, Scope,
                     std::function<void(std::variant<Terminated, share::Refusal>)> told) override {
    terminations_.push_back(std::move(told));
  }

  void decide(unsigned how, const std::string& text) {
    if (waiting_.empty()) return;
    const auto at = static_cast<std::ptrdiff_t>(how % waiting_.size());
    const auto told = waiting_.at(how % waiting_.size()).second;
    if (how % 3 == 0) return told(share::Waits{{share::Code::not_ready, text}});
    waiting_.erase(waiting_.begin() + at);
    if (how % 3 == 1) return told(share::Refused{{share::Code::timeout, text}});
    open_.insert(++latest_);
    told(share::LetIn{{25.0, how}, latest_, 1, false});
  }
  void answer(unsigned how, const std::string& text) {
    const share::Refusal refusal{share::Code::unidentified, text};
    if (how % 2 == 0 && !standings_.empty()) {
      const auto told = std::exchange(standings_.back(), nullptr);
      standings_.pop_back();
      return how % 4 == 0 ? told(Standing{text, text, {}, how, text}) : told(refusal);
    }
    if (terminations_.empty()) return;
    const auto told = std::exchange(terminations_.back(), nullptr);
    terminations_.pop_back();
    how % 4 == 1 ? told(Terminated{{1, 2}, {text, text}}) : told(refusal);
  }
  [[nodiscard]] bool is_idle() const { return waiting_.empty() && open_.empty(); }
  [[nodiscard]] std::size_t waiting() const { return waiting_.size(); }

 private:
  std::uint64_t latest_ = 0;
  std::vector<std::pair<RequestId, Told>> waiting_;
  std::set<share::SlotId> open_;
  std::vector<std::function<void(std::variant<Standing, share::Refusal>)>> standings_;
  std::vector<std::function<void(std::variant<Terminated, share::Refusal>)>> terminations_;
};

UniqueFd make_socket() {
  return UniqueFd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

UniqueFd listening() {
  auto made = make_socket();
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  require(::bind(made.get(), reinterpret_cast<const sockaddr*>(&address),
                 sizeof(address.sun_family)) == 0 &&
              ::listen(made.get(), 64) == 0,
          "a socket listens");
  return made;
}

UniqueFd connected(const UniqueFd& listener) {
  sockaddr_un address{};
  socklen_t size = sizeof(address);
  ::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size);
  auto made = make_socket();
  if (::connect(made.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0) return {};
  return made;
}

class Play {
 public:
  Play() {
    Limits limits;
    limits.crowd = {k_connections, 4, 7};
    hall_.emplace(machine_, clerk_, limits);
    require(hall_->start().has_value(), "a hall opens");
    listen(0);
  }

  void step(unsigned what, unsigned how, std::string_view& rest) {
    switch (what % 10) {
      case 0:
        if (programs_.size() < k_programs) programs_.push_back(connected(listeners_[how % 2]));
        break;
      case 1:
        return say(how, "ask\ndeadline=default\n");
      case 2:
        return say(how, how % 2 == 0 ? "standing\n" : "terminate-own\n");
      case 3:
        return say(how, take(rest, how));
      case 4:
        if (!programs_.empty()) programs_.erase(programs_.begin() + place(how));
        break;
      case 5:
        return clerk_.decide(how, take(rest, how % 16));
      case 6:
        return clerk_.answer(how, take(rest, how % 16));
      case 7:
        machine_.clock += std::chrono::milliseconds(how * 100);
        break;
      case 8:
        machine_.failures = static_cast<int>(how % 8);
        machine_.error = std::array{ENOMEM, EMFILE, ENOBUFS, EAGAIN, EINTR}.at(how % 5);
        break;
      default:
        machine_.cgroup = std::to_string(how % 4);
        if (how % 8 == 4) hall_->remove_listener("i", "1");
        if (how % 8 == 5) listen(1);
    }
  }

  void turn() {
    hall_->turn();
    for (auto& program : programs_) look_at(program);
    require(hall_->connections() <= k_connections, "connections are bounded");
    require(clerk_.waiting() <= k_connections, "and so is what the desk has to do");
  }

  void end() {
    hall_->close();
    require(clerk_.is_idle(), "the desk hears of each end");
    require(hall_->connections() == 0, "nobody is left");
  }

 private:
  static std::string take(std::string_view& rest, std::size_t size) {
    const auto taken = rest.substr(0, size);
    rest.remove_prefix(taken.size());
    return std::string(taken);
  }

  [[nodiscard]] std::ptrdiff_t place(unsigned how) const {
    return static_cast<std::ptrdiff_t>(how % programs_.size());
  }

  void listen(std::size_t which) {
    (void)hall_->add_listener("i", std::to_string(which),
                              UniqueFd(::dup(listeners_.at(which).get())));
  }

  void say(unsigned how, const std::string& text) {
    if (programs_.empty()) return;
    const auto& program = programs_[static_cast<std::size_t>(place(how))];
    (void)::send(program.get(), text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  }

  static void look_at(UniqueFd& program) {
    std::array<char, k_message_limit + 1> buffer{};
    while (program) {
      const auto got = ::recv(program.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
      if (got < 0 && errno == EAGAIN) return;
      if (got <= 0) return program.reset();
      const std::string_view said(buffer.data(), static_cast<std::size_t>(got));
      require(said.size() <= k_message_limit && parse(said).has_value(),
              "what is told is a message");
    }
  }

  Machine machine_;
  Clerk clerk_;
  std::optional<Hall> hall_;
  std::array<UniqueFd, 2> listeners_{listening(), listening()};
  std::vector<UniqueFd> programs_;
};

void check_text(std::string_view text) {
  const auto decoded = decode(text);
  if (const auto* question = std::get_if<Question>(&decoded)) {
    const auto again = decode(encode(*question));
    require(std::get<Question>(again) == *question, "what was decoded is encoded the same");
  }
  const auto refused = encode(share::Refusal{share::Code::failed, std::string(text)});
  const auto message = parse(refused);
  require(message && message->fields.size() == 2 && message->find("code") == "failed" &&
              !find_odd_character(refused),
          "a sentence stays one line, whatever it is");
  const auto fault = std::get_if<Fault>(&decoded);
  require(fault == nullptr || parse(encode(*fault)).has_value(), "a fault can be told");
}

}  // namespace

void admission(const std::uint8_t* data, std::size_t size) {
  const std::string text(data, data + size);
  check_text(text);
  Play play;
  std::string_view rest = text;
  for (std::size_t i = 0; i < k_steps && rest.size() >= 2; ++i) {
    const auto what = static_cast<unsigned char>(rest[0]);
    const auto how = static_cast<unsigned char>(rest[1]);
    rest.remove_prefix(2);
    play.step(what, how, rest);
    play.turn();
  }
  play.end();
}

}  // namespace mps::fuzz
