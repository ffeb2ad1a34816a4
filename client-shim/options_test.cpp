#include "options.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace mps::client;

namespace {

struct Line {
  Options options;
  Text<256> error;
  bool good = false;
  std::vector<std::string> words;
  std::vector<char*> pointers;

  explicit Line(std::vector<std::string> arguments) : words(std::move(arguments)) {
    words.insert(words.begin(), "mps-run");
    for (auto& word : words) pointers.push_back(word.data());
    pointers.push_back(nullptr);
    good = read_options(static_cast<int>(words.size()), pointers.data(), options, error);
  }
  [[nodiscard]] std::string command() const {
    std::string text;
    for (char* const* word = options.command; *word != nullptr; ++word) {
      text += (text.empty() ? "" : " ") + std::string(*word);
    }
    return text;
  }
};

}  // namespace

TEST_CASE("a command, and what is said before it") {
  const Line plain({"--", "nbody", "-n", "5"});
  REQUIRE(plain.good);
  CHECK(plain.command() == "nbody -n 5");
  CHECK(plain.options.wait_ms == 0);
  CHECK_FALSE(plain.options.run_without_mps);

  const Line full({"--device", "0", "--wait=30s", "--grace", "2s", "--on-refusal=run-without-mps",
                   "--guard", "nbody", "--wait", "x"});
  REQUIRE(full.good);
  CHECK(full.command() == "nbody --wait x");
  CHECK(std::string(full.options.device) == "0");
  CHECK(full.options.wait_ms == 30'000);
  CHECK(full.options.grace_ms == 2000);
  CHECK(full.options.run_without_mps);
  CHECK(full.options.guard);

  CHECK(Line({"--", "--wait"}).command() == "--wait");
  CHECK(Line({"-"}).command() == "-");
  CHECK(Line({"--help"}).options.help);
  CHECK(Line({"--version"}).options.version);
}

TEST_CASE("what is wrong is said with its word") {
  const auto error = [](std::vector<std::string> words) {
    const Line line(std::move(words));
    CHECK_FALSE(line.good);
    return std::string(line.error.c_str());
  };
  CHECK(error({}) == "no command; see mps-run --help");
  CHECK(error({"--guard", "--"}) == "no command; see mps-run --help");
  CHECK(error({"--gard", "x"}) == "unknown option --gard; see mps-run --help");
  CHECK(error({"--guard=yes", "x"}) == "unknown option --guard=yes; see mps-run --help");
  CHECK(error({"--wait"}) == "--wait needs a value");
  CHECK(error({"--device", ""}) == "--device is empty");
  CHECK(error({"--wait", "5", "x"}) ==
        "--wait: must be as 500ms, 30s, 5m or 2h, at most 24h: \"5\"");
  CHECK(error({"--grace=1d", "x"}) ==
        "--grace: must be as 500ms, 30s, 5m or 2h, at most 24h: \"1d\"");
  CHECK(error({"--on-refusal=run", "x"}) ==
        "--on-refusal: must be fail or run-without-mps: \"run\"");
}
