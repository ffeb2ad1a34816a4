#include "admission/server.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>

#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <chrono>
#include <exception>
#include <optional>
#include <utility>

namespace mps::admission {

namespace asio = boost::asio;
using boost::system::error_code;

namespace {
constexpr std::chrono::milliseconds k_pause{100};  // after a turn that failed
}

struct AdmissionServer::Core : std::enable_shared_from_this<Core> {
  Core(const asio::any_io_executor& executor, Desk& desk, Limits limits)
      : ready(executor), pause(executor), hall(std::in_place, system, desk, limits) {}

  void wait();
  void turn();
  void close();

  asio::posix::stream_descriptor ready;
  asio::steady_timer pause;
  gate::System system;
  std::optional<Hall> hall;  // none: closed
};

void AdmissionServer::Core::wait() {
  ready.async_wait(asio::posix::stream_descriptor::wait_read,
                   [self = shared_from_this()](const error_code& error) {
                     if (!error && self->hall) self->turn();
                   });
}

void AdmissionServer::Core::turn() {
  try {
    hall->turn();
    wait();
  } catch (const std::exception& failure) {  // no memory: the next turn goes on
    spdlog::error("admission: {}", failure.what());
    pause.expires_after(k_pause);
    pause.async_wait([self = shared_from_this()](const error_code& error) {
      if (!error && self->hall) self->wait();
    });
  }
}

void AdmissionServer::Core::close() {
  error_code ignored;
  ready.close(ignored);
  pause.cancel();
  hall.reset();
}

AdmissionServer::AdmissionServer(const asio::any_io_executor& executor, Desk& desk, Limits limits)
    : core_(std::make_shared<Core>(executor, desk, limits)) {}

AdmissionServer::~AdmissionServer() {
  core_->close();
}

Result<void> AdmissionServer::start() {
  if (auto started = core_->hall->start(); !started) return started;
  const int watched = ::fcntl(core_->hall->descriptor(), F_DUPFD_CLOEXEC, 0);
  if (watched < 0) return Error::from_errno("fcntl", errno);
  core_->ready.assign(watched);
  core_->wait();
  return {};
}

Result<void> AdmissionServer::add_listener(const std::string& instance, const std::string& share,
                                           UniqueFd socket, ServedDevice device) {
  if (!core_->hall) return Error{"the admission server was stopped"};
  return core_->hall->add_listener(instance, share, std::move(socket), std::move(device));
}

void AdmissionServer::set_device(const std::string& instance, const ServedDevice& device) {
  if (core_->hall) core_->hall->set_device(instance, device);
}

void AdmissionServer::remove_listener(const std::string& instance, const std::string& share) {
  if (core_->hall) core_->hall->remove_listener(instance, share);
}

void AdmissionServer::stop() {
  if (core_->hall) core_->hall->close();
  core_->close();
}

std::size_t AdmissionServer::connections() const {
  return core_->hall ? core_->hall->connections() : 0;
}

const Counts& AdmissionServer::counts() const {
  static const Counts k_none;
  return core_->hall ? core_->hall->counts() : k_none;
}

}  // namespace mps::admission
