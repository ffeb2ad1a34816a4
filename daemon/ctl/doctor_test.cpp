#include "ctl/doctor.h"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "ctl/doctor_checks.h"
#include "ctl/doctor_facts.h"

using namespace mps::ctl;
using mps::device::ComputeMode;
using mps::device::Device;
using mps::device::Kind;
namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t k_mebibyte = 1024ULL * 1024;
constexpr std::uint64_t k_gibibyte = 1024 * k_mebibyte;

Device h200() {
  return {.uuid = "GPU-1",
          .index = 0,
          .name = "NVIDIA H200",
          .memory_mebibytes = 143771,
          .sm_count = 132,
          .compute_capability_major = 9,
          .compute_capability_minor = 0,
          .compute_mode = ComputeMode::exclusive_process};
}

// A node where all is well.
DoctorFacts healthy() {
  return {.control_program = "/usr/bin/nvidia-cuda-mps-control",
          .server_program = "/usr/sbin/nvidia-cuda-mps-server",
          .kernel_driver = "535.261.03",
          .inventory = {.devices = {h200()}, .driver_version = "535.261.03"},
          .run_dir = {.path = "/run/mps",
                      .exists = true,
                      .free_bytes = k_gibibyte,
                      .free_inodes = 100000},
          .default_pipe_directory = "/tmp/nvidia-mps",
          .shared_memory = {.size_bytes = 2 * k_gibibyte, .free_bytes = k_gibibyte},
          .open_files = 65536,
          .open_files_of_supervisor = true,
          .kernel_release = "6.1.0"};
}

std::string line_of(const Finding& finding) {
  return std::string(to_string(finding.severity)) + "|" + finding.check + "|" + finding.message +
         "|" + finding.advice;
}

// What a change of the healthy node makes the doctor say, without what is well.
std::vector<std::string> said(const std::function<void(DoctorFacts&)>& change) {
  auto facts = healthy();
  change(facts);
  std::vector<std::string> lines;
  for (const auto& finding : evaluate(facts)) {
    if (finding.severity != Severity::ok) lines.push_back(line_of(finding));
  }
  return lines;
}

std::string hexadecimal(pid_t pid) {
  std::ostringstream text;
  text << std::hex << pid;
  return text.str();
}

using Lines = std::vector<std::string>;

std::string joined(const Lines& lines) {
  std::string text;
  for (const auto& line : lines) text += line + "\n";
  return text;
}

struct Row {
  std::function<void(DoctorFacts&)> change;
  Lines lines;
};

void check(const std::vector<Row>& rows) {
  for (const auto& row : rows) CHECK(joined(said(row.change)) == joined(row.lines));
}

}  // namespace

TEST_CASE("a healthy node") {
  std::string text;
  for (const auto& finding : evaluate(healthy())) text += line_of(finding) + "\n";
  CHECK(text ==
        "ok|programs|/usr/bin/nvidia-cuda-mps-control and /usr/sbin/nvidia-cuda-mps-server|\n"
        "ok|libcuda|libcuda.so.1 can be loaded|\n"
        "ok|driver|kernel module 535.261.03 is loaded|\n"
        "ok|nvml|devices: 1, driver: 535.261.03|\n"
        "ok|device gpu0|GPU-1, NVIDIA H200, 143771MiB, 132 SMs: MPS can run here|\n"
        "ok|compute mode gpu0|exclusive-process: only the MPS server and its clients can use this "
        "GPU|\n"
        "ok|run directory|/run/mps, mode 0755, owned by root|\n"
        "ok|socket paths|at most 44 bytes|\n"
        "ok|shared memory|/dev/shm has 1GiB left of 2GiB|\n"
        "ok|open files|the supervisor may have 65536 files open|\n"
        "ok|supervisor|answers|\n"
        "ok|kernel|kernel 6.1.0 has pidfd and unix_diag|\n");
}

TEST_CASE("programs and driver") {
  check({
      {[](DoctorFacts& f) { f.programs_error = "nvidia-cuda-mps-control: not found in /usr/bin"; },
       {"error|programs|nvidia-cuda-mps-control: not found in /usr/bin|"}},
      {[](DoctorFacts& f) { f.libcuda_error = "libcuda.so.1: cannot open shared object file"; },
       {"error|libcuda|libcuda.so.1 cannot be loaded: libcuda.so.1: cannot open shared object "
        "file|install the driver's CUDA library (package libcuda1), or name its folder in the "
        "setting libraryPath"}},
      {[](DoctorFacts& f) { f.kernel_driver.clear(); },
       {"warning|driver|the NVIDIA kernel module is not loaded (no /proc/driver/nvidia/version)|"
        "load it (modprobe nvidia); without it no MPS server can start"}},
      {[](DoctorFacts& f) { f.inventory = {.error = "NVML: nvmlInit: Driver Not Loaded"}; },
       {"error|nvml|NVML: nvmlInit: Driver Not Loaded|see that the driver is loaded and as old as "
        "its libraries (nvidia-smi), or declare the devices in the settings"}},
      {[](DoctorFacts& f) { f.inventory = {}; },
       {"error|nvml|NVML reports no device|see that this node, or this container, is given a "
        "GPU"}},
      {[](DoctorFacts& f) { f.declared_devices = true; },
       {"note|nvml|not asked: the settings declare the devices|remove devices from the settings "
        "where there is NVML"}},
  });
}

TEST_CASE("devices that MPS can't run on, and why") {
  const auto first = [](DoctorFacts& f) -> Device& { return f.inventory.devices.front(); };
  check({
      {[first](DoctorFacts& f) {
         first(f).not_capable = "vGPU guest: MPS is not available in a virtual GPU";
       },
       {"warning|device gpu0|GPU-1, NVIDIA H200, 143771MiB, 132 SMs: vGPU guest: MPS is not "
        "available in a virtual GPU|MPS is the wrong tool for this device: use time-slicing, or "
        "another device"}},
      {[first](DoctorFacts& f) {
         first(f) = {
             .uuid = "GPU-6",
             .index = 0,
             .not_capable = "compute capability 6.1: MPS with limits needs 7.0 (Volta) or later"};
       },
       {"warning|device gpu0|GPU-6: compute capability 6.1: MPS with limits needs 7.0 (Volta) or "
        "later|MPS is the wrong tool for this device: use time-slicing, or another device"}},
      {[first](DoctorFacts& f) {
         first(f) = {
             .uuid = "GPU-1", .index = 0, .mig_enabled = true, .not_capable = "MIG is enabled"};
       },
       {"warning|device gpu0|GPU-1: MIG is enabled, and it has none|make MIG devices (nvidia-smi "
        "mig -cgi … -C), or disable MIG"}},
      {[first](DoctorFacts& f) {
         first(f) = {
             .uuid = "GPU-1", .index = 0, .mig_enabled = true, .not_capable = "MIG is enabled"};
         f.inventory.devices.push_back(
             {.uuid = "MIG-1", .kind = Kind::mig, .index = 0, .mig_index = 0});
       },
       {"note|device gpu0|GPU-1: MIG is enabled|use its MIG devices"}},
      {[first](DoctorFacts& f) {
         first(f) = {.uuid = "GPU-1",
                     .index = 0,
                     .compute_mode = ComputeMode::prohibited,
                     .not_capable = "compute mode is prohibited"};
       },
       {"warning|device gpu0|GPU-1: compute mode is prohibited|set it (nvidia-smi -i GPU-1 -c "
        "DEFAULT, or -c EXCLUSIVE_PROCESS)"}},
      {[first](DoctorFacts& f) { first(f).error = "NVML no longer reports it"; },
       {"error|device gpu0|GPU-1, NVIDIA H200, 143771MiB, 132 SMs: NVML no longer reports it|see "
        "what nvidia-smi and the kernel log (dmesg, \"NVRM: Xid\") say of it"}},
      {[first](DoctorFacts& f) { first(f).compute_mode = ComputeMode::default_mode; },
       {"note|compute mode gpu0|default: programs that do not go through MPS can use this GPU too, "
        "with no limits|set computeMode: exclusive in the settings to keep them out"}},
  });
}

TEST_CASE("the run directory") {
  check({
      {[](DoctorFacts& f) { f.run_dir.exists = false; },
       {"note|run directory|/run/mps does not exist: the supervisor makes it at its start|"}},
      {[](DoctorFacts& f) { f.run_dir.error = "/run/mps: Permission denied"; },
       {"error|run directory|/run/mps: Permission denied|run doctor as root"}},
      {[](DoctorFacts& f) { f.run_dir.is_directory = false; },
       {"error|run directory|/run/mps is no directory|remove it, or choose another runDir"}},
      {[](DoctorFacts& f) { f.run_dir.mode = 0700; },
       {"warning|run directory|/run/mps has mode 0700, and 0755 is what is needed|chmod 0755 "
        "/run/mps"}},
      {[](DoctorFacts& f) { f.run_dir.owner = 1000; },
       {"error|run directory|/run/mps belongs to uid 1000: that user could put other sockets in "
        "the place of ours|chown root /run/mps"}},
      {[](DoctorFacts& f) {
         f.run_dir.closed_parents = {{"/srv", 0750}};
       },
       {"error|run directory|users other than root cannot pass through /srv (mode 0750): their "
        "programs and MPS servers do not reach the control daemon|chmod o+x /srv, or choose "
        "another runDir"}},
      {[](DoctorFacts& f) { f.run_dir.noexec = true; },
       {"note|run directory|/run/mps is mounted noexec: programs in it cannot be run from "
        "containers that mount it|mount it without noexec where containers are to start programs "
        "from it"}},
      {[](DoctorFacts& f) { f.run_dir.free_bytes = 3 * k_mebibyte; },
       {"warning|space|/run/mps has 3MiB left|make room: the control daemons' output goes there"}},
      {[](DoctorFacts& f) { f.run_dir.free_inodes = 7; },
       {"warning|space|/run/mps has 7 inodes left|remove files: no socket can be made without "
        "one"}},
      {[](DoctorFacts& f) { f.run_dir.path = "/" + std::string(70, 'x'); }, {}},
      {[](DoctorFacts& f) { f.run_dir.path = "/" + std::string(73, 'x'); },
       {"error|socket paths|/" + std::string(73, 'x') +
        "/gpu0.shared/pipe/control_privileged has 110 bytes, and a unix socket's path at most "
        "107|choose a runDir of at most 71 bytes"}},
      {[](DoctorFacts& f) {
         f.run_dir.path = "/" + std::string(70, 'x');
         f.inventory.devices.push_back(
             {.uuid = "MIG-1", .kind = Kind::mig, .index = 0, .mig_index = 12});
       },
       {"error|socket paths|/" + std::string(70, 'x') +
        "/gpu0-mig12.shared/pipe/control_privileged has 113 bytes, and a unix socket's path at "
        "most 107|choose a runDir of at most 65 bytes"}},
  });
}

TEST_CASE("what others left on the node") {
  check({
      {[](DoctorFacts& f) { f.default_pipe_directory_exists = true; },
       {"note|default directory|/tmp/nvidia-mps exists: NVIDIA's container runtime mounts it into "
        "every GPU container|remove it where nothing needs it"}},
      {[](DoctorFacts& f) {
         f.default_pipe_directory_exists = f.default_control_socket_exists = true;
       },
       {"warning|default directory|/tmp/nvidia-mps holds a control socket: CUDA probes it in every "
        "process that has no CUDA_MPS_PIPE_DIRECTORY, and NVIDIA's container runtime mounts it "
        "into every GPU container|end the daemon that uses it, then remove /tmp/nvidia-mps"}},
      {[](DoctorFacts& f) {
         f.foreign_daemons = {{77, "/x\n"}};
       },
       {"warning|other daemons|nvidia-cuda-mps-control, pid 77, runs in /x\\x0a: it is not the "
        "supervisor's, and its limits are its own|end it where it is left over: echo quit | "
        "CUDA_MPS_PIPE_DIRECTORY=/x\\x0a nvidia-cuda-mps-control"}},
      {[](DoctorFacts& f) { f.unknown_daemons = 2; },
       {"note|other daemons|where 2 control daemons run can be seen by root alone: the "
        "supervisor's "
        "own are not told from others|run doctor as root"}},
      {[](DoctorFacts& f) { f.shared_memory.present = false; },
       {"error|shared memory|/dev/shm is missing: MPS servers and clients meet there|mount a tmpfs "
        "on /dev/shm"}},
      {[](DoctorFacts& f) { f.shared_memory.free_bytes = k_mebibyte; },
       {"warning|shared memory|/dev/shm has 1MiB left of 2GiB|enlarge it (mount -o "
        "remount,size=… /dev/shm), or remove what is left over in it"}},
      {[](DoctorFacts& f) {
         f.shared_memory.stale = {"a", "b", "c", "d"};
       },
       {"note|shared memory|4 left over from MPS servers that are gone: a, b, c, …|remove them "
        "from /dev/shm, unless another pid namespace shares it"}},
  });
}

TEST_CASE("limits, supervisor and kernel") {
  const std::string advice =
      "set LimitNOFILE=16384 or more in the supervisor's unit: its daemons, and their clients' "
      "connections, inherit it";
  check({
      {[](DoctorFacts& f) { f.open_files = 1024; },
       {"warning|open files|the supervisor may have only 1024 files open|" + advice}},
      {[](DoctorFacts& f) {
         f.open_files = 1024;
         f.open_files_of_supervisor = false;
       },
       {"note|open files|this shell may have only 1024 files open|" + advice}},
      {[](DoctorFacts& f) {
         f.supervisor_error = "/run/mps/supervisor.sock: No such file or directory";
       },
       {"warning|supervisor|/run/mps/supervisor.sock: No such file or directory|start it "
        "(systemctl start mps-supervisor), or name its socket with --socket"}},
      {[](DoctorFacts& f) { f.devices_out = {"GPU-1 is out of service"}; },
       {"error|out of service|GPU-1 is out of service|docs/operations.md says how (\"A device that "
        "is out of service\"); `mps-ctl restart INSTANCE --force` puts it back"}},
      {[](DoctorFacts& f) { f.pidfd = false; },
       {"error|kernel|kernel 6.1.0 has no pidfd that can be waited on|use Linux 5.4 or later, and "
        "a seccomp profile that allows pidfd_open"}},
      {[](DoctorFacts& f) { f.unix_diag = false; },
       {"note|kernel|kernel 6.1.0 does not tell of unix sockets' peers (unix_diag): who blocks a "
        "control daemon cannot be named|modprobe unix_diag"}},
  });
}

TEST_CASE("the process in the name of an MPS server's shared memory") {
  CHECK(pid_of_shared_memory("cuda.shm.0.1a2b.1") == 0x1a2b);
  CHECK(pid_of_shared_memory("cuda.shm.3e8.ff.10") == 255);
  for (const auto* name : {"cuda.shm.0.1a2b", "cuda.shm.0.1a2b.", "cuda.shm..1.1", "cuda.shm.0.0.1",
                           "cuda.shm.0.1.1x", "sem.cuda.shm.0.1.1", "cuda.shm.0.ffffffff.1", ""}) {
    CHECK_FALSE(pid_of_shared_memory(name).has_value());
  }
}

TEST_CASE("the report") {
  const Findings findings{{Severity::ok, "programs", "both", ""},
                          {Severity::warning, "open files", "few", "more"},
                          {Severity::error, "nvml", "none", ""}};
  CHECK(to_text(findings) ==
        "ok       programs    both\n"
        "warning  open files  few\n"
        "                     -> more\n"
        "error    nvml        none\n"
        "1 error, 1 warning, 0 notes\n");
  CHECK(to_json(findings)[1] == nlohmann::json{{"severity", "warning"},
                                               {"check", "open files"},
                                               {"message", "few"},
                                               {"advice", "more"}});
  CHECK(exit_status(findings) == 1);
  CHECK(exit_status({findings[0], findings[1]}) == 0);
  CHECK(to_json({}).dump() == "[]");
}

TEST_CASE("gathering: another root for what the node shows") {
  std::string name = (fs::temp_directory_path() / "mps-doctor-XXXXXX").string();
  REQUIRE(::mkdtemp(name.data()) != nullptr);
  const fs::path root = name;
  const auto write = [&root](const fs::path& file, const std::string& text) {
    fs::create_directories((root / file).parent_path());
    std::ofstream(root / file) << text;
  };
  const std::string control = "/usr/bin/nvidia-cuda-mps-control";
  const std::string nul(1, '\0');
  const auto ours = (root / "run/gpu0.shared/pipe").string();
  write("proc/driver/nvidia/version",
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.261.03  Thu Jun  5 2025\nGCC\n");
  write("proc/10/cmdline", control + nul + "-f" + nul);
  write("proc/10/environ", "CUDA_MPS_PIPE_DIRECTORY=" + ours + nul);
  write("proc/11/cmdline", control + nul + "-d" + nul);
  write("proc/11/environ", "HOME=/root" + nul);
  write("proc/12/cmdline", control + nul + "-multiuser-server" + nul + "-d" + nul);
  write("proc/12/environ", "CUDA_MPS_PIPE_DIRECTORY=" + (root / "run/../other").string() + nul);
  write("proc/13/cmdline", control + nul);
  // Gone meanwhile, and one that cannot be opened, which root meets only like this.
  write("proc/15/cmdline", control + nul + "-d" + nul);
  write("proc/16/cmdline", control + nul + "-d" + nul);
  fs::create_symlink("environ", root / "proc/16/environ");
  write("proc/14/limits",
        "Limit                     Soft Limit           Hard Limit           Units     \n"
        "Max open files            4096                 1048576              files     \n");
  write("shm/cuda.shm.0.a.1", "");
  write("shm/cuda.shm.0.7fffffff.1", "");  // no kernel gives so high a pid
  write("shm/cuda.shm.0." + hexadecimal(::getpid()) + ".1", "");
  write("shm/other", "");
  fs::create_directory(root / "run");
  ::chmod((root / "run").c_str(), 0750);

  DoctorOptions options{.run_dir = root / "run",
                        .library_path = {root / "nothing"},
                        .nvml_library = "libno-such-nvml.so.1",
                        .supervisor_pid = 14,
                        .proc = root / "proc",
                        .shared_memory = root / "shm",
                        .default_pipe_directory = root / "nvidia-mps"};
  auto facts = gather_facts(options);
  CHECK(facts.kernel_driver == "535.261.03");
  CHECK(facts.inventory.error ==
        "NVML: libno-such-nvml.so.1: cannot open shared object file: No such file or directory");
  REQUIRE(facts.foreign_daemons.size() == 2);
  CHECK(facts.foreign_daemons[0].pid == 11);
  CHECK_FALSE(facts.foreign_daemons[0].pipe_directory.has_value());
  CHECK(facts.foreign_daemons[1].pipe_directory == (root / "run/../other").string());
  CHECK(facts.unknown_daemons == 1);
  CHECK(facts.shared_memory.stale == std::vector<std::string>{"cuda.shm.0.7fffffff.1"});
  CHECK(facts.open_files == 4096);
  CHECK(facts.open_files_of_supervisor);
  CHECK(facts.run_dir.exists);
  CHECK(facts.run_dir.mode == 0750);
  CHECK(facts.run_dir.owner == ::geteuid());
  // mkdtemp makes it for its owner alone.
  REQUIRE_FALSE(facts.run_dir.closed_parents.empty());
  CHECK(facts.run_dir.closed_parents.front().path == root.string());
  CHECK(facts.run_dir.closed_parents.front().mode == 0700);
  CHECK(facts.run_dir.free_bytes.has_value());
  CHECK(facts.pidfd);
  CHECK_FALSE(facts.default_pipe_directory_exists);
  CHECK_FALSE(facts.kernel_release.empty());

  options.devices = std::vector<Device>{h200()};
  options.supervisor_pid.reset();
  options.run_dir = root / "none/at/all";
  facts = gather_facts(options);
  CHECK(facts.inventory.devices.size() == 1);
  CHECK(facts.declared_devices);
  CHECK_FALSE(facts.run_dir.exists);
  CHECK(facts.run_dir.error.empty());
  CHECK(facts.run_dir.free_bytes.has_value());
  CHECK(facts.open_files.has_value());
  CHECK_FALSE(facts.open_files_of_supervisor);
  CHECK_FALSE(run_doctor(options).empty());
  fs::remove_all(root);
}
