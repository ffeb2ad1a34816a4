#include <algorithm>
#include <memory>
#include <utility>

#include "device/source.h"

namespace mps::device {

namespace {

namespace asio = boost::asio;

asio::awaitable<Inventory> list_declared(std::vector<Device> devices) {
  co_return Inventory{std::move(devices), {}, {}};
}

asio::awaitable<Result<void>> refuse(std::string reason) {
  co_return Error{std::move(reason)};
}

asio::awaitable<Result<std::vector<DeviceProcesses>>> no_processes() {
  co_return Error{"devices are declared in the settings: who uses them is not known without NVML"};
}

class DeclaredSource : public Source {
 public:
  explicit DeclaredSource(std::vector<Device> devices) : devices_(std::move(devices)) {}

  asio::awaitable<Inventory> list() override { return list_declared(devices_); }
  asio::awaitable<Result<void>> set_compute_mode(std::string uuid, ComputeMode) override {
    return refuse(std::move(uuid) +
                  ": declared in the settings: its compute mode cannot be set without NVML");
  }
  asio::awaitable<Result<std::vector<DeviceProcesses>>> processes(
      std::vector<std::string>) override {
    return no_processes();
  }

 private:
  std::vector<Device> devices_;
};

}  // namespace

std::unique_ptr<Source> make_declared_source(std::vector<Device> devices) {
  for (auto& device : devices) device.declared = true;
  std::ranges::sort(devices, {},
                    [](const Device& device) { return std::pair(device.index, device.mig_index); });
  return std::make_unique<DeclaredSource>(std::move(devices));
}

}  // namespace mps::device
