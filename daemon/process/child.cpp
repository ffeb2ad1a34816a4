#include "process/child.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/system_error.hpp>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/unique_fd.h"
#include "process/lifeline.h"
#include "process/mount_space.h"
#include "process/proc.h"
#include "process/reaper.h"

namespace mps::process {

namespace asio = boost::asio;

namespace {

// Not from <sys/pidfd.h>: glibc before 2.37 forgot its extern "C", and older ones the file.
UniqueFd open_pidfd(pid_t pid) {
  return UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0U)));
}

std::string signal_name(int number) {
  const char* name = ::sigabbrev_np(number);
  return name == nullptr ? "signal " + std::to_string(number) : "SIG" + std::string(name);
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> result;
  result.reserve(strings.size() + 1);
  for (auto& text : strings) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

// What the child's descriptors come from: copies above all of them, so that none is overwritten by
// another on its way down, whichever numbers the caller's have.
Result<std::vector<UniqueFd>> sources_of(const SpawnSpec& spec) {
  const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null) return Error::from_errno("open /dev/null", errno);
  std::vector<int> given{spec.stdin_fd, spec.stdout_fd, spec.stderr_fd};
  for (auto& descriptor : given) descriptor = descriptor < 0 ? null.get() : descriptor;
  given.insert(given.end(), spec.more_fds.begin(), spec.more_fds.end());
  std::vector<UniqueFd> copies;
  for (const int source : given) {
    const auto lowest = static_cast<int>(given.size());
    auto& copy = copies.emplace_back(::fcntl(source, F_DUPFD_CLOEXEC, lowest));
    if (!copy) return Error::from_errno("copy descriptor " + std::to_string(source), errno);
  }
  return copies;
}

class FileActions {
 public:
  explicit FileActions(const std::vector<UniqueFd>& sources) {
    error_ = ::posix_spawn_file_actions_init(&actions_);
    const auto count = static_cast<int>(sources.size());
    for (int i = 0; i < count && error_ == 0; ++i) {
      const int source = sources[static_cast<std::size_t>(i)].get();
      error_ = ::posix_spawn_file_actions_adddup2(&actions_, source, i);
    }
    if (error_ == 0) error_ = ::posix_spawn_file_actions_addclosefrom_np(&actions_, count);
  }
  FileActions(const FileActions&) = delete;
  FileActions& operator=(const FileActions&) = delete;
  ~FileActions() { ::posix_spawn_file_actions_destroy(&actions_); }

  [[nodiscard]] int error() const { return error_; }
  [[nodiscard]] const posix_spawn_file_actions_t* get() const { return &actions_; }

 private:
  posix_spawn_file_actions_t actions_{};
  int error_ = 0;
};

class Attributes {
 public:
  explicit Attributes(bool new_session) {
    int flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
    if (new_session) flags |= POSIX_SPAWN_SETSID;
    sigset_t none;
    sigset_t all;
    sigemptyset(&none);
    sigfillset(&all);
    error_ = ::posix_spawnattr_init(&attributes_);
    if (error_ == 0) error_ = ::posix_spawnattr_setsigmask(&attributes_, &none);
    if (error_ == 0) error_ = ::posix_spawnattr_setsigdefault(&attributes_, &all);
    if (error_ == 0) error_ = ::posix_spawnattr_setflags(&attributes_, static_cast<short>(flags));
  }
  Attributes(const Attributes&) = delete;
  Attributes& operator=(const Attributes&) = delete;
  ~Attributes() { ::posix_spawnattr_destroy(&attributes_); }

  [[nodiscard]] int error() const { return error_; }
  [[nodiscard]] const posix_spawnattr_t* get() const { return &attributes_; }

 private:
  posix_spawnattr_t attributes_{};
  int error_ = 0;
};

Result<pid_t> start(const SpawnSpec& spec) {
  const auto sources = sources_of(spec);
  if (!sources) return sources.error();
  const FileActions actions(*sources);
  const Attributes attributes(spec.new_session);
  std::vector<std::string> arguments{spec.program.string()};
  arguments.insert(arguments.end(), spec.arguments.begin(), spec.arguments.end());
  std::vector<std::string> environment = spec.environment;
  pid_t pid = 0;
  int error = actions.error() != 0 ? actions.error() : attributes.error();
  if (error == 0) {
    error = ::posix_spawn(&pid, spec.program.c_str(), actions.get(), attributes.get(),
                          pointers(arguments).data(), pointers(environment).data());
  }
  if (error != 0) return Error::from_errno("exec " + spec.program.string(), error);
  return pid;
}

// A child is in the namespaces of the thread that starts it, and our child whichever that was.
Result<pid_t> start_in_place(const SpawnSpec& spec) {
  if (!spec.mount_space) return start(spec);
  pid_t pid = 0;
  const auto started = spec.mount_space->run([&]() -> Result<void> {
    const auto child = start(spec);
    if (!child) return child.error();
    pid = *child;
    return {};
  });
  if (!started) return started.error();
  return pid;
}

// For a child that cannot be supervised: it has hardly begun, so the wait is short.
void discard(pid_t pid, const UniqueFd& pidfd) {
  siginfo_t info{};
  if (pidfd) {
    ::syscall(SYS_pidfd_send_signal, pidfd.get(), SIGKILL, nullptr, 0U);
  } else {
    ::kill(pid, SIGKILL);
  }
  const auto kind = pidfd ? P_PIDFD : P_PID;
  const auto whom = static_cast<id_t>(pidfd ? pidfd.get() : pid);
  while (::waitid(kind, whom, &info, WEXITED) < 0 && errno == EINTR) {
  }
}

}  // namespace

std::string ExitStatus::describe() const {
  if (code) return "exited with status " + std::to_string(*code);
  if (!signal) return "ended (not our child)";
  const auto number = "was killed by signal " + std::to_string(*signal);
  return ::sigabbrev_np(*signal) == nullptr ? number : number + " (" + signal_name(*signal) + ")";
}

struct Child::State {
  State(const asio::any_io_executor& executor, pid_t process, std::uint64_t started)
      : pidfd(executor), pid(process), start_time(started), owned(process) {}

  static Result<std::shared_ptr<State>> make(const asio::any_io_executor& executor,
                                             UniqueFd& descriptor, pid_t pid,
                                             std::uint64_t start_time);
  static asio::awaitable<ExitStatus> wait(std::shared_ptr<State> self);

  bool has_ended();
  std::optional<ExitStatus> reap();

  asio::posix::stream_descriptor pidfd;
  pid_t pid;
  std::uint64_t start_time;
  std::optional<ExitStatus> status;
  OwnedPid owned;
  std::optional<Lifeline> line;
};

Result<std::shared_ptr<Child::State>> Child::State::make(const asio::any_io_executor& executor,
                                                         UniqueFd& descriptor, pid_t pid,
                                                         std::uint64_t start_time) {
  auto state = std::make_shared<State>(executor, pid, start_time);
  boost::system::error_code error;
  state->pidfd.assign(descriptor.get(), error);
  if (error) {
    return Error::from_errno("watch process " + std::to_string(pid), error.value());
  }
  static_cast<void>(descriptor.release());
  return state;
}

bool Child::State::has_ended() {
  if (status) return true;
  pollfd entry{.fd = pidfd.native_handle(), .events = POLLIN, .revents = 0};
  return ::poll(&entry, 1, 0) == 1;
}

// Readiness of the pidfd is only a hint; what waitid says is the fact. It is asked for adopted
// processes too, because a Child may adopt what this very process has started.
std::optional<ExitStatus> Child::State::reap() {
  if (status) return status;
  siginfo_t info{};
  int result = 0;
  do {
    result = ::waitid(P_PIDFD, static_cast<id_t>(pidfd.native_handle()), &info, WEXITED | WNOHANG);
  } while (result < 0 && errno == EINTR);
  if (result < 0) {
    // Not our child, or reaped by somebody else in this process.
    if (has_ended()) status = ExitStatus{};
  } else if (info.si_pid != 0) {
    const bool exited = info.si_code == CLD_EXITED;
    status.emplace();
    (exited ? status->code : status->signal) = info.si_status;
  }
  // From now on somebody else may have the pid.
  if (status) owned.release();
  return status;
}

asio::awaitable<ExitStatus> Child::State::wait(std::shared_ptr<State> self) {
  for (;;) {
    if (const auto status = self->reap()) co_return *status;
    const auto [error] = co_await self->pidfd.async_wait(asio::posix::stream_descriptor::wait_read,
                                                         asio::as_tuple(asio::use_awaitable));
    if (error) throw boost::system::system_error(error);
  }
}

Child::Child(std::shared_ptr<State> state) : state_(std::move(state)) {}
Child::Child(Child&&) noexcept = default;
Child& Child::operator=(Child&&) noexcept = default;
Child::~Child() = default;

Result<Child> Child::spawn(const asio::any_io_executor& executor, const SpawnSpec& spec) {
  if (!spec.ends_with_us) return spawn(executor, spec, {});
  auto line = Lifeline::make();
  if (!line) return line.error();
  SpawnSpec with_line = spec;
  with_line.more_fds.push_back(line->childs_end());
  return spawn(executor, with_line, std::move(*line));
}

Result<Child> Child::spawn(const asio::any_io_executor& executor, const SpawnSpec& spec,
                           std::optional<Lifeline> line) {
  const auto pid = start_in_place(spec);
  if (!pid) return pid.error();
  // It is our child, and nobody else can have its pid until we have reaped it. Only where SIGCHLD
  // is ignored does the kernel reap, and then it may be gone already.
  UniqueFd pidfd = open_pidfd(*pid);
  if (!pidfd) {
    const bool gone = errno == ESRCH;
    const auto error = Error::from_errno("watch process " + std::to_string(*pid), errno);
    if (!gone) discard(*pid, pidfd);
    return error;
  }
  const auto status = Proc{}.stat(*pid);
  if (!status) {
    discard(*pid, pidfd);
    return Error{"watch process " + std::to_string(*pid) + ": /proc does not show it"};
  }
  const auto held = line ? line->hold(*pid) : Result<void>();
  if (!held) {
    discard(*pid, pidfd);
    return held.error();
  }
  auto state = State::make(executor, pidfd, *pid, status->start_time);
  if (!state) {
    discard(*pid, pidfd);
    return state.error();
  }
  (*state)->line = std::move(line);
  return Child(std::move(*state));
}

Result<Child> Child::adopt(const asio::any_io_executor& executor, pid_t pid,
                           std::uint64_t start_time) {
  const auto context = "adopt process " + std::to_string(pid);
  UniqueFd pidfd = open_pidfd(pid);
  if (!pidfd) return Error::from_errno(context, errno);
  // After the pidfd was opened: what has this start time now is what the pidfd is of.
  const auto status = Proc{}.stat(pid);
  if (!status || status->state == 'Z' || status->state == 'X') {
    return Error{context + ": it has ended"};
  }
  if (status->start_time != start_time) {
    return Error{context + ": another process has this pid now (started at tick " +
                 std::to_string(status->start_time) + ", not " + std::to_string(start_time) + ")"};
  }
  auto state = State::make(executor, pidfd, pid, start_time);
  if (!state) return state.error();
  return Child(std::move(*state));
}

pid_t Child::pid() const {
  return state_->pid;
}
std::uint64_t Child::start_time() const {
  return state_->start_time;
}

asio::awaitable<ExitStatus> Child::wait() {
  return State::wait(state_);
}

Result<void> Child::signal(int number) {
  const auto context = "send " + signal_name(number) + " to process " + std::to_string(state_->pid);
  // A zombie takes signals without complaint.
  if (state_->has_ended()) return Error::from_errno(context, ESRCH);
  const auto descriptor = state_->pidfd.native_handle();
  if (::syscall(SYS_pidfd_send_signal, descriptor, number, nullptr, 0U) != 0) {
    return Error::from_errno(context, errno);
  }
  return {};
}

}  // namespace mps::process
