// Where every request to use a GPU is decided, whoever brings it: the gate, or admission.sock. Who
// is asking is found out here, from its credentials and its pidfd, never from what it says.
//
// Threading: the executor of the supervisor. Nothing is called back from within a call.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/unique_fd.h"
#include "share/ledger.h"

namespace mps::admission {

using RequestId = share::RequestId;  // never used twice

// A process at a share's socket.
struct Peer {
  std::string instance;  // "gpu0.shared"
  std::string share;     // "open", or the id of one that was made on demand
  pid_t pid = 0;
  uid_t uid = 0;
  gid_t gid = 0;
  UniqueFd pidfd{};  // opened before the peer was answered anything
};

// At last LetIn or Refused, once; Waits before that, perhaps several times.
using Verdict = std::variant<share::LetIn, share::Refused, share::Waits>;
using Told = std::function<void(const Verdict&)>;

struct Wish {
  bool may_wait = true;
  std::optional<std::chrono::milliseconds> wait{};  // none: as the settings say (admission.wait)
};

// What a container has on a share.
struct Standing {
  std::string subject;    // its namespace
  std::string container;  // for people: "pod web-0, container cuda"
  share::Grant grant;     // of a client that would come now
  std::size_t clients = 0;
  std::string instance_state;
  share::Prospect
      next{};  // what one more client of it would come to, that may wait as settings say
};

// Whose clients a process may have ended.
enum class Scope {
  container,    // its container's
  descendants,  // of these its own and its descendants': who shares a cgroup has neighbours there
};

struct Terminated {
  std::vector<pid_t> asked;  // MPS was told to end these
  std::vector<std::string> failed;
};

class Desk {
 public:
  virtual ~Desk() = default;

  // A process that is let in has a client slot until it ends, and one more connection that counts
  // until connection_closed(). One that has a slot on the share gets the same again.
  virtual RequestId ask(Peer peer, const Wish& wish, Told told) = 0;
  // Not interested any more: `told` is not called again. Had it been let in meanwhile, its
  // connection is closed with that.
  virtual void withdraw(RequestId request) = 0;
  virtual void connection_closed(share::SlotId slot) = 0;

  virtual void standing(Peer peer,
                        std::function<void(std::variant<Standing, share::Refusal>)> told) = 0;
  // The clients of the peer's own container on that share, through MPS; nobody else's.
  virtual void terminate_own(
      Peer peer, Scope scope,
      std::function<void(std::variant<Terminated, share::Refusal>)> told) = 0;
};

}  // namespace mps::admission
