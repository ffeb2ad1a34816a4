// What this room's tests share.
#pragma once

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstddef>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "base/result.h"
#include "base/unique_fd.h"
#include "process/child.h"

// A failed CHECK(result) shows the error; result.hpp's own operator<< needs one for the value too.
template <typename T>
struct doctest::StringMaker<boost::system::result<T, mps::Error>> {
  static String convert(const boost::system::result<T, mps::Error>& result) {
    return (result ? "a value" : "error: " + result.error().message).c_str();
  }
};

namespace mps::process::testing {

class TempFolder {
 public:
  TempFolder() {
    auto pattern = (std::filesystem::temp_directory_path() / "mps-process-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp");
    path_ = pattern;
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] std::filesystem::path operator/(std::string_view name) const {
    return path_ / name;
  }

 private:
  std::filesystem::path path_;
};

inline UniqueFd open_file(const std::filesystem::path& path, int flags) {
  UniqueFd file(::open(path.c_str(), flags | O_CLOEXEC, 0600));
  if (!file) throw std::runtime_error("open " + path.string());
  return file;
}

inline std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// Runs the reactor until `done()`; false if that took longer than anything should.
template <typename Predicate>
bool run_until(boost::asio::io_context& io, Predicate done) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!done()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    io.restart();
    io.run_one_for(std::chrono::milliseconds(50));
  }
  return true;
}

// Runs a coroutine to its end and gives its result, or throws what it threw.
template <typename T>
T finish(boost::asio::io_context& io, boost::asio::awaitable<T> work) {
  std::optional<T> result;
  std::exception_ptr thrown;
  bool done = false;
  boost::asio::co_spawn(io, std::move(work), [&](const std::exception_ptr& exception, T value) {
    thrown = exception;
    if (!exception) result = std::move(value);
    done = true;
  });
  if (!run_until(io, [&] { return done; })) throw std::runtime_error("it did not end");
  if (thrown) std::rethrow_exception(thrown);
  return std::move(*result);
}

inline SpawnSpec shell(std::string script) {
  return {.program = "/bin/sh",
          .arguments = {"-c", std::move(script)},
          .environment = {"PATH=/bin:/usr/bin"}};
}

inline std::size_t open_descriptors() {
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    static_cast<void>(entry);
    ++count;
  }
  return count;
}

}  // namespace mps::process::testing
