#include <utility>

#include "device/known_devices.h"
#include "device/nvml_processes.h"
#include "device/nvml_scan.h"
#include "device/nvml_worker.h"
#include "device/source.h"

namespace mps::device {

namespace {

namespace asio = boost::asio;

// What a call in progress needs, whatever becomes of the source meanwhile.
struct State {
  State(const asio::any_io_executor& executor, NvmlSettings given)
      : settings(std::move(given)),
        worker(std::make_shared<NvmlWorker>(executor)),
        no_answer("NVML did not answer within " + format_duration(settings.timeout)) {}

  NvmlSettings settings;
  std::shared_ptr<NvmlWorker> worker;
  std::string no_answer;
  KnownDevices known;
};

asio::awaitable<Inventory> list_devices(std::shared_ptr<State> state) {
  std::function<Result<nvml::Scan>(nvml::Library&)> work =
      [name = state->settings.library](nvml::Library& library) {
        return nvml::scan(library, name);
      };
  // Named, here and below: gcc 12 miscompiles temporaries in a co_await expression.
  Error no_answer{state->no_answer};
  const auto scan = co_await call_nvml<nvml::Scan>(state->worker, state->settings.timeout,
                                                   std::move(work), std::move(no_answer));
  if (scan) co_return state->known.update(*scan);
  if (scan.error().message == state->no_answer) {
    co_return state->known.unanswered(state->no_answer);
  }
  co_return state->known.failed(scan.error().message);
}

asio::awaitable<Result<void>> change_compute_mode(std::shared_ptr<State> state, std::string uuid,
                                                  ComputeMode mode) {
  std::function<Result<void>(nvml::Library&)> work = [name = state->settings.library, uuid,
                                                      mode](nvml::Library& library) {
    return nvml::set_compute_mode(library, name, uuid, mode);
  };
  Error no_answer{state->no_answer};
  const auto done = co_await call_nvml<void>(state->worker, state->settings.timeout,
                                             std::move(work), std::move(no_answer));
  if (done) co_return Result<void>{};
  co_return done.error().in("setting the compute mode to " + std::string(to_string(mode)));
}

asio::awaitable<Result<std::vector<DeviceProcesses>>> list_processes(
    std::shared_ptr<State> state, std::vector<std::string> uuids) {
  using Answer = std::vector<DeviceProcesses>;
  std::function<Result<Answer>(nvml::Library&)> work =
      [name = state->settings.library, uuids = std::move(uuids)](nvml::Library& library) {
        return nvml::processes(library, name, uuids);
      };
  Error no_answer{state->no_answer};
  co_return co_await call_nvml<Answer>(state->worker, state->settings.timeout, std::move(work),
                                       std::move(no_answer));
}

class NvmlSource : public Source {
 public:
  NvmlSource(const asio::any_io_executor& executor, NvmlSettings settings)
      : state_(std::make_shared<State>(executor, std::move(settings))) {}
  ~NvmlSource() override { state_->worker->close(); }
  NvmlSource(const NvmlSource&) = delete;
  NvmlSource& operator=(const NvmlSource&) = delete;

  asio::awaitable<Inventory> list() override { return list_devices(state_); }
  asio::awaitable<Result<void>> set_compute_mode(std::string uuid, ComputeMode mode) override {
    return change_compute_mode(state_, std::move(uuid), mode);
  }
  asio::awaitable<Result<std::vector<DeviceProcesses>>> processes(
      std::vector<std::string> uuids) override {
    return list_processes(state_, std::move(uuids));
  }

 private:
  std::shared_ptr<State> state_;
};

}  // namespace

std::unique_ptr<Source> make_nvml_source(const asio::any_io_executor& executor,
                                         NvmlSettings settings) {
  return std::make_unique<NvmlSource>(executor, std::move(settings));
}

}  // namespace mps::device
