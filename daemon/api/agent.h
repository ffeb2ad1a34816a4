// What the HTTP API needs of the supervisor: an interface, so that the API is tested against a fake
// and knows no actor. Threading: the API's executor, which is the supervisor's.
#pragma once

#include <sys/types.h>

#include <boost/asio/awaitable.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "api/admissions.h"
#include "api/audit.h"
#include "api/faults.h"
#include "api/shares.h"
#include "base/result.h"
#include "device/device.h"
#include "instance/snapshot.h"
#include "policy/generation.h"

namespace mps::api {

// Why a verb was not carried out; becomes an HTTP status.
struct VerbError {
  enum class Kind { not_found, conflict, unanswered, failed } kind = Kind::failed;
  std::string message;
};

struct AgentStatus {
  std::string version;
  pid_t pid = 0;
  std::chrono::system_clock::time_point started_at;
  bool ready = false;             // every device that can be used has an instance that serves
  std::string not_ready_because;  // empty when ready
  std::string run_directory;
  std::string state_directory;
};

struct PolicyStatus {
  std::shared_ptr<const policy::Generation> generation;  // never null
  std::chrono::system_clock::time_point changed_at;      // when this generation came into force
  std::string directory;
  std::string error;  // why the directory could not be read; the generation is then an older one
};

class Agent {
 public:
  virtual ~Agent() = default;
  [[nodiscard]] virtual AgentStatus status() const = 0;
  [[nodiscard]] virtual device::Inventory inventory() const = 0;
  [[nodiscard]] virtual std::vector<instance::Snapshot> instances() const = 0;

  [[nodiscard]] virtual PolicyStatus policies() const = 0;
  [[nodiscard]] virtual AdmissionStatus admissions() const = 0;
  [[nodiscard]] virtual AuditStatus audit() const = 0;
  // The devices that MPS can run on, as policies see them.
  [[nodiscard]] virtual std::vector<policy::DeviceFacts> device_facts() const = 0;

  // Verbs on one instance; each returns when it was accepted (what follows are events), with the
  // sentence to show, or says why not.
  using VerbResult = boost::system::result<std::string, VerbError>;
  virtual VerbResult drain(const std::string& instance) = 0;
  virtual VerbResult undrain(const std::string& instance) = 0;
  // Refused while clients run unless `force`.
  virtual VerbResult restart(const std::string& instance, bool force) = 0;
  // Ends a client through MPS, and tells what came of it: always, and not from within the call.
  using VerbTold = std::function<void(const VerbResult& result)>;
  virtual void terminate(pid_t client, VerbTold told) = 0;

  // The open share of each instance, and those made on demand.
  [[nodiscard]] virtual std::vector<ShareView> shares() const = 0;
  using ShareResult = boost::system::result<ShareView, VerbError>;
  virtual ShareResult create_share(const ShareOrder& order) = 0;
  // Refused while it has clients unless `drain`: then it ends with the last of them.
  virtual VerbResult delete_share(const std::string& id, bool drain) = 0;

  // Null: there is none.
  [[nodiscard]] virtual FaultDesk* faults() const { return nullptr; }
};

[[noreturn]] inline void throw_exception_from_error(const VerbError& error,
                                                    const boost::source_location&) {
  throw std::runtime_error(error.message);
}

}  // namespace mps::api
