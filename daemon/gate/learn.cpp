#include "gate/learn.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "base/file.h"
#include "base/text.h"
#include "base/unique_fd.h"
#include "base/unix_socket.h"
#include "gate/system.h"
#include "process/child.h"

namespace mps::gate {

namespace asio = boost::asio;
namespace fs = std::filesystem;
using namespace asio::experimental::awaitable_operators;
using namespace std::chrono_literals;
using Descriptor = asio::posix::stream_descriptor;
using Milliseconds = std::chrono::milliseconds;

namespace {

constexpr auto k_use = asio::as_tuple(asio::use_awaitable);
constexpr Milliseconds k_daemon_start{5000};
constexpr Milliseconds k_client_start{20000};  // a libcuda from a cold disk
constexpr Milliseconds k_look_again{10};
constexpr std::size_t k_log_limit = std::size_t{256} * 1024;

asio::awaitable<void> pause(Milliseconds span) {
  asio::steady_timer timer(co_await asio::this_coro::executor, span);
  co_await timer.async_wait(k_use);
}

// Whether there is something to read (or an end) within that time.
asio::awaitable<bool> readable(Descriptor& socket, Milliseconds limit) {
  asio::steady_timer timer(co_await asio::this_coro::executor, limit);
  const auto first =
      co_await (socket.async_wait(Descriptor::wait_read, k_use) || timer.async_wait(k_use));
  co_return first.index() == 0;
}

Result<UniqueFd> passing_socket() {
  auto made = seqpacket_socket();
  if (!made) return made;
  const int passes = 1;
  ::setsockopt(made->get(), SOL_SOCKET, SO_PASSCRED, &passes, sizeof(passes));
  return made;
}

// A folder that goes with its owner.
struct Folder {
  explicit Folder(const fs::path& parent) {
    auto pattern = (parent / "l.XXXXXX").string();
    if (::mkdtemp(pattern.data()) != nullptr) path = pattern;
  }
  ~Folder() {
    std::error_code ignored;
    if (!path.empty()) fs::remove_all(path, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  fs::path path;
};

// Killed and reaped with its owner; neither program has anything to lose.
class Helper {
 public:
  explicit Helper(process::Child child) : child_(std::move(child)) {}
  Helper(const Helper&) = delete;
  Helper& operator=(const Helper&) = delete;
  process::Child& child() { return child_; }
  asio::awaitable<void> end() {
    (void)child_.signal(SIGKILL);
    (void)co_await child_.wait();
  }

 private:
  process::Child child_;
};

std::vector<std::string> with_pipe(std::vector<std::string> environment, const fs::path& pipe) {
  const auto ours = [](const std::string& entry) {
    return entry.starts_with("CUDA_MPS_") || entry.starts_with("CUDA_VISIBLE_DEVICES=");
  };
  std::erase_if(environment, ours);
  environment.push_back("CUDA_MPS_PIPE_DIRECTORY=" + pipe.string());
  environment.push_back("CUDA_MPS_LOG_DIRECTORY=" + pipe.string());
  environment.emplace_back("CUDA_VISIBLE_DEVICES=");
  return environment;
}

std::string client_line(pid_t pid, uid_t uid) {
  return "NEW CLIENT " + std::to_string(pid) + " from user " + std::to_string(uid);
}

class Lesson {
 public:
  Lesson(const LearnSettings& settings, const fs::path& folder)
      : settings_(settings), daemon_dir_(folder / "d"), client_dir_(folder / "c") {}

  asio::awaitable<Result<Opening>> run();

 private:
  struct Said {
    pid_t pid = 0;
    ucred credentials{};
    std::vector<std::string> messages{};
  };
  Result<void> prepare();
  asio::awaitable<Result<Opening>> listen_twice();
  asio::awaitable<Result<void>> start_daemon();
  asio::awaitable<Result<std::string>> ask_greeting();
  asio::awaitable<Result<UniqueFd>> connect_to_daemon();
  asio::awaitable<Result<Said>> hear_client(const std::string& greeting, bool pass_on);
  asio::awaitable<Result<Said>> hear(Descriptor& listener, const std::string& greeting,
                                     bool pass_on);
  asio::awaitable<Result<std::string>> pass_on(const Said& said);
  [[nodiscard]] bool logged(const std::string& line) const;

  const LearnSettings& settings_;
  fs::path daemon_dir_, client_dir_;
  std::unique_ptr<Helper> daemon_;
  std::string not_forwarded_;
};

Result<void> Lesson::prepare() {
  for (const auto& folder : {daemon_dir_, client_dir_}) {
    if (::mkdir(folder.c_str(), 0700) != 0) {
      return Error::from_errno("make " + folder.string(), errno);
    }
  }
  return {};
}

asio::awaitable<Result<void>> Lesson::start_daemon() {
  const auto log = daemon_dir_ / "out";
  const UniqueFd output(::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!output) co_return Error::from_errno("open " + log.string(), errno);
  process::SpawnSpec spec;
  spec.program = settings_.control_program;
  spec.arguments = {"-f"};
  spec.environment = with_pipe(settings_.environment, daemon_dir_);
  spec.stdout_fd = output.get();
  spec.stderr_fd = output.get();
  spec.ends_with_us = true;
  auto child = process::Child::spawn(co_await asio::this_coro::executor, spec);
  if (!child) co_return child.error();
  daemon_ = std::make_unique<Helper>(std::move(*child));
  co_return Result<void>{};
}

asio::awaitable<Result<UniqueFd>> Lesson::connect_to_daemon() {
  const auto address = UnixAddress::of(daemon_dir_ / "control");
  if (!address) co_return address.error();
  const auto deadline = std::chrono::steady_clock::now() + k_daemon_start;
  for (;;) {
    auto socket = passing_socket();
    if (!socket) co_return socket;
    if (::connect(socket->get(), address->get(), address->size()) == 0) {
      co_return socket;
    }
    if (std::chrono::steady_clock::now() > deadline) {
      co_return Error::from_errno("the scratch control daemon does not listen", errno);
    }
    co_await pause(k_look_again);
  }
}

asio::awaitable<Result<std::string>> Lesson::ask_greeting() {
  auto socket = co_await connect_to_daemon();
  if (!socket) co_return socket.error();
  Descriptor daemon(co_await asio::this_coro::executor, socket->release());
  std::array<char, 256> bytes{};
  if (co_await readable(daemon, settings_.answer)) {
    const auto got = ::recv(daemon.native_handle(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (got > 0) co_return std::string(bytes.data(), static_cast<std::size_t>(got));
  }
  co_return Error{"the scratch control daemon gives no greeting"};
}

asio::awaitable<Result<Lesson::Said>> Lesson::hear_client(const std::string& greeting, bool pass) {
  const auto executor = co_await asio::this_coro::executor;
  const auto path = client_dir_ / "control";
  const auto address = UnixAddress::of(path);
  if (!address) co_return address.error();
  ::unlink(path.c_str());
  auto socket = passing_socket();
  if (!socket) co_return socket.error();
  if (::bind(socket->get(), address->get(), address->size()) != 0 ||
      ::listen(socket->get(), 8) != 0) {
    co_return Error::from_errno("listen at " + path.string(), errno);
  }
  Descriptor listener(executor, socket->release());
  process::SpawnSpec spec;
  spec.program = settings_.client_program;
  spec.environment = with_pipe(settings_.environment, client_dir_);
  spec.ends_with_us = true;
  auto child = process::Child::spawn(executor, spec);
  if (!child) co_return child.error();
  const auto pid = child->pid();
  Helper client(std::move(*child));
  auto said = co_await hear(listener, greeting, pass);
  co_await client.end();
  if (said && said->credentials.pid != pid) co_return Error{"somebody else spoke than was asked"};
  co_return said;
}

// Its probe reads the greeting and closes; what speaks is the client.
asio::awaitable<Result<Lesson::Said>> Lesson::hear(Descriptor& listener,
                                                   const std::string& greeting, bool pass) {
  const auto executor = co_await asio::this_coro::executor;
  System system;
  const auto received = std::make_unique<Received>();
  std::array<char, 256> bytes{};
  for (int connections = 0; connections < 8; ++connections) {
    if (!co_await readable(listener, k_client_start)) break;
    UniqueFd socket(system.accept(listener.native_handle()));
    if (!socket) continue;
    Descriptor peer(executor, socket.release());
    (void)system.send(peer.native_handle(), greeting, nullptr, {});
    Said said;
    bool ended = false;
    while (said.messages.size() <= k_opening_messages && !ended) {
      if (!co_await readable(peer, said.messages.empty() ? settings_.answer : settings_.quiet))
        break;
      const auto got = system.receive(peer.native_handle(), bytes, *received);
      ended = got <= 0;
      if (ended || !received->credentials) continue;
      if (received->cut || received->descriptor_count > 0) {
        co_return Error{"the client's opening has descriptors in it, or is too long"};
      }
      said.credentials = *received->credentials;
      said.messages.emplace_back(bytes.data(), received->size);
    }
    if (ended && said.messages.empty()) continue;
    if (said.messages.empty()) co_return Error{"the client says nothing"};
    if (said.messages.size() > k_opening_messages)
      co_return Error{"the client does not stop speaking"};
    if (pass) {
      auto passed = co_await pass_on(said);
      if (!passed) co_return passed.error();
      not_forwarded_ = std::move(*passed);
    }
    co_return said;
  }
  co_return Error{"the client does not come: cuInit did not ask for MPS"};
}

// Empty: the daemon believes it; else why it never will. An Error: not known. The client's
// connection stands meanwhile.
asio::awaitable<Result<std::string>> Lesson::pass_on(const Said& said) {
  auto socket = co_await connect_to_daemon();
  if (!socket) co_return socket.error();
  Descriptor daemon(co_await asio::this_coro::executor, socket->release());
  if (!co_await readable(daemon, settings_.answer)) {
    co_return Error{"the scratch control daemon gives no greeting"};
  }
  System system;
  for (const auto& message : said.messages) {
    if (system.send(daemon.native_handle(), message, &said.credentials, {}) >= 0) continue;
    const auto error = Error::from_errno("credentials cannot be attached", errno);
    if (errno == EPERM) co_return error.message;
    co_return error;
  }
  const auto line = client_line(said.credentials.pid, said.credentials.uid);
  const auto deadline = std::chrono::steady_clock::now() + settings_.answer;
  while (!logged(line)) {
    if (logged(client_line(::getpid(), ::getuid()))) {
      co_return std::string("the control daemon takes our credentials for the client's");
    }
    if (std::chrono::steady_clock::now() > deadline) {
      co_return Error{"the control daemon does not say \"" + line + "\""};
    }
    co_await pause(k_look_again);
  }
  co_return std::string();
}

bool Lesson::logged(const std::string& line) const {
  const auto text = read_file(daemon_dir_ / "out", k_log_limit);
  return text && text->find(line + ":") != std::string::npos;
}

asio::awaitable<Result<Opening>> Lesson::run() {
  if (auto ready = prepare(); !ready) co_return ready.error();
  if (auto started = co_await start_daemon(); !started) co_return started.error();
  auto opening = co_await listen_twice();
  co_await daemon_->end();
  co_return opening;
}

asio::awaitable<Result<Opening>> Lesson::listen_twice() {
  const auto greeting = co_await ask_greeting();
  if (!greeting) co_return greeting.error();
  const auto first = co_await hear_client(*greeting, false);
  if (!first) co_return first.error();
  const auto second = co_await hear_client(*greeting, true);
  if (!second) co_return second.error();
  if (first->messages != second->messages) {
    co_return Error{"the client does not say the same twice"};
  }
  Opening opening;
  opening.greeting = *greeting;
  opening.messages = second->messages;
  opening.forwardable = not_forwarded_.empty();
  opening.why_not = not_forwarded_;
  co_return opening;
}

Result<std::string> file_identity(const fs::path& path) {
  struct stat file {};
  if (::stat(path.c_str(), &file) != 0) return Error::from_errno("stat " + path.string(), errno);
  return path.string() + " " + std::to_string(file.st_size) + " " +
         std::to_string(file.st_mtim.tv_sec) + "." + std::to_string(file.st_mtim.tv_nsec);
}

}  // namespace

asio::awaitable<Result<Opening>> learn_opening(LearnSettings settings) {
  auto driver = co_await driver_identity(settings);
  if (!driver) co_return driver.error();
  if (!*driver) co_return Error{"no libcuda.so.1 can be loaded"};
  const Folder folder(settings.scratch);
  if (folder.path.empty()) {
    co_return Error::from_errno("make a folder in " + settings.scratch.string(), errno);
  }
  Lesson lesson(settings, folder.path);
  auto opening = co_await lesson.run();
  if (opening) opening->driver = **driver;
  co_return opening;
}

asio::awaitable<Result<std::optional<std::string>>> driver_identity(LearnSettings settings) {
  const auto executor = co_await asio::this_coro::executor;
  const auto control = file_identity(settings.control_program);
  if (!control) co_return control.error();
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0) co_return Error::from_errno("pipe", errno);
  Descriptor output(executor, ends[0]);
  UniqueFd input(ends[1]);
  process::SpawnSpec spec;
  spec.program = settings.client_program;
  spec.arguments = {"--where"};
  spec.environment = with_pipe(settings.environment, "/nonexistent");
  spec.stdout_fd = input.get();
  spec.ends_with_us = true;
  auto child = process::Child::spawn(executor, spec);
  if (!child) co_return child.error();
  Helper helper(std::move(*child));
  input.reset();
  std::array<char, 5000> text{};
  const bool answered = co_await readable(output, k_client_start);
  const auto got = answered ? ::read(output.native_handle(), text.data(), text.size()) : 0;
  co_await helper.end();
  if (!answered) co_return Error{"loading libcuda.so.1 takes too long"};
  if (got <= 0) co_return std::optional<std::string>();
  const std::string where(text.data(), static_cast<std::size_t>(got));
  co_return std::optional(*control + "; " + std::string(trim(where)));
}

}  // namespace mps::gate
