// Why somebody is not let in: a code for programs, a sentence for people. The sentences name
// numbers, but never another namespace's doings. Pure.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <ostream>
#include <string>
#include <string_view>

namespace mps::share {

enum class Code {
  not_ready,
  draining,
  failed,
  device_out,
  share_deleted,
  no_policy,
  unidentified,
  quota_clients,
  quota_threads,
  quota_memory,
  device_clients,
  device_memory,
  device_threads,
  wrong_pod,
  wrong_domain,
  quarantined,
  unknown_opening,
  timeout,
  uid_conflict,
  too_many_waiting,
};
const char* to_string(Code code);  // "not_ready", …
inline std::ostream& operator<<(std::ostream& out, Code code) {
  return out << to_string(code);
}

struct Refusal {
  Code code{};
  std::string sentence;
  bool operator==(const Refusal&) const = default;
};

// What the ledger does not find out by itself. Names and reasons are made printable.
Refusal not_ready(std::string_view instance, std::string_view state);
Refusal draining(std::string_view instance);
Refusal failed(std::string_view instance, std::string_view why);
// `why`: of the device, "GPU-1 is out of service since …".
Refusal device_out(std::string_view instance, std::string_view why);
Refusal instance_gone(std::string_view instance);  // share_deleted
Refusal share_deleted(std::string_view share);
Refusal no_policy(std::string_view reason);
Refusal unidentified(std::string_view reason);
Refusal wrong_pod(std::string_view share, std::string_view owner, std::string_view subject);
Refusal wrong_domain(std::string_view instance, std::string_view owner, std::string_view subject);
Refusal quarantined(std::string_view who, unsigned faults, std::chrono::milliseconds left);
Refusal quarantined_by_hand(std::string_view who, std::string_view reason,
                            std::chrono::milliseconds left);
Refusal unknown_opening();
Refusal timed_out(std::string_view what, std::chrono::milliseconds waited);
Refusal too_many_waiting(std::string_view who, std::size_t waiting, std::size_t limit);
// Clients of so many containers (`of`: of that namespace) are being ended through MPS there.
Refusal too_many_endings(std::string_view instance, std::string_view of, std::size_t limit);
Refusal too_many_connections(std::string_view instance, pid_t process, std::size_t connections,
                             std::size_t limit);

// The same, once its deadline has passed: "…; waited 60s". Beyond a second in whole ones.
Refusal after_waiting(Refusal refusal, std::chrono::milliseconds waited);

}  // namespace mps::share
