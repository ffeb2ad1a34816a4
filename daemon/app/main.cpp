// mps-supervisor: flags, settings, lock, run. Exit codes (docs/operations.md): 0 ended as asked,
// 1 failed, 2 flags or settings are wrong, 3 another supervisor has the run directory.
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <iostream>

#include "app/fd_store.h"
#include "app/run_lock.h"
#include "app/settings.h"
#include "app/supervisor.h"
#include "process/reaper.h"

namespace {

using namespace mps;

constexpr int k_failed = 1;
constexpr int k_usage = 2;
constexpr int k_locked = 3;
constexpr auto k_default_config = "/etc/mps-supervisor/supervisor.yaml";
constexpr std::size_t k_config_limit = 1024 * 1024;
constexpr rlim_t k_descriptors = 65536;  // children inherit it; MPS asks for 16384 (mps-behaviour)

struct Flags {
  std::string config;
  std::string run_dir;
  std::string state_dir;
  std::string policy_dir;
  std::string cdi_dir;
  bool cdi_given = false;
  std::string metrics_listen;
  bool metrics_given = false;
  bool check = false;
  bool stop_instances = false;
};

std::optional<int> parse_flags(int argc, char** argv, Flags& flags) {
  CLI::App app{"Supervises one NVIDIA CUDA MPS control daemon per GPU or MIG device.",
               "mps-supervisor"};
  app.add_option("--config", flags.config,
                 std::string("Settings file (default ") + k_default_config + ", if it is there)");
  app.add_option("--run-dir", flags.run_dir, "Sockets and pipe directories (default /run/mps)");
  app.add_option("--state-dir", flags.state_dir,
                 "Journal and state (default /var/lib/mps-supervisor)");
  app.add_option("--policy-dir", flags.policy_dir,
                 "Policies (default /etc/mps-supervisor/policies)");
  auto* cdi =
      app.add_option("--cdi-dir", flags.cdi_dir,
                     "Where shares are written as CDI devices, or \"\" (default /var/run/cdi)");
  auto* metrics = app.add_option("--metrics-listen", flags.metrics_listen,
                                 "Address for metrics and health, or off (default 127.0.0.1:9464)");
  app.add_flag("--check-config", flags.check, "Check the settings, print what is wrong, and end");
  app.add_flag("--stop-instances", flags.stop_instances,
               "At SIGTERM, end the control daemons too; else they go on for the next supervisor");
  app.set_version_flag("--version", std::string("mps-supervisor ") + MPS_VERSION);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : k_usage;
  }
  flags.metrics_given = metrics->count() > 0;
  flags.cdi_given = cdi->count() > 0;
  return std::nullopt;
}

// The text of the settings file; a default file that is not there is no settings.
Result<std::string> read_config(const std::string& path, bool asked_for) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    if (!asked_for && errno == ENOENT) return std::string();
    return Error::from_errno("cannot read " + path, errno);
  }
  std::string text(k_config_limit + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(file.gcount()));
  if (text.size() > k_config_limit) {
    return Error{path + ": larger than " + std::to_string(k_config_limit) + " bytes"};
  }
  return text;
}

void apply_flags(const Flags& flags, app::Settings& settings) {
  if (!flags.run_dir.empty()) settings.run_dir = flags.run_dir;
  if (!flags.state_dir.empty()) settings.state_dir = flags.state_dir;
  if (!flags.policy_dir.empty()) settings.policy_dir = flags.policy_dir;
  if (flags.cdi_given) settings.cdi_dir = flags.cdi_dir;
  if (flags.metrics_given) {
    settings.metrics_listen = flags.metrics_listen == "off" ? "" : flags.metrics_listen;
  }
  if (flags.stop_instances) settings.stop_instances = true;
}

// Complaints go to stderr, one a line, as they stand; nullopt after any.
std::optional<app::Settings> load_settings(const Flags& flags) {
  const auto path = flags.config.empty() ? std::string(k_default_config) : flags.config;
  const auto text = read_config(path, !flags.config.empty());
  if (!text) {
    std::fprintf(stderr, "mps-supervisor: %s\n", text.error().message.c_str());
    return std::nullopt;
  }
  auto parsed = app::parse_settings(*text, path);
  if (const auto* errors = std::get_if<app::SettingsErrors>(&parsed)) {
    for (const auto& message : errors->messages) std::fprintf(stderr, "%s\n", message.c_str());
    return std::nullopt;
  }
  auto settings = std::get<app::Settings>(std::move(parsed));
  apply_flags(flags, settings);
  const auto troubles = app::check_settings(settings);
  for (const auto& trouble : troubles) {
    std::fprintf(stderr, "mps-supervisor: %s\n", trouble.c_str());
  }
  if (!troubles.empty()) return std::nullopt;
  return settings;
}

void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= k_descriptors) return;
  limit.rlim_cur = std::min(k_descriptors, limit.rlim_max);
  (void)::setrlimit(RLIMIT_NOFILE, &limit);
}

int fail(const std::string& message) {
  spdlog::error("{}", message);
  return k_failed;
}

int run(app::Settings settings) {
  auto store = app::FdStore::open();  // before any other descriptor, and any child
  auto environment = app::current_environment();
  auto programs = app::find_programs(settings.mps_path, environment);
  if (!programs) return fail(programs.error().message);
  auto lock = app::lock_run_directory(settings.run_dir);
  if (const auto* held = std::get_if<app::LockHeld>(&lock)) {
    spdlog::error("{} belongs to another mps-supervisor, pid {}", settings.run_dir.string(),
                  held->holder);
    return k_locked;
  }
  if (const auto* error = std::get_if<Error>(&lock)) return fail(error->message);
  if (auto made = app::make_private_directory(settings.state_dir); !made) {
    return fail(made.error().message);
  }
  // One spelling: a daemon's pipe directory must be the same path for the next supervisor.
  std::error_code unreadable;
  settings.run_dir = std::filesystem::canonical(settings.run_dir, unreadable);
  if (unreadable) return fail("cannot resolve the run directory: " + unreadable.message());
  if (const auto troubles = app::check_settings(settings); !troubles.empty()) {
    return fail(troubles.front());
  }
  boost::asio::io_context io(1);
  (void)process::start_reaper(io.get_executor());  // as pid 1 in a container
  auto supervisor =
      app::Supervisor::open(io, std::move(settings), std::move(*programs), std::move(environment),
                            std::get<UniqueFd>(std::move(lock)), std::move(store));
  if (!supervisor) return fail(supervisor.error().message);
  int status = 0;
  boost::asio::co_spawn(io, (*supervisor)->run(), [&io, &status](const std::exception_ptr& error) {
    if (error) {
      status = k_failed;
      try {
        std::rethrow_exception(error);
      } catch (const std::exception& what) {
        spdlog::critical("{}", what.what());
      }
    }
    io.stop();
  });
  io.run();
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  Flags flags;
  if (const auto status = parse_flags(argc, argv, flags)) return *status;
  // stderr, for the journal or a container's log; flushed with each line.
  spdlog::set_default_logger(spdlog::stderr_logger_st("mps-supervisor"));
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %^%l%$ %v");
  // A front-end or an HTTP peer that goes away is an error of that write, not our end.
  (void)std::signal(SIGPIPE, SIG_IGN);
  // A parent that ignored it passes that on, and the kernel would then reap our children unseen.
  (void)std::signal(SIGCHLD, SIG_DFL);
  ::umask(022);
  auto settings = load_settings(flags);
  if (!settings) return k_usage;
  if (flags.check) {
    std::puts("the settings are fine");
    return 0;
  }
  raise_descriptor_limit();
  try {
    return run(std::move(*settings));
  } catch (const std::exception& error) {
    return fail(error.what());
  }
}
