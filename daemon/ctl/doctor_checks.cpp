#include "ctl/doctor_checks.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <string>

#include "base/text.h"
#include "ctl/doctor_policies.h"

namespace mps::ctl {

namespace {

using device::ComputeMode;
using device::Device;
using device::Kind;

constexpr std::size_t k_socket_path_limit = 107;
constexpr std::uint64_t k_mebibyte = 1024ULL * 1024;
constexpr std::uint64_t k_little_space = 64 * k_mebibyte;
constexpr std::uint64_t k_few_inodes = 1000;
constexpr std::uint64_t k_little_shared_memory = 16 * k_mebibyte;
constexpr std::uint64_t k_enough_open_files = 16384;
constexpr std::size_t k_names_shown = 3;

std::string octal(mode_t mode) {
  std::array<char, 16> text{};
  std::snprintf(text.data(), text.size(), "%04o", static_cast<unsigned>(mode));
  return text.data();
}

std::string mebibytes(std::uint64_t bytes) {
  return format_mebibytes(bytes / k_mebibyte) + "B";
}

void check_programs(const DoctorFacts& facts, Findings& findings) {
  if (!facts.programs_error.empty()) {
    findings.push_back({Severity::error, "programs", facts.programs_error, ""});
    return;
  }
  findings.push_back(
      {Severity::ok, "programs", facts.control_program + " and " + facts.server_program, ""});
}

void check_driver(const DoctorFacts& facts, Findings& findings) {
  if (facts.libcuda_error.empty()) {
    findings.push_back({Severity::ok, "libcuda", "libcuda.so.1 can be loaded", ""});
  } else {
    findings.push_back({Severity::error, "libcuda",
                        "libcuda.so.1 cannot be loaded: " + facts.libcuda_error,
                        "install the driver's CUDA library (package libcuda1), or name its folder "
                        "in the setting libraryPath"});
  }
  if (!facts.kernel_driver.empty()) {
    findings.push_back(
        {Severity::ok, "driver", "kernel module " + facts.kernel_driver + " is loaded", ""});
  } else {
    findings.push_back({Severity::warning, "driver",
                        "the NVIDIA kernel module is not loaded (no /proc/driver/nvidia/version)",
                        "load it (modprobe nvidia); without it no MPS server can start"});
  }
}

void check_nvml(const DoctorFacts& facts, Findings& findings) {
  const auto& inventory = facts.inventory;
  if (facts.declared_devices) {
    findings.push_back({Severity::note, "nvml", "not asked: the settings declare the devices",
                        "remove devices from the settings where there is NVML"});
  } else if (!inventory.error.empty()) {
    findings.push_back({Severity::error, "nvml", inventory.error,
                        "see that the driver is loaded and as old as its libraries (nvidia-smi), "
                        "or declare the devices in the settings"});
  } else if (inventory.devices.empty()) {
    findings.push_back({Severity::error, "nvml", "NVML reports no device",
                        "see that this node, or this container, is given a GPU"});
  } else {
    const auto& version = inventory.driver_version;
    findings.push_back({Severity::ok, "nvml",
                        "devices: " + std::to_string(inventory.devices.size()) +
                            ", driver: " + (version.empty() ? "unknown" : version),
                        ""});
  }
}

std::string describe(const Device& device) {
  auto text = device.uuid;
  if (!device.name.empty()) text += ", " + printable(device.name);
  if (device.memory_mebibytes != 0) text += ", " + format_mebibytes(device.memory_mebibytes) + "B";
  if (device.sm_count != 0) text += ", " + std::to_string(device.sm_count) + " SMs";
  return text;
}

Finding judge_incapable(const DoctorFacts& facts, const Device& device) {
  Finding finding{Severity::warning, "device " + device.short_name(),
                  describe(device) + ": " + device.not_capable,
                  "MPS is the wrong tool for this device: use time-slicing, or another device"};
  if (device.mig_enabled) {
    const bool has_any = std::ranges::any_of(facts.inventory.devices, [&device](const Device& d) {
      return d.kind == Kind::mig && d.index == device.index;
    });
    if (has_any) {
      finding.severity = Severity::note;
      finding.advice = "use its MIG devices";
    } else {
      finding.message += ", and it has none";
      finding.advice = "make MIG devices (nvidia-smi mig -cgi … -C), or disable MIG";
    }
  } else if (device.compute_mode == ComputeMode::prohibited) {
    finding.advice =
        "set it (nvidia-smi -i " + device.uuid + " -c DEFAULT, or -c EXCLUSIVE_PROCESS)";
  }
  return finding;
}

Finding judge_device(const DoctorFacts& facts, const Device& device) {
  const auto check = "device " + device.short_name();
  if (!device.error.empty()) {
    return {Severity::error, check, describe(device) + ": " + device.error,
            "see what nvidia-smi and the kernel log (dmesg, \"NVRM: Xid\") say of it"};
  }
  if (!device.not_capable.empty()) return judge_incapable(facts, device);
  return {Severity::ok, check, describe(device) + ": MPS can run here", ""};
}

std::optional<Finding> judge_compute_mode(const Device& device) {
  if (!device.compute_mode || !device.not_capable.empty()) return std::nullopt;
  const auto check = "compute mode " + device.short_name();
  switch (*device.compute_mode) {
    case ComputeMode::default_mode:
      return Finding{Severity::note, check,
                     "default: programs that do not go through MPS can use this GPU too, with no "
                     "limits",
                     "set computeMode: exclusive in the settings to keep them out"};
    case ComputeMode::exclusive_process:
    case ComputeMode::exclusive_thread:
      return Finding{Severity::ok, check,
                     std::string(device::to_string(*device.compute_mode)) +
                         ": only the MPS server and its clients can use this GPU",
                     ""};
    case ComputeMode::prohibited:
      break;  // is a reason not to be capable
  }
  return std::nullopt;
}

void check_devices(const DoctorFacts& facts, Findings& findings) {
  for (const auto& device : facts.inventory.devices) {
    findings.push_back(judge_device(facts, device));
    if (auto finding = judge_compute_mode(device)) findings.push_back(*finding);
  }
}

void check_run_dir_itself(const RunDirFacts& dir, Findings& findings) {
  const std::string check = "run directory";
  if (!dir.error.empty()) {
    findings.push_back({Severity::error, check, dir.error, "run doctor as root"});
  } else if (!dir.exists) {
    findings.push_back({Severity::note, check,
                        dir.path + " does not exist: the supervisor makes it at its start", ""});
  } else if (!dir.is_directory) {
    findings.push_back({Severity::error, check, dir.path + " is no directory",
                        "remove it, or choose another runDir"});
  } else if (dir.owner != 0) {
    findings.push_back({Severity::error, check,
                        dir.path + " belongs to uid " + std::to_string(dir.owner) +
                            ": that user could put other sockets in the place of ours",
                        "chown root " + dir.path});
  } else if (dir.mode != 0755) {
    findings.push_back({Severity::warning, check,
                        dir.path + " has mode " + octal(dir.mode) + ", and 0755 is what is needed",
                        "chmod 0755 " + dir.path});
  } else {
    findings.push_back({Severity::ok, check, dir.path + ", mode 0755, owned by root", ""});
  }
  for (const auto& parent : dir.closed_parents) {
    findings.push_back({Severity::error, check,
                        "users other than root cannot pass through " + parent.path + " (mode " +
                            octal(parent.mode) +
                            "): their programs and MPS servers do not reach the control daemon",
                        "chmod o+x " + parent.path + ", or choose another runDir"});
  }
}

std::string longest_socket_path(const DoctorFacts& facts) {
  std::string longest = "gpu0.shared";
  for (const auto& device : facts.inventory.devices) {
    auto id = device.short_name() + ".shared";
    if (id.size() > longest.size()) longest = std::move(id);
  }
  return facts.run_dir.path + "/" + longest + "/pipe/control_privileged";
}

void check_socket_length(const DoctorFacts& facts, Findings& findings) {
  const auto path = longest_socket_path(facts);
  const auto length = std::to_string(path.size()) + " bytes";
  if (path.size() <= k_socket_path_limit) {
    findings.push_back({Severity::ok, "socket paths", "at most " + length, ""});
    return;
  }
  const auto allowed = facts.run_dir.path.size() + k_socket_path_limit - path.size();
  findings.push_back({Severity::error, "socket paths",
                      path + " has " + length + ", and a unix socket's path at most " +
                          std::to_string(k_socket_path_limit),
                      "choose a runDir of at most " + std::to_string(allowed) + " bytes"});
}

void check_file_system(const RunDirFacts& dir, Findings& findings) {
  if (dir.noexec) {
    findings.push_back({Severity::note, "run directory",
                        dir.path + " is mounted noexec: programs in it cannot be run from "
                                   "containers that mount it",
                        "mount it without noexec where containers are to start programs from it"});
  }
  if (dir.free_bytes && *dir.free_bytes < k_little_space) {
    findings.push_back({Severity::warning, "space",
                        dir.path + " has " + mebibytes(*dir.free_bytes) + " left",
                        "make room: the control daemons' output goes there"});
  }
  if (dir.free_inodes && *dir.free_inodes < k_few_inodes) {
    findings.push_back({Severity::warning, "space",
                        dir.path + " has " + std::to_string(*dir.free_inodes) + " inodes left",
                        "remove files: no socket can be made without one"});
  }
}

void check_strangers(const DoctorFacts& facts, Findings& findings) {
  const auto& directory = facts.default_pipe_directory;
  if (facts.default_control_socket_exists) {
    findings.push_back({Severity::warning, "default directory",
                        directory + " holds a control socket: CUDA probes it in every process "
                                    "that has no CUDA_MPS_PIPE_DIRECTORY, and NVIDIA's container "
                                    "runtime mounts it into every GPU container",
                        "end the daemon that uses it, then remove " + directory});
  } else if (facts.default_pipe_directory_exists) {
    findings.push_back({Severity::note, "default directory",
                        directory + " exists: NVIDIA's container runtime mounts it into every GPU "
                                    "container",
                        "remove it where nothing needs it"});
  }
  for (const auto& daemon : facts.foreign_daemons) {
    const auto pipe = printable(daemon.pipe_directory.value_or(directory));
    findings.push_back(
        {Severity::warning, "other daemons",
         "nvidia-cuda-mps-control, pid " + std::to_string(daemon.pid) + ", runs in " + pipe +
             ": it is not the supervisor's, and its limits "
             "are its own",
         "end it where it is left over: echo quit | CUDA_MPS_PIPE_DIRECTORY=" + pipe +
             " nvidia-cuda-mps-control"});
  }
}

void check_unknown_daemons(const DoctorFacts& facts, Findings& findings) {
  if (facts.unknown_daemons == 0) return;
  const bool one = facts.unknown_daemons == 1;
  findings.push_back({Severity::note, "other daemons",
                      "where " + std::to_string(facts.unknown_daemons) +
                          (one ? " control daemon runs" : " control daemons run") +
                          " can be seen by root alone: the supervisor's own are not told from "
                          "others",
                      "run doctor as root"});
}

std::string some_of(const std::vector<std::string>& names) {
  std::string text;
  for (std::size_t i = 0; i < std::min(names.size(), k_names_shown); ++i) {
    text += (i == 0 ? "" : ", ") + printable(names[i]);
  }
  return names.size() > k_names_shown ? text + ", …" : text;
}

void check_shared_memory(const SharedMemoryFacts& memory, Findings& findings) {
  if (!memory.present) {
    findings.push_back({Severity::error, "shared memory",
                        "/dev/shm is missing: MPS servers and clients meet there",
                        "mount a tmpfs on /dev/shm"});
    return;
  }
  if (memory.free_bytes < k_little_shared_memory) {
    findings.push_back({Severity::warning, "shared memory",
                        "/dev/shm has " + mebibytes(memory.free_bytes) + " left of " +
                            mebibytes(memory.size_bytes),
                        "enlarge it (mount -o remount,size=… /dev/shm), or remove what is left "
                        "over in it"});
  } else {
    findings.push_back({Severity::ok, "shared memory",
                        "/dev/shm has " + mebibytes(memory.free_bytes) + " left of " +
                            mebibytes(memory.size_bytes),
                        ""});
  }
  if (!memory.stale.empty()) {
    findings.push_back({Severity::note, "shared memory",
                        std::to_string(memory.stale.size()) +
                            " left over from MPS servers that are gone: " + some_of(memory.stale),
                        "remove them from /dev/shm, unless another pid namespace shares it"});
  }
}

void check_open_files(const DoctorFacts& facts, Findings& findings) {
  if (!facts.open_files) return;
  const auto limit = std::to_string(*facts.open_files);
  const std::string whose = facts.open_files_of_supervisor ? "the supervisor" : "this shell";
  if (*facts.open_files >= k_enough_open_files) {
    findings.push_back(
        {Severity::ok, "open files", whose + " may have " + limit + " files open", ""});
    return;
  }
  // What this shell may says little about a service, and nothing is wrong with the node for it.
  findings.push_back(
      {facts.open_files_of_supervisor ? Severity::warning : Severity::note, "open files",
       whose + " may have only " + limit + " files open",
       "set LimitNOFILE=" + std::to_string(k_enough_open_files) +
           " or more in the supervisor's unit: its daemons, and their clients' connections, "
           "inherit it"});
}

void check_supervisor(const DoctorFacts& facts, Findings& findings) {
  if (facts.supervisor_error.empty()) {
    findings.push_back({Severity::ok, "supervisor", "answers", ""});
    for (const auto& sentence : facts.devices_out) {
      findings.push_back({Severity::error, "out of service", sentence,
                          "docs/operations.md says how (\"A device that is out of service\"); "
                          "`mps-ctl restart INSTANCE --force` puts it back"});
    }
    return;
  }
  findings.push_back({Severity::warning, "supervisor", facts.supervisor_error,
                      "start it (systemctl start mps-supervisor), or name its socket with "
                      "--socket"});
}

void check_kernel(const DoctorFacts& facts, Findings& findings) {
  const auto kernel = "kernel " + facts.kernel_release;
  if (!facts.pidfd) {
    findings.push_back({Severity::error, "kernel", kernel + " has no pidfd that can be waited on",
                        "use Linux 5.4 or later, and a seccomp profile that allows pidfd_open"});
  }
  if (!facts.unix_diag) {
    findings.push_back({Severity::note, "kernel",
                        kernel + " does not tell of unix sockets' peers (unix_diag): who blocks a "
                                 "control daemon cannot be named",
                        "modprobe unix_diag"});
  }
  if (facts.pidfd && facts.unix_diag) {
    findings.push_back({Severity::ok, "kernel", kernel + " has pidfd and unix_diag", ""});
  }
}

std::optional<unsigned> take_hexadecimal(std::string_view& text) {
  unsigned value = 0;
  const auto* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value, 16);
  if (error != std::errc{}) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(stop - text.data()));
  return value;
}

bool take(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

}  // namespace

std::optional<pid_t> pid_of_shared_memory(std::string_view name) {
  if (!take(name, "cuda.shm.") || !take_hexadecimal(name) || !take(name, ".")) return std::nullopt;
  const auto pid = take_hexadecimal(name);
  if (!pid || *pid == 0 || *pid > 0x7fffffffU || !take(name, ".")) return std::nullopt;
  if (!take_hexadecimal(name) || !name.empty()) return std::nullopt;
  return static_cast<pid_t>(*pid);
}

Findings evaluate(const DoctorFacts& facts) {
  Findings findings;
  check_programs(facts, findings);
  check_driver(facts, findings);
  check_nvml(facts, findings);
  check_devices(facts, findings);
  check_run_dir_itself(facts.run_dir, findings);
  check_socket_length(facts, findings);
  check_file_system(facts.run_dir, findings);
  check_policies(facts.policies, findings);
  check_strangers(facts, findings);
  check_unknown_daemons(facts, findings);
  check_shared_memory(facts.shared_memory, findings);
  check_open_files(facts, findings);
  check_supervisor(facts, findings);
  check_kernel(facts, findings);
  return findings;
}

}  // namespace mps::ctl
