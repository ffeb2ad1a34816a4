// A channel to a front-end that is a shell script.
#pragma once

#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "control/channel.h"

namespace mps::control::test {

namespace asio = boost::asio;
namespace fs = std::filesystem;
using namespace std::chrono_literals;

constexpr auto k_generous = 30s;

class TempDir {
 public:
  TempDir() {
    auto pattern = (fs::temp_directory_path() / "channel-XXXXXX").string();
    REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  [[nodiscard]] fs::path operator/(const char* name) const { return path_ / name; }

 private:
  fs::path path_;
};

inline std::string contents(const fs::path& file) {
  std::ifstream in(file);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline const std::string k_answering = R"(
while read -r line; do
  case "$line" in
    end-of-*) echo "Unknown command \"$line\"" ;;
    get_default_active_thread_percentage) echo 100.0 ;;
    get_server_status*) echo "Server 77 not found" ;;
  esac
done
)";

// A channel to a front-end that is a shell script.
struct Bench {
  explicit Bench(const std::string& script, std::chrono::milliseconds timeout = k_generous) {
    const auto program = dir / "front-end";
    std::ofstream(program) << "#!/bin/sh\n" << script;
    REQUIRE(::chmod(program.c_str(), 0700) == 0);
    make(program, timeout);
  }
  Bench() = default;

  void make(const fs::path& program, std::chrono::milliseconds timeout) {
    ChannelSettings settings;
    settings.front_end = program;
    settings.environment = {"PATH=/usr/bin:/bin", "DIR=" + (dir / "").string()};
    settings.control_socket = dir / "control";
    settings.timeout = timeout;
    settings.look_limit = look_limit;
    channel = std::make_unique<Channel>(io->get_executor(), std::move(settings));
  }

  // Starts a batch; its outcome comes into the place that is returned.
  std::shared_ptr<std::optional<Outcome>> start(std::vector<Command> batch,
                                                asio::cancellation_slot slot = {}) {
    auto place = std::make_shared<std::optional<Outcome>>();
    const auto keep = [place](const std::exception_ptr& error, Outcome outcome) {
      if (error) std::rethrow_exception(error);
      *place = std::move(outcome);
    };
    asio::co_spawn(*io, channel->run(std::move(batch)), asio::bind_cancellation_slot(slot, keep));
    return place;
  }
  std::shared_ptr<std::optional<Outcome>> start_made(Channel::Make make,
                                                     Channel::Turn turn = Channel::Turn::in_order) {
    auto place = std::make_shared<std::optional<Outcome>>();
    asio::co_spawn(*io, channel->run_made(std::move(make), k_generous, turn),
                   [place](const std::exception_ptr& error, Outcome outcome) {
                     if (error) std::rethrow_exception(error);
                     *place = std::move(outcome);
                   });
    return place;
  }

  bool until(const std::function<bool()>& condition) {
    const auto limit = std::chrono::steady_clock::now() + k_generous;
    while (!condition()) {
      if (std::chrono::steady_clock::now() > limit) return false;
      io->restart();
      if (io->run_one_for(10ms) == 0) std::this_thread::yield();
    }
    return true;
  }

  Outcome run(std::vector<Command> batch) {
    const auto place = start(std::move(batch));
    REQUIRE(until([&] { return place->has_value(); }));
    return **place;
  }

  // The pid that the script wrote.
  pid_t pid_in(const char* name) {
    pid_t pid = 0;
    REQUIRE(until([&] { return contents(dir / name).ends_with('\n'); }));
    std::ifstream(dir / name) >> pid;
    return pid;
  }

  TempDir dir;
  std::chrono::milliseconds look_limit = k_generous;
  std::unique_ptr<asio::io_context> io = std::make_unique<asio::io_context>();
  std::unique_ptr<Channel> channel;
};

inline const std::vector<Command> k_one{get_default_active_thread_percentage()};

inline std::string why(const Outcome& outcome) {
  if (const auto* unanswered = std::get_if<Unanswered>(&outcome)) return unanswered->why;
  if (const auto* absent = std::get_if<Absent>(&outcome)) return absent->why;
  return "another outcome: " + std::to_string(outcome.index());
}

}  // namespace mps::control::test
