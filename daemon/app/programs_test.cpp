#include "app/programs.h"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <ostream>

namespace mps::app {
namespace {

namespace fs = std::filesystem;

class Folder {
 public:
  Folder() {
    std::string name = (fs::temp_directory_path() / "programs-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    root_ = name;
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() { fs::remove_all(root_); }

  std::string add(const std::string& folder, const std::string& program, mode_t mode = 0755) {
    fs::create_directories(root_ / folder);
    const auto file = root_ / folder / program;
    std::ofstream(file) << "#!/bin/sh\n";
    REQUIRE(chmod(file.c_str(), mode) == 0);
    return file.string();
  }
  std::string add_both(const std::string& folder) {
    add(folder, "nvidia-cuda-mps-control");
    add(folder, "nvidia-cuda-mps-server");
    return path(folder);
  }
  [[nodiscard]] std::string path(const std::string& folder) const {
    return (root_ / folder).string();
  }

 private:
  fs::path root_;
};

std::string folders_of(const Result<Programs>& programs) {
  if (!programs) return programs.error().message;
  return programs->control.parent_path().string() + " " + programs->server.parent_path().string();
}

DaemonPlace a_place() {
  DaemonPlace place;
  place.programs = {"/opt/n/bin/nvidia-cuda-mps-control", "/opt/n/sbin/nvidia-cuda-mps-server"};
  place.pipe_directory = "/run/mps/gpu0.shared/pipe";
  place.log_directory = "/run/mps/gpu0.shared/private";
  place.device = "GPU-1";
  return place;
}

TEST_CASE("the programs are taken from mpsPath, PATH and the usual folders, in this order") {
  Folder folder;
  const auto mine = folder.add_both("mine");
  const auto path = folder.add_both("path");
  const auto usual = folder.add_both("usual");
  const std::vector<std::string_view> usual_folders{usual};
  const Environment environment{"HOME=/", "PATH=/nowhere::" + path};

  CHECK(folders_of(find_programs({mine}, environment, usual_folders)) == mine + " " + mine);
  CHECK(folders_of(find_programs({}, environment, usual_folders)) == path + " " + path);
  CHECK(folders_of(find_programs({"/nowhere"}, environment, usual_folders)) == path + " " + path);
  CHECK(folders_of(find_programs({}, {}, usual_folders)) == usual + " " + usual);
}

TEST_CASE("the server is looked for beside its daemon before anywhere else") {
  Folder folder;
  const auto path = folder.add_both("path");
  folder.add("mine/bin", "nvidia-cuda-mps-control");
  folder.add("mine/sbin", "nvidia-cuda-mps-server");
  CHECK(folders_of(find_programs({folder.path("mine/bin")}, {"PATH=" + path}, {})) ==
        folder.path("mine/bin") + " " + folder.path("mine/sbin"));
}

TEST_CASE("what is missing is named with where it was looked for") {
  Folder folder;
  const auto empty = folder.path("empty");
  CHECK(folders_of(find_programs({empty}, {"PATH=/nowhere:" + empty}, {})) ==
        "nvidia-cuda-mps-control: not found in " + empty +
            ", /nowhere; install the MPS programs of the NVIDIA driver (Debian: nvidia-cuda-mps, "
            "Ubuntu: nvidia-compute-utils), or name their folder in mpsPath");

  folder.add("bin", "nvidia-cuda-mps-control");
  const auto bin = folder.path("bin");
  CHECK(folders_of(find_programs({bin}, {}, {})) ==
        "nvidia-cuda-mps-server: not found in " + bin + ", " + folder.path("sbin") +
            "; install the MPS programs of the NVIDIA driver (Debian: nvidia-cuda-mps, Ubuntu: "
            "nvidia-compute-utils), or name their folder in mpsPath");
}

TEST_CASE("a program that cannot be executed is not taken, and named") {
  Folder folder;
  const auto file = folder.add("mine", "nvidia-cuda-mps-control", 0644);
  CHECK(folders_of(find_programs({folder.path("mine")}, {}, {})) ==
        file +
            ": is there but cannot be executed; check its mode, and that its file system is not "
            "mounted noexec");
}

TEST_CASE("a daemon's environment is ours without what speaks to MPS or systemd") {
  const Environment inherited{"HOME=/root",
                              "TZ=Europe/Berlin",
                              "PATH=/usr/bin::/opt/n/bin",
                              "LD_LIBRARY_PATH=/lib/a:",
                              "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=10",
                              "CUDA_MPS_PIPE_DIRECTORY=/tmp/nvidia-mps",
                              "CUDA_VISIBLE_DEVICES=1",
                              "CUDA_DEVICE_ORDER=FASTEST_FIRST",
                              "NOTIFY_SOCKET=/run/systemd/notify",
                              "WATCHDOG_USEC=1",
                              "WATCHDOG_PID=1",
                              "LISTEN_FDS=1",
                              "JOURNAL_STREAM=8:1",
                              "LANG=de_DE.UTF-8",
                              "LANGUAGE=de",
                              "LC_TIME=de_DE",
                              "NVIDIA_DRIVER_CAPABILITIES=all",
                              "PATHS=kept"};
  auto place = a_place();
  place.library_path = {"/opt/n/lib", "/lib/a"};
  CHECK(daemon_environment(inherited, place) ==
        Environment{"HOME=/root", "TZ=Europe/Berlin", "NVIDIA_DRIVER_CAPABILITIES=all",
                    "PATHS=kept", "PATH=/opt/n/bin:/opt/n/sbin:/usr/bin",
                    "LD_LIBRARY_PATH=/opt/n/lib:/lib/a", "CUDA_VISIBLE_DEVICES=GPU-1",
                    "CUDA_MPS_PIPE_DIRECTORY=/run/mps/gpu0.shared/pipe",
                    "CUDA_MPS_LOG_DIRECTORY=/run/mps/gpu0.shared/private", "LANG=C", "LC_ALL=C"});
}

TEST_CASE("a daemon's environment from none at all") {
  CHECK(daemon_environment({}, a_place()) ==
        Environment{"PATH=/opt/n/bin:/opt/n/sbin", "CUDA_VISIBLE_DEVICES=GPU-1",
                    "CUDA_MPS_PIPE_DIRECTORY=/run/mps/gpu0.shared/pipe",
                    "CUDA_MPS_LOG_DIRECTORY=/run/mps/gpu0.shared/private", "LANG=C", "LC_ALL=C"});
}

TEST_CASE("the current environment is what getenv says") {
  const auto environment = current_environment();
  const char* path = getenv("PATH");
  if (path == nullptr) return;
  CHECK(std::count(environment.begin(), environment.end(), std::string("PATH=") + path) == 1);
}

}  // namespace
}  // namespace mps::app
