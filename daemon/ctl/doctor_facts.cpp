#include "ctl/doctor_facts.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <cerrno>
#include <exception>
#include <fstream>
#include <string_view>
#include <system_error>

#include "app/policy_directory.h"
#include "app/wanted.h"
#include "base/result.h"
#include "base/text.h"
#include "base/unique_fd.h"
#include "ctl/doctor_checks.h"
#include "device/source.h"
#include "process/proc.h"

namespace mps::ctl {

namespace {

namespace fs = std::filesystem;
namespace asio = boost::asio;

constexpr mode_t k_permissions = 07777;
constexpr std::size_t k_max_text = 16UL * 1024;
constexpr std::size_t k_max_entries = 100'000;  // of a directory that others write to
constexpr int k_wait_on_pidfd = 3;              // P_PIDFD, which older libcs do not name

// The beginning of a small file; empty where it cannot be read.
std::string read_small(const fs::path& file) {
  std::ifstream stream(file);
  std::string text(k_max_text, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(stream.gcount()));
  return text;
}

std::string try_libcuda(const std::vector<fs::path>& folders) {
  std::vector<std::string> names;
  names.reserve(folders.size() + 1);
  for (const auto& folder : folders) names.push_back((folder / "libcuda.so.1").string());
  names.emplace_back("libcuda.so.1");
  std::string error;
  for (const auto& name : names) {
    if (void* handle = dlopen(name.c_str(), RTLD_LAZY | RTLD_LOCAL)) {
      dlclose(handle);
      return {};
    }
    const char* reason = dlerror();  // NOLINT(concurrency-mt-unsafe): glibc keeps it per thread
    error = reason != nullptr ? reason : "no reason is given";
  }
  return error;
}

// "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.261.03  …": the first word that is a
// version.
std::string kernel_driver_version(const fs::path& proc) {
  const auto text = read_small(proc / "driver/nvidia/version");
  const auto lines = split_lines(text);
  if (lines.empty()) return {};
  for (const auto word : split_whitespace(lines.front())) {
    const bool is_version = word.find('.') != std::string_view::npos &&
                            word.find_first_not_of("0123456789.") == std::string_view::npos;
    if (is_version) return std::string(word);
  }
  return "of unknown version";
}

device::Inventory ask_nvml(const DoctorOptions& options) {
  asio::io_context io;
  auto source =
      device::make_nvml_source(io.get_executor(), {options.nvml_library, options.nvml_timeout});
  device::Inventory inventory;
  asio::co_spawn(io, source->list(),
                 [&inventory](const std::exception_ptr&, device::Inventory answer) {
                   inventory = std::move(answer);
                 });
  io.run();
  return inventory;
}

void look_at_parents(const fs::path& path, RunDirFacts& facts) {
  for (auto parent = path.parent_path(); !parent.empty(); parent = parent.parent_path()) {
    struct stat status {};
    const bool closed = ::stat(parent.c_str(), &status) == 0 && (status.st_mode & S_IXOTH) == 0;
    if (closed) facts.closed_parents.push_back({parent.string(), status.st_mode & k_permissions});
    if (parent == parent.root_path()) break;
  }
}

void look_at_file_system(fs::path path, RunDirFacts& facts) {
  struct statvfs status {};
  // Before the directory exists, the nearest parent tells of the file system that it will be on.
  while (::statvfs(path.c_str(), &status) != 0) {
    if (path == path.parent_path()) return;
    path = path.parent_path();
  }
  facts.noexec = (status.f_flag & ST_NOEXEC) != 0;
  facts.free_bytes = static_cast<std::uint64_t>(status.f_bavail) * status.f_frsize;
  if (status.f_files != 0) facts.free_inodes = status.f_favail;
}

RunDirFacts look_at_run_dir(const fs::path& path) {
  RunDirFacts facts{.path = path.string()};
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0) {
    facts.exists = true;
    facts.is_directory = S_ISDIR(status.st_mode);
    facts.mode = status.st_mode & k_permissions;
    facts.owner = status.st_uid;
  } else if (errno != ENOENT) {
    facts.error = Error::from_errno(path.string(), errno).message;
  }
  look_at_parents(path, facts);
  look_at_file_system(path, facts);
  return facts;
}

bool is_control_daemon(const std::vector<std::string>& command_line) {
  if (command_line.empty()) return false;
  if (fs::path(command_line.front()).filename() != "nvidia-cuda-mps-control") return false;
  // Without one of these it is a front-end, which somebody is using.
  return std::any_of(command_line.begin() + 1, command_line.end(), [](const std::string& argument) {
    return argument == "-d" || argument == "-f";
  });
}

bool is_below(const fs::path& path, const fs::path& folder) {
  const auto relative = path.lexically_normal().lexically_relative(folder.lexically_normal());
  return !relative.empty() && *relative.begin() != "..";
}

// 0: it can be; else errno.
int why_unreadable(const fs::path& file) {
  const UniqueFd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  return fd ? 0 : errno;
}

void look_for_daemons(const DoctorOptions& options, DoctorFacts& facts) {
  const process::Proc proc(options.proc);
  for (const auto pid : proc.pids()) {
    if (!is_control_daemon(proc.command_line(pid))) continue;
    auto pipe = proc.environment(pid, "CUDA_MPS_PIPE_DIRECTORY");
    if (pipe && is_below(*pipe, options.run_dir)) continue;
    const auto environment = options.proc / std::to_string(pid) / "environ";
    const int unreadable = pipe ? 0 : why_unreadable(environment);
    if (unreadable == 0) {
      facts.foreign_daemons.push_back({pid, std::move(pipe)});
    } else if (unreadable != ENOENT && unreadable != ESRCH) {
      ++facts.unknown_daemons;
    }
  }
}

// Both are asked: /proc may hide others' processes, and may be that of a test.
bool is_gone(const DoctorOptions& options, pid_t pid) {
  std::error_code ignored;
  if (fs::exists(options.proc / std::to_string(pid), ignored)) return false;
  return ::kill(pid, 0) != 0 && errno == ESRCH;
}

SharedMemoryFacts look_at_shared_memory(const DoctorOptions& options) {
  SharedMemoryFacts facts;
  struct statvfs status {};
  facts.present = ::statvfs(options.shared_memory.c_str(), &status) == 0;
  if (!facts.present) return facts;
  facts.size_bytes = static_cast<std::uint64_t>(status.f_blocks) * status.f_frsize;
  facts.free_bytes = static_cast<std::uint64_t>(status.f_bavail) * status.f_frsize;
  std::error_code error;
  fs::directory_iterator entry(options.shared_memory, error);
  for (std::size_t i = 0; !error && entry != fs::directory_iterator{} && i < k_max_entries; ++i) {
    const auto name = entry->path().filename().string();
    const auto pid = pid_of_shared_memory(name);
    if (pid && is_gone(options, *pid)) facts.stale.push_back(name);
    entry.increment(error);
  }
  std::ranges::sort(facts.stale);
  return facts;
}

// The soft limit from "Max open files            1024                 1048576              files".
std::optional<std::uint64_t> open_files_of(const fs::path& proc, pid_t pid) {
  const auto text = read_small(proc / std::to_string(pid) / "limits");
  for (const auto line : split_lines(text)) {
    const auto words = split_whitespace(line);
    if (!line.starts_with("Max open files") || words.size() < 4) continue;
    if (words[3] == "unlimited") return RLIM_INFINITY;
    return parse_number<std::uint64_t>(words[3]);
  }
  return std::nullopt;
}

void look_at_open_files(const DoctorOptions& options, DoctorFacts& facts) {
  if (options.supervisor_pid) {
    facts.open_files = open_files_of(options.proc, *options.supervisor_pid);
    facts.open_files_of_supervisor = facts.open_files.has_value();
  }
  rlimit limit{};
  if (!facts.open_files && ::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    facts.open_files = limit.rlim_cur;
  }
}

bool has_pidfd() {
  const UniqueFd self(static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0)));
  if (!self) return false;
  siginfo_t info{};
  const auto result = ::waitid(static_cast<idtype_t>(k_wait_on_pidfd),
                               static_cast<id_t>(self.get()), &info, WEXITED | WNOHANG);
  // We are no child of ours: ECHILD, unless the kernel does not know this kind of wait.
  return result == 0 || errno == ECHILD;
}

bool has_unix_diag() {
  const UniqueFd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
  if (!socket) return false;
  struct {
    nlmsghdr header;
    unix_diag_req request;
  } message{};
  message.header.nlmsg_len = sizeof(message);
  message.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  message.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  message.request.sdiag_family = AF_UNIX;  // in no state: an empty list is answer enough
  if (::send(socket.get(), &message, sizeof(message), 0) < 0) return false;
  const timeval patience{.tv_sec = 1, .tv_usec = 0};
  ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  alignas(nlmsghdr) std::array<char, 4096> answer{};
  const auto length = ::recv(socket.get(), answer.data(), answer.size(), 0);
  if (length < static_cast<ssize_t>(sizeof(nlmsghdr))) return false;
  return reinterpret_cast<const nlmsghdr*>(answer.data())->nlmsg_type != NLMSG_ERROR;
}

void look_at_policies(const DoctorOptions& options, DoctorFacts& facts) {
  if (options.policy_dir.empty()) return;
  auto& policies = facts.policies;
  const auto files = app::read_policy_directory(options.policy_dir);
  if (!files) {
    policies.error = files.error().message;
    return;
  }
  policies.devices = app::device_facts(facts.inventory, options.exclusive);
  policies.generation = policy::next_generation({}, *files, policies.devices);
}

void look_at_default_directory(const fs::path& directory, DoctorFacts& facts) {
  std::error_code ignored;
  facts.default_pipe_directory = directory.string();
  facts.default_pipe_directory_exists = fs::exists(directory, ignored);
  facts.default_control_socket_exists = fs::exists(directory / "control", ignored);
}

void look_at_kernel(DoctorFacts& facts) {
  utsname name{};
  if (::uname(&name) == 0) facts.kernel_release = std::data(name.release);
  facts.pidfd = has_pidfd();
  facts.unix_diag = has_unix_diag();
}

}  // namespace

DoctorFacts gather_facts(const DoctorOptions& options) {
  DoctorFacts facts{.control_program = options.control_program.string(),
                    .server_program = options.server_program.string(),
                    .programs_error = options.programs_error,
                    .libcuda_error = try_libcuda(options.library_path),
                    .kernel_driver = kernel_driver_version(options.proc),
                    .declared_devices = options.devices.has_value(),
                    .run_dir = look_at_run_dir(options.run_dir),
                    .shared_memory = look_at_shared_memory(options),
                    .supervisor_error = options.supervisor_error,
                    .devices_out = options.devices_out};
  if (options.devices) {
    facts.inventory.devices = *options.devices;
  } else {
    facts.inventory = ask_nvml(options);
  }
  look_at_policies(options, facts);
  look_at_default_directory(options.default_pipe_directory, facts);
  look_for_daemons(options, facts);
  look_at_open_files(options, facts);
  look_at_kernel(facts);
  return facts;
}

}  // namespace mps::ctl
