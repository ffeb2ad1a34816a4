// admission.sock of every share: docs/admission-protocol.md. Who connects, what it says, how slowly
// and how often costs others nothing; see hall.h for the bounds.
//
// Threading: the executor given, which is the desk's; that one is never called from within start(),
// add_listener() or a callback of its own, except by withdraw() and connection_closed().
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <cstddef>
#include <memory>
#include <string>

#include "admission/hall.h"

namespace mps::admission {

class AdmissionServer {
 public:
  AdmissionServer(const boost::asio::any_io_executor& executor, Desk& desk, Limits limits = {});
  ~AdmissionServer();  // the desk hears nothing of it
  AdmissionServer(const AdmissionServer&) = delete;
  AdmissionServer& operator=(const AdmissionServer&) = delete;

  [[nodiscard]] Result<void> start();
  // A listening SOCK_SEQPACKET socket, non-blocking. Others may hold it too.
  [[nodiscard]] Result<void> add_listener(const std::string& instance, const std::string& share,
                                          UniqueFd socket, ServedDevice device = {});
  void set_device(const std::string& instance, const ServedDevice& device);
  // Its connections are told, and end; the desk hears of each.
  void remove_listener(const std::string& instance, const std::string& share);
  // The same for all; then nothing calls the desk any more.
  void stop();

  [[nodiscard]] std::size_t connections() const;
  [[nodiscard]] const Counts& counts() const;

 private:
  struct Core;
  std::shared_ptr<Core> core_;
};

}  // namespace mps::admission
