// fuzz_replay CORPUS ITERATIONS: runs each file of CORPUS/<target>/ through its target, and then
// ITERATIONS seeded mutations of them (fewer for a slow target), the same each time. Needs no
// fuzzer and no sanitizer, so that every build has it.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "targets.h"

namespace {

namespace fs = std::filesystem;

struct Target {
  const char* name;
  void (*run)(const std::uint8_t*, std::size_t);
  long cost;  // of one run: so many times fewer mutations
};

constexpr std::array<Target, 3> k_targets{{{"answers", mps::fuzz::answers, 1},
                                           {"log_line", mps::fuzz::log_line, 1},
                                           {"policy", mps::fuzz::policy, 10}}};

constexpr std::array<std::string_view, 22> k_words{"Unknown command \"end-of-1\"\n",
                                                   "Unknown command \"end-of-2\"\n",
                                                   "Cmd:",
                                                   "\n",
                                                   "{",
                                                   "}",
                                                   "NEW CLIENT ",
                                                   "Client {PID: 1, Context ID: 0} ",
                                                   "[2026-11-20 23:22:15.182 Control  3056] ",
                                                   "Server ",
                                                   " exited with status ",
                                                   "4294967296",
                                                   "-1",
                                                   "0x",
                                                   "\n---\n",
                                                   "\n  ",
                                                   "&a ",
                                                   "*a ",
                                                   "? ",
                                                   ": ",
                                                   "- ",
                                                   "\""};

std::vector<std::string> read_corpus(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) files.push_back(entry.path());
  // The order of a folder is chance; a seed shall mean the same everywhere.
  std::sort(files.begin(), files.end());
  std::vector<std::string> inputs;
  for (const auto& file : files) {
    std::ifstream in(file, std::ios::binary);
    inputs.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  return inputs;
}

void run(const Target& target, const std::string& input) {
  // A copy of exactly this size, so that a sanitizer sees a read past its end.
  const std::vector<std::uint8_t> bytes(input.begin(), input.end());
  target.run(bytes.data(), bytes.size());
}

class Mutator {
 public:
  explicit Mutator(const std::vector<std::string>& corpus) : corpus_(corpus) {}

  std::string next() {
    auto text = any_input();
    for (auto count = 1 + below(4); count > 0; --count) mutate(text);
    return text;
  }

 private:
  // std::uniform_int_distribution differs between libraries.
  std::size_t below(std::size_t limit) { return limit == 0 ? 0 : engine_() % limit; }
  const std::string& any_input() { return corpus_[below(corpus_.size())]; }

  void mutate(std::string& text) {
    const auto at = below(text.size() + 1);
    switch (below(5)) {
      case 0:
        if (at < text.size()) text[at] = static_cast<char>(below(256));
        break;
      case 1:
        text.erase(at, below(16));
        break;
      case 2:
        text.insert(at, k_words[below(k_words.size())]);
        break;
      case 3:
        text.insert(at, text.substr(below(text.size() + 1), below(64)));
        break;
      default:
        text.resize(at);
        text += any_input();
        break;
    }
  }

  const std::vector<std::string>& corpus_;
  std::mt19937_64 engine_{20261120};
};

void replay(const Target& target, const fs::path& corpus, long iterations) {
  const auto inputs = read_corpus(corpus / target.name);
  mps::fuzz::require(!inputs.empty(), "a corpus has files");
  for (const auto& input : inputs) run(target, input);
  Mutator mutator(inputs);
  const auto mutations = iterations / target.cost;
  for (long count = 0; count < mutations; ++count) run(target, mutator.next());
  std::cout << target.name << ": " << inputs.size() << " files, " << mutations << " mutations\n";
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: fuzz_replay CORPUS ITERATIONS\n";
    return 2;
  }
  try {
    for (const auto& target : k_targets) replay(target, argv[1], std::atol(argv[2]));
  } catch (const std::exception& error) {
    std::cerr << "fuzz_replay: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
