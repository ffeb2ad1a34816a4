// Shared by the tests of this room: the simulated NVML, and a reactor to ask it on.
#pragma once

#include <doctest/doctest.h>
#include <stdlib.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_future.hpp>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <string>
#include <utility>

#include "device/source.h"

namespace mps::device::test {

constexpr std::chrono::seconds k_generous{60};

// One for all tests, since the environment must not change while a thread is left in the library.
class InventoryFolder {
 public:
  InventoryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "mps-nvml-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path_ = name;
    ::setenv("MPS_SIM_NVML", file().c_str(), 1);  // NOLINT(concurrency-mt-unsafe)
  }
  ~InventoryFolder() { std::filesystem::remove_all(path_); }
  InventoryFolder(const InventoryFolder&) = delete;
  InventoryFolder& operator=(const InventoryFolder&) = delete;

  [[nodiscard]] std::filesystem::path file() const { return path_ / "inventory"; }
  // Renamed into place, since the library may be reading.
  void write(const std::string& text) const {
    std::ofstream(path_ / "next") << text;
    std::filesystem::rename(path_ / "next", file());
  }

 private:
  std::filesystem::path path_;
};

inline const InventoryFolder& folder() {
  static const InventoryFolder the_folder;
  return the_folder;
}

inline void write(const std::string& text) {
  folder().write(text);
}

// The simulated NVML and a reactor to ask on.
class Fixture {
 public:
  Fixture() {
    write("");  // ends what a test before left hanging
    source = make();
  }

  std::unique_ptr<Source> make(std::chrono::milliseconds timeout = k_generous,
                               std::string library = MPS_SIM_NVML_LIB) {
    return make_nvml_source(io_.get_executor(), {std::move(library), timeout});
  }

  template <typename T>
  T run(boost::asio::awaitable<T> work) {
    auto future = boost::asio::co_spawn(io_, std::move(work), boost::asio::use_future);
    io_.restart();
    while (future.wait_for(std::chrono::seconds{0}) != std::future_status::ready) {
      REQUIRE(io_.run_one_for(2 * k_generous) > 0);
    }
    return future.get();
  }

  Inventory list() { return run(source->list()); }
  boost::asio::io_context& io() { return io_; }

 private:
  boost::asio::io_context io_;

 public:
  std::unique_ptr<Source> source;  // goes before its reactor
};

}  // namespace mps::device::test
