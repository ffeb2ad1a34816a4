#include "guard.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ask.h"
#include "guard_plan.h"

namespace mps::client {

namespace {

using Mask = unsigned long long;  // the kernel's: bit n-1 is signal n
constexpr Mask k_all = ~0ULL;
constexpr size_t k_most_held = 64;
constexpr long long k_dial_ms = 100;
constexpr long long k_busy_pause_ms = 100;
constexpr unsigned long k_close_range = 436;

// The C library's own would leave out the signals that it keeps for itself, which are ordinary ones
// to programs of another library.
Mask set_mask(Mask mask) {
  Mask before = 0;
  ::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, &before, sizeof mask);
  return before;
}

int open_signals() {
  const Mask all = k_all;
  return static_cast<int>(::syscall(SYS_signalfd4, -1, &all, sizeof all, O_NONBLOCK | O_CLOEXEC));
}

// What the command was given is the command's: a pipe has its end when the command closes it.
void close_all() {
  if (::syscall(k_close_range, 0UL, ~0U, 0UL) == 0) return;
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const rlim_t most = limit.rlim_cur < 1U << 20U ? limit.rlim_cur : 1U << 20U;
  for (rlim_t descriptor = 0; descriptor < most; ++descriptor) {
    ::close(static_cast<int>(descriptor));
  }
}

// Asks the agent to end the CUDA of this process' descendants (as pid 1: of the container), without
// waiting for anything itself.
class Ending {
 public:
  explicit Ending(const Place& place) : socket_(place.socket.data) {}

  void begin() {
    if (under_way_) return;
    under_way_ = true;
    until_ = now_ms() + k_answer_ms;
    dial();
  }
  [[nodiscard]] bool under_way() const { return under_way_; }
  [[nodiscard]] int descriptor() const { return connection_.descriptor(); }
  [[nodiscard]] long long alarm() const { return again_at_ > 0 ? again_at_ : until_; }

  // When something came, or at the alarm.
  void go_on() {
    if (!under_way_) return;
    if (now_ms() >= until_) return finish();
    if (again_at_ > 0 && now_ms() >= again_at_) return dial();
    while (under_way_ && connection_.descriptor() >= 0) {
      Message message;
      const int heard = connection_.hear_now(message);
      if (heard == EAGAIN) return;
      if (heard != 0) return finish();
      take(message);
    }
  }

  void wait() {
    while (under_way_) {
      pollfd look{descriptor(), POLLIN, 0};
      const long long left = alarm() - now_ms();
      ::poll(&look, 1, left > 0 ? static_cast<int>(left) : 0);
      go_on();
    }
  }

 private:
  void dial() {
    again_at_ = 0;
    if (connection_.dial(socket_, now_ms() + k_dial_ms) != 0) finish();
  }

  void take(const Message& message) {
    if (is(message, "hello") && number(message, "protocol") == 1) {
      const char* scope = ::getpid() == 1 ? "container" : "descendants";
      Text<64> request;
      request.print("terminate-own\nscope=%s\n", scope);
      if (connection_.say(request.data) != 0) finish();
      return;
    }
    Text<33> code;
    value(message, "code", code);
    if (!is(message, "refused") || !equal(code.data, "too_many_waiting")) return finish();
    connection_.close();  // another one, of this container or of others, is being answered
    again_at_ = now_ms() + k_busy_pause_ms;
  }

  void finish() {
    connection_.close();
    under_way_ = false;
    again_at_ = 0;
  }

  const char* socket_;
  Connection connection_;
  bool under_way_ = false;
  long long until_ = 0;
  long long again_at_ = 0;
};

class Guard {
 public:
  Guard(pid_t command, const Place& place, long long grace_ms, int signals)
      : command_(command), grace_ms_(grace_ms), signals_(signals), ending_(place) {}

  [[noreturn]] void run() {
    for (;;) {
      pollfd look[] = {{signals_, POLLIN, 0}, {ending_.descriptor(), POLLIN, 0}};
      ::poll(look, 2, patience());
      read_signals();
      if (grace_until_ > 0 && now_ms() >= grace_until_) {
        grace_until_ = 0;
        ending_.begin();
      }
      ending_.go_on();
      if (!ending_.under_way()) release();
    }
  }

 private:
  [[nodiscard]] int patience() const {
    long long next = -1;
    if (ending_.under_way()) next = ending_.alarm();
    if (grace_until_ > 0 && (next < 0 || grace_until_ < next)) next = grace_until_;
    if (next < 0) return -1;
    const long long left = next - now_ms();
    return left > 0 ? static_cast<int>(left) : 0;
  }

  void read_signals() {
    signalfd_siginfo info{};
    while (::read(signals_, &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
      const bool from_kernel = info.ssi_code > 0;
      if (info.ssi_signo == SIGCHLD && from_kernel) continue;
      on_signal(info, from_kernel);
    }
    reap();
  }

  void on_signal(const signalfd_siginfo& info, bool from_kernel) {
    const int signal = static_cast<int>(info.ssi_signo);
    const bool leads = ::getsid(0) == ::getpid();
    switch (treatment_of(signal, from_kernel, leads, handled_by_command())) {
      case Treatment::drop:
        return;
      case Treatment::pass_and_wait:
        if (!grace_spent_) grace_until_ = now_ms() + grace_ms_;
        grace_spent_ = true;
        return pass(info);
      case Treatment::pass:
        return pass(info);
      case Treatment::hold:
        if (held_ == k_most_held) return pass(info);
        held_signals_[held_++] = info;
        ending_.begin();
    }
  }

  void release() {
    for (size_t i = 0; i < held_; ++i) pass(held_signals_[i]);
    held_ = 0;
  }

  [[nodiscard]] Handled handled_by_command() const {
    Text<64> path;
    path.print("/proc/%d/status", command_);
    char text[8192];
    const int file = ::open(path.data, O_RDONLY | O_CLOEXEC);
    if (file < 0) return {};
    const ssize_t size = ::read(file, text, sizeof text - 1);
    ::close(file);
    if (size <= 0) return {};
    text[size] = '\0';
    return read_handled(text);
  }

  // With the value that sigqueue() gives it.
  void pass(const signalfd_siginfo& info) const {
    const int signal = static_cast<int>(info.ssi_signo);
    if (info.ssi_code == SI_QUEUE) {
      siginfo_t queued{};
      queued.si_signo = signal;
      queued.si_code = SI_QUEUE;
      queued.si_pid = static_cast<pid_t>(info.ssi_pid);
      queued.si_uid = info.ssi_uid;
      // NOLINTNEXTLINE(performance-no-int-to-ptr): the kernel's word for the sender's
      queued.si_value.sival_ptr = reinterpret_cast<void*>(info.ssi_ptr);
      if (::syscall(SYS_rt_sigqueueinfo, command_, signal, &queued) == 0) return;
    }
    ::kill(command_, signal);
  }

  void reap() {
    int status = 0;
    for (;;) {
      const pid_t ended = ::waitpid(-1, &status, WNOHANG | WUNTRACED);
      if (ended <= 0) return;
      if (ended != command_) continue;
      if (WIFSTOPPED(status)) {
        stop_too(WSTOPSIG(status));
      } else {
        leave(status);
      }
    }
  }

  // Who waits for us sees what it would see of the command. One signal may be here already, from
  // the terminal: sent again while it is blocked it stays one.
  void stop_too(int signal) {
    if (::getpid() == 1) return;
    ::kill(::getpid(), signal);
    if (signal == SIGSTOP) return;
    const Mask before = set_mask(k_all & ~(1ULL << (signal - 1)));
    set_mask(before);
  }

  [[noreturn]] void leave(int status) {
    // With pid 1 all others of its pid namespace are killed, at whatever they are.
    if (::getpid() == 1 && ::kill(-1, 0) == 0) {
      ending_.begin();
      ending_.wait();
    }
    if (WIFEXITED(status)) ::_exit(WEXITSTATUS(status));
    die_by(WTERMSIG(status));
  }

  // The core is the command's.
  [[noreturn]] static void die_by(int signal) {
    const rlimit none{0, 0};
    ::setrlimit(RLIMIT_CORE, &none);
    ::signal(signal, SIG_DFL);
    ::kill(::getpid(), signal);
    set_mask(k_all & ~(1ULL << (signal - 1)));
    ::_exit(128 + signal);
  }

  pid_t command_;
  long long grace_ms_;
  int signals_;
  Ending ending_;
  long long grace_until_ = 0;
  bool grace_spent_ = false;
  signalfd_siginfo held_signals_[k_most_held];
  size_t held_ = 0;
};

// A signal that we were told to ignore is not one that the command must ignore for good.
void stop_ignoring() {
  for (int signal = 1; signal <= 64; ++signal) {
    struct sigaction action {};
    if (::sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_IGN) {
      ::signal(signal, SIG_DFL);
    }
  }
}

}  // namespace

int stay_as_guard(const Place& place, long long grace_ms) {
  const Mask before = set_mask(k_all);
  // Ignored, it would be the kernel that reaps, and nobody would learn how the command ended.
  struct sigaction on_child {};
  ::sigaction(SIGCHLD, nullptr, &on_child);
  ::signal(SIGCHLD, SIG_DFL);
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  const pid_t self = ::getpid();
  const pid_t command = ::fork();
  if (command < 0) {
    const int error = errno;
    ::sigaction(SIGCHLD, &on_child, nullptr);
    set_mask(before);
    return error;
  }
  if (command == 0) {
    ::prctl(PR_SET_CHILD_SUBREAPER, 0);
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != self) ::_exit(125);
    ::sigaction(SIGCHLD, &on_child, nullptr);
    set_mask(before);
    return 0;
  }
  stop_ignoring();
  close_all();
  (void)::chdir("/");
  const int signals = open_signals();
  Guard(command, place, grace_ms, signals).run();
}

}  // namespace mps::client
