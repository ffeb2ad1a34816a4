#include "place.h"

#include <doctest/doctest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "device_search.h"

using namespace mps::client;
namespace fs = std::filesystem;

namespace {

struct Fixture {
  Fixture() {
    std::string name = (fs::temp_directory_path() / "mps-place-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    root = name;
    fs::create_directories(root / "share/pipe");
    fs::create_directories(root / "share/bin");
    std::ofstream(root / "share/admission.sock") << "";
  }
  ~Fixture() { fs::remove_all(root); }
  Fixture(const Fixture&) = delete;
  Fixture& operator=(const Fixture&) = delete;

  bool find(const std::string& file, const char* pipe = nullptr) {
    return find_place(file.c_str(), pipe, place);
  }

  fs::path root;
  Place place;
};

}  // namespace

TEST_CASE_FIXTURE(Fixture, "a program finds the share that it lies in") {
  REQUIRE(find(root / "share/bin/mps-run"));
  CHECK(place.folder.c_str() == (root / "share").string());
  CHECK(place.socket.c_str() == (root / "share/admission.sock").string());
  CHECK(place.pipe.c_str() == (root / "share/pipe").string());
}

TEST_CASE_FIXTURE(Fixture, "elsewhere the pipe directory tells") {
  CHECK_FALSE(find("/usr/bin/mps-run"));
  const auto pipe = (root / "share/pipe").string();
  CHECK(find("/usr/bin/mps-run", pipe.c_str()));
  CHECK(find("/usr/bin/mps-run", (pipe + "//").c_str()));
  CHECK(find_place(nullptr, pipe.c_str(), place));
  CHECK(place.folder.c_str() == (root / "share").string());
  // Somebody else's MPS has no admission.sock; and "pipe" is what the folder is called here.
  fs::create_directories(root / "other/pipe");
  fs::create_directories(root / "share/pope");
  CHECK_FALSE(find("mps-run", (root / "other/pipe").c_str()));
  CHECK_FALSE(find("mps-run", (root / "share/pope").c_str()));
  CHECK_FALSE(find("mps-run", ""));
  CHECK_FALSE(find("mps-run", "/"));
  CHECK_FALSE(find("mps-run", "pipe"));
}

TEST_CASE_FIXTURE(Fixture, "a share whose sockets' addresses are too long is none") {
  const auto deep = root / std::string(100, 'd');
  fs::create_directories(deep / "pipe");
  CHECK_FALSE(find(deep / "bin/mps-run"));
}

TEST_CASE("a device is meant by its number, its names or its UUID") {
  Agent agent;
  agent.instance.print("gpu1.shared");
  agent.share.print("s12");
  agent.device.print("GPU-2c7f1f9e-0000");
  agent.device_name.print("gpu1");
  for (const char* wanted :
       {"1", "gpu1", "gpu1.shared", "s12", "GPU-2c7f1f9e-0000", "gpu-2C7F", "GPU-2c7f1f9e"}) {
    CAPTURE(wanted);
    CHECK(is_meant(agent, wanted));
  }
  for (const char* wanted :
       {"0", "11", "01", "gpu", "gpu1.", "GPU-2c7", "GPU-2c7f1f9e-00001", "s1", "", "open"}) {
    CAPTURE(wanted);
    CHECK_FALSE(is_meant(agent, wanted));
  }
  agent.share.print("open");
  CHECK_FALSE(is_meant(agent, "open"));
}

TEST_CASE_FIXTURE(Fixture, "where no agent answers no device is found") {
  REQUIRE(find(root / "share/bin/mps-run"));
  Place found;
  Text<512> why;
  CHECK_FALSE(find_device(place, "gpu7", now_ms() + 2000, found, why));
  CHECK(why.c_str() == "no share of device \"gpu7\" answers beside " + (root / "share").string());
}
