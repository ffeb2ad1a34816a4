#include "device/compute_mode_ledger.h"

#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

using namespace mps::device;
namespace fs = std::filesystem;

namespace {

class Folder {
 public:
  Folder() {
    std::string name = (fs::temp_directory_path() / "mps-ledger-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~Folder() { fs::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  [[nodiscard]] fs::path file() const { return path_ / "compute-modes.json"; }

 private:
  fs::path path_;
};

std::string read(const fs::path& file) {
  std::ifstream stream(file);
  return {std::istreambuf_iterator<char>(stream), {}};
}

void write(const fs::path& file, const std::string& text) {
  std::ofstream(file) << text;
}

}  // namespace

TEST_CASE("a compute mode is remembered over a crash until it was put back") {
  const Folder folder;
  {
    auto ledger = ComputeModeLedger::open(folder.file()).value();
    CHECK(ledger.original().empty());
    REQUIRE(ledger.remember("GPU-1", ComputeMode::default_mode).has_value());
    REQUIRE(ledger.remember("GPU-2", ComputeMode::prohibited).has_value());
    // Ours, found on a second start: the first value is the one from before us.
    REQUIRE(ledger.remember("GPU-1", ComputeMode::exclusive_process).has_value());
  }
  auto ledger = ComputeModeLedger::open(folder.file()).value();
  CHECK(ledger.original() ==
        std::map<std::string, ComputeMode>{{"GPU-1", ComputeMode::default_mode},
                                           {"GPU-2", ComputeMode::prohibited}});
  REQUIRE(ledger.forget("GPU-2").has_value());
  REQUIRE(ledger.forget("GPU-9").has_value());
  CHECK(read(folder.file()) == "{\n  \"GPU-1\": \"default\"\n}\n");
  REQUIRE(ledger.forget("GPU-1").has_value());
  CHECK(ComputeModeLedger::open(folder.file()).value().original().empty());
}

TEST_CASE("a ledger that cannot be read is an error and stays as it is") {
  const Folder folder;
  const auto name = folder.file().string();
  const std::string advice =
      "; it says which compute modes to put back: mend it, or remove it to leave them as they are";
  write(folder.file(), "rubbish");
  CHECK(ComputeModeLedger::open(folder.file()).error().message ==
        name + ": is no JSON object" + advice);
  CHECK(read(folder.file()) == "rubbish");
  write(folder.file(), R"({"GPU-1": "fast"})");
  CHECK(ComputeModeLedger::open(folder.file()).error().message ==
        name + ": no compute mode: \"fast\"" + advice);
  write(folder.file(), std::string(1024UL * 1024 + 10, ' '));
  CHECK(ComputeModeLedger::open(folder.file()).error().message ==
        name + ": too large for what it should hold");
  fs::remove(folder.file());
  fs::create_directory(folder.file());
  CHECK(ComputeModeLedger::open(folder.file()).error().message == name + ": Is a directory");
}

TEST_CASE("what could not be written is not remembered") {
  const Folder folder;
  const auto missing = folder.file().parent_path() / "missing" / "compute-modes.json";
  auto ledger = ComputeModeLedger::open(missing).value();
  const auto done = ledger.remember("GPU-1", ComputeMode::default_mode);
  REQUIRE_FALSE(done.has_value());
  CHECK(done.error().message == missing.string() + ".new: No such file or directory");
  CHECK(ledger.original().empty());
}
