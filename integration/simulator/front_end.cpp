#include "front_end.h"

#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>

#include "wire.h"

namespace mps::sim {
namespace {

constexpr std::size_t k_longest_line = 4096;
constexpr std::size_t k_longest_answer = 4 + 4096;  // what is longer is cut

enum class Outcome { k_either, k_error, k_empty };

Outcome wanted_outcome(const Steering& steering) {
  const std::string text = steering.text("busy_outcome");
  if (text == "error") return Outcome::k_error;
  return text == "empty" ? Outcome::k_empty : Outcome::k_either;
}

bool by_chance() {
  return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::microseconds(1) % 2 ==
         0;
}

// Only one of the two threads may end the program.
[[noreturn]] void leave(int status) {
  static std::mutex once;
  once.lock();
  (void)std::fflush(stdout);
  ::_exit(status);
}

[[noreturn]] void leave_unsent() {
  (void)std::fputs("Cannot send command to MPS control daemon process\n", stderr);
  leave(1);
}

void take_answers(int socket, Outcome wanted) {
  while (true) {
    auto message = receive(socket, k_longest_answer);
    // The daemon may close over what it has not read; what it said before comes behind that error.
    if (!message && errno == ECONNRESET) message = receive(socket, k_longest_answer);
    if (!message || message->bytes.size() < 4) break;
    std::int32_t kind = 0;
    message->bytes.copy(reinterpret_cast<char*>(&kind), sizeof kind);
    const std::string rest = message->bytes.substr(4);
    if (kind != 0) {
      std::int32_t status = 1;
      rest.copy(reinterpret_cast<char*>(&status), sizeof status);
      leave(status);
    }
    (void)std::puts(rest.c_str());
  }
  if (wanted == Outcome::k_error || (wanted == Outcome::k_either && by_chance())) leave_unsent();
  leave(0);
}

bool send_line(int socket, const std::string& line) {
  const std::string text = line + '\0';
  return send_value(socket, std::uint64_t{text.size()}) && send_bytes(socket, text);
}

void send_commands(int socket) {
  std::array<char, k_longest_line> line{};
  bool sent = true;
  while (sent && std::fgets(line.data(), static_cast<int>(line.size()), stdin) != nullptr) {
    sent = send_line(socket, line.data());
  }
  if (sent) (void)send_value(socket, std::uint64_t{0});
}

}  // namespace

int run_front_end(const Steering& steering) {
  UniqueFd socket = connect_to(pipe_directory() + "/control_privileged");
  if (!socket) socket = connect_to(pipe_directory() + "/control");
  if (!socket) {
    (void)std::fputs("Cannot find MPS control daemon process\n", stderr);
    return 1;
  }
  const auto greeting = receive(socket.get(), k_greeting.size());
  if (!greeting || greeting->bytes != k_greeting || !send_as_self(socket.get(), k_credentials) ||
      !send_value(socket.get(), Peer::k_front_end)) {
    (void)std::fputs("Cannot authenticate or connect to MPS control daemon process\n", stderr);
    return 1;
  }
  const Outcome wanted = wanted_outcome(steering);
  std::thread receiver(take_answers, socket.get(), wanted);
  send_commands(socket.get());
  receiver.join();  // it ends the program
  return 0;
}

}  // namespace mps::sim
