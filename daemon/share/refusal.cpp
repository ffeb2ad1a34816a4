#include "share/refusal.h"

#include <array>
#include <utility>

#include "base/text.h"

namespace mps::share {

namespace {

// A reason has a cgroup's path in it, and says at its end what is wrong with that.
constexpr std::size_t k_reason_limit = 1024;

using std::chrono::milliseconds;
using std::chrono::seconds;

std::string whole_seconds(milliseconds value) {
  if (value < milliseconds{0}) value = milliseconds{0};
  return format_duration(value < seconds{1} ? value : std::chrono::duration_cast<seconds>(value));
}

std::string of_limit(std::size_t count, std::size_t limit) {
  return std::to_string(count) + " of " + std::to_string(limit);
}

}  // namespace

const char* to_string(Code code) {
  static constexpr std::array k_names = {
      "not_ready",      "draining",        "failed",         "device_out",    "share_deleted",
      "no_policy",      "unidentified",    "quota_clients",  "quota_threads", "quota_memory",
      "device_clients", "device_memory",   "device_threads", "wrong_pod",     "wrong_domain",
      "quarantined",    "unknown_opening", "timeout",        "uid_conflict",  "too_many_waiting"};
  return k_names.at(static_cast<std::size_t>(code));
}

Refusal not_ready(std::string_view instance, std::string_view state) {
  return {Code::not_ready, printable(instance) + " is not ready: it is " + printable(state)};
}

Refusal draining(std::string_view instance) {
  return {Code::draining, printable(instance) + " takes no new clients: it is draining"};
}

Refusal failed(std::string_view instance, std::string_view why) {
  return {Code::failed, printable(instance) + " has failed: " + printable(why, k_reason_limit)};
}

Refusal device_out(std::string_view instance, std::string_view why) {
  return {Code::device_out,
          printable(instance) + " takes no new clients: " + printable(why, k_reason_limit)};
}

Refusal instance_gone(std::string_view instance) {
  return {Code::share_deleted, printable(instance) + " is there no longer"};
}

Refusal share_deleted(std::string_view share) {
  return {Code::share_deleted, "share " + printable(share) + " was deleted"};
}

Refusal no_policy(std::string_view reason) {
  return {Code::no_policy, printable(reason, k_reason_limit)};
}

Refusal unidentified(std::string_view reason) {
  return {Code::unidentified,
          "nobody can tell whose process this is: " + printable(reason, k_reason_limit)};
}

Refusal wrong_pod(std::string_view share, std::string_view owner, std::string_view subject) {
  return {Code::wrong_pod, "share " + printable(share) + " is for " + printable(owner) +
                               ", and this process is of " + printable(subject)};
}

Refusal wrong_domain(std::string_view instance, std::string_view owner, std::string_view subject) {
  return {Code::wrong_domain, printable(instance) + " is for " + printable(owner) +
                                  " alone, and this process is of " + printable(subject)};
}

Refusal quarantined(std::string_view who, unsigned faults, milliseconds left) {
  return {Code::quarantined, printable(who) + " is kept out for another " + whole_seconds(left) +
                                 ", after " + std::to_string(faults) +
                                 (faults == 1 ? " fault" : " faults")};
}

Refusal quarantined_by_hand(std::string_view who, std::string_view reason, milliseconds left) {
  return {Code::quarantined, printable(who) + " is kept out for another " + whole_seconds(left) +
                                 " by an operator: " + printable(reason, k_reason_limit)};
}

Refusal unknown_opening() {
  return {Code::unknown_opening, "this is not how a CUDA program of this node's driver begins"};
}

Refusal timed_out(std::string_view what, milliseconds waited) {
  return {Code::timeout, printable(what) + " took longer than " + whole_seconds(waited)};
}

Refusal too_many_waiting(std::string_view who, std::size_t waiting, std::size_t limit) {
  return {Code::too_many_waiting,
          printable(who) + " has " + of_limit(waiting, limit) + " requests waiting"};
}

Refusal too_many_endings(std::string_view instance, std::string_view of, std::size_t limit) {
  return {Code::too_many_waiting, "clients of " + std::to_string(limit) + " containers" +
                                      (of.empty() ? "" : " of " + printable(of)) +
                                      " are being terminated on " + printable(instance) +
                                      ", no more at a time"};
}

Refusal too_many_connections(std::string_view instance, pid_t process, std::size_t connections,
                             std::size_t limit) {
  return {Code::device_clients, "process " + std::to_string(process) + " has " +
                                    of_limit(connections, limit) + " connections to " +
                                    printable(instance)};
}

Refusal after_waiting(Refusal refusal, milliseconds waited) {
  refusal.sentence += "; waited " + whole_seconds(waited);
  return refusal;
}

}  // namespace mps::share
