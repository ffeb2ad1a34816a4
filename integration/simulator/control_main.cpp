#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <string>
#include <string_view>

#include "daemon.h"
#include "front_end.h"

namespace {

using namespace mps::sim;  // NOLINT: the program is made of it

constexpr int k_since_all_users = 555;  // the version

constexpr const char* k_help =
    "CUDA MPS Control for Linux/Unix.\n"
    "Copyright (C) 2003 - 2023 NVIDIA Corporation.\n"
    "\n"
    "  This program allows multiple CUDA processes to share a single GPU context. For information "
    "on how to use the CUDA MPS, see the nvidia-cuda-mps-control manual page.\n";

std::string log_directory() {
  return environment("CUDA_MPS_LOG_DIRECTORY", "/var/log/nvidia-mps");
}

void prepare_log_directory() {
  const std::string path = log_directory();
  (void)::mkdir(path.c_str(), 0700);
  if (::access(path.c_str(), R_OK | W_OK) == 0) return;
  (void)std::printf(
      "Warning: Failed writing log files to directory [%s]. No logs will be available.\n",
      path.c_str());
  (void)std::fflush(stdout);
}

int open_log(const char* name) {
  const std::string path = log_directory() + "/" + name;
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  return file >= 0 ? file : ::open("/dev/null", O_WRONLY | O_CLOEXEC);
}

int run_in_foreground(const Steering& steering, bool for_all_users) {
  Daemon daemon(steering, for_all_users);
  return daemon.start({STDOUT_FILENO, STDOUT_FILENO}) ? daemon.run() : 1;
}

int run_detached(const Steering& steering, bool for_all_users, int ready) {
  (void)::setsid();
  Daemon daemon(steering, for_all_users);
  if (!daemon.start({open_log("control.log"), open_log("server.log")})) return 1;
  const int nowhere = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int standard = 0; standard < 3; ++standard) (void)::dup2(nowhere, standard);
  (void)!::write(ready, "1", 1);
  (void)::close(ready);
  return daemon.run();
}

// The parent ends when the daemon listens.
int run_in_background(const Steering& steering, bool for_all_users) {
  int ends[2] = {-1, -1};
  if (::pipe2(ends, O_CLOEXEC) != 0) return 1;
  const pid_t child = ::fork();
  if (child < 0) return 1;
  if (child == 0) {
    (void)::close(ends[0]);
    return run_detached(steering, for_all_users, ends[1]);
  }
  (void)::close(ends[1]);
  char answer = 0;
  if (::read(ends[0], &answer, 1) == 1) return 0;
  int status = 0;
  (void)::waitpid(child, &status, 0);
  return 1;
}

struct Options {
  bool is_daemon = false;
  bool detaches = false;
  bool for_all_users = false;
};

// Up to 550 a daemon has exactly one option; whoever has any other is a front-end.
Options read_options(int count, char** arguments, const Steering& steering) {
  Options options;
  const bool is_new = steering.number("version", 550) >= k_since_all_users;
  for (int index = 1; index < count; ++index) {
    const std::string_view option = arguments[index];
    if (option == "-f" || option == "-d") {
      options.is_daemon = true;
      options.detaches = option == "-d";
    } else if (is_new && (option == "-multiuser-server" || option == "-M")) {
      options.for_all_users = true;
    } else {
      return {};
    }
  }
  return is_new || count == 2 ? options : Options();
}

}  // namespace

int main(int count, char** arguments) {
  (void)std::signal(SIGPIPE, SIG_IGN);
  const std::string_view option = count > 1 ? arguments[1] : "";
  if (option == "-h" || option == "--help") {
    (void)std::puts(k_help);
    return 0;
  }
  const Steering steering = Steering::load(own_program());
  const Options options = read_options(count, arguments, steering);
  if (!options.is_daemon) return run_front_end(steering);
  const long refuses = steering.number("exit_at_start", -1);
  if (refuses >= 0) return static_cast<int>(refuses);
  prepare_log_directory();
  return options.detaches ? run_in_background(steering, options.for_all_users)
                          : run_in_foreground(steering, options.for_all_users);
}
