#include "control/verdict.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "base/text.h"

namespace mps::control {

namespace {

constexpr std::string_view k_no_daemon = "Cannot find MPS control daemon process";
constexpr std::array<std::string_view, 2> k_turned_away{
    "Cannot send command to MPS control daemon process",
    "Cannot authenticate or connect to MPS control daemon process"};
// The kernel cuts names at 15 bytes; a server's is the same, but servers are no strangers.
constexpr std::string_view k_front_end_name = "nvidia-cuda-mps";

bool contains(std::string_view text, std::string_view words) {
  return text.find(words) != std::string_view::npos;
}

bool was_turned_away(const Evidence& evidence) {
  const int code = evidence.exit_code.value_or(-1);
  if (trim(evidence.output).empty()) return code == 0 || code == 1;
  return std::any_of(k_turned_away.begin(), k_turned_away.end(),
                     [&](auto words) { return contains(evidence.output, words); });
}

template <typename Kind>
Kind held_by(const Peer& peer) {
  if (peer.pid == 0) return Kind{};
  return Kind{peer.pid, printable(peer.name)};
}

// Mostly there is one. A client may have just come in as well; who speaks to the privileged socket
// or is a front-end by name is the likelier holder of a session.
const Peer& likeliest_session(const std::vector<Peer>& peers) {
  const auto score = [](const Peer& peer) {
    return (peer.name == k_front_end_name ? 2 : 0) + (peer.privileged ? 1 : 0);
  };
  return *std::max_element(peers.begin(), peers.end(),
                           [&](const Peer& a, const Peer& b) { return score(a) < score(b); });
}

Outcome without_end(const Evidence& evidence) {
  if (evidence.daemon == DaemonState::stopped) return Stopped{};
  // A daemon that waits for somebody unseen is not one to be replaced.
  if (!evidence.peers_known) return Blocked{};
  // The daemon takes one connection at a time, so the newest is the one that it waits for.
  if (!evidence.peers.empty()) return held_by<Blocked>(evidence.peers.back());
  return Unanswered{"no answer within " + format_duration(evidence.timeout)};
}

Outcome without_answer(const Evidence& evidence) {
  const bool cut_off = contains(evidence.output, "Unknown command \"end-of-");
  if (was_turned_away(evidence) ||
      (cut_off && (!evidence.peers_known || !evidence.peers.empty()))) {
    if (!evidence.peers_known || evidence.peers.empty()) return Busy{};
    return held_by<Busy>(likeliest_session(evidence.peers));
  }
  auto why = "the front-end " + evidence.ending;
  if (trim(evidence.output).empty()) return Unanswered{why + " and said nothing"};
  why += cut_off ? " before the last answer" : " and said no answer";
  return Unanswered{why + ": \"" + printable(trim(evidence.output)) + '"'};
}

}  // namespace

Outcome verdict(const Evidence& evidence) {
  if (evidence.start_error) return Absent{*evidence.start_error, true};
  if (evidence.answers) return Answered{*evidence.answers};
  if (evidence.flooded) return Unanswered{"the front-end printed more than is ever an answer"};
  if (contains(evidence.output, k_no_daemon)) return Absent{std::string(k_no_daemon)};
  if (evidence.daemon == DaemonState::gone) return Absent{"the control daemon has ended"};
  return evidence.timed_out ? without_end(evidence) : without_answer(evidence);
}

}  // namespace mps::control
