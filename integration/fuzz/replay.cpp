// fuzz_replay CORPUS ITERATIONS: runs each file of CORPUS/<target>/ through its target, and then
// ITERATIONS seeded mutations of them (fewer for a slow target), the same each time. Needs no
// fuzzer and no sanitizer, so that every build has it.
// fuzz_replay CORPUS TARGET SECONDS [SEED]: mutations of one target's corpus for so long; without a
// seed another one each time, which is printed.
#include <algorithm>
#include <array>
#include <chrono>
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

constexpr std::uint64_t k_seed = 20261120;

constexpr std::array<Target, 5> k_targets{{{"admission", mps::fuzz::admission, 10},
                                           {"answers", mps::fuzz::answers, 1},
                                           {"gate", mps::fuzz::gate, 10},
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
  Mutator(const std::vector<std::string>& corpus, std::uint64_t seed)
      : corpus_(corpus), engine_(seed) {}

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
  std::mt19937_64 engine_;
};

std::vector<std::string> run_corpus(const Target& target, const fs::path& corpus) {
  auto inputs = read_corpus(corpus / target.name);
  mps::fuzz::require(!inputs.empty(), "a corpus has files");
  for (const auto& input : inputs) run(target, input);
  return inputs;
}

void replay(const Target& target, const fs::path& corpus, long iterations) {
  const auto inputs = run_corpus(target, corpus);
  Mutator mutator(inputs, k_seed);
  const auto mutations = iterations / target.cost;
  for (long count = 0; count < mutations; ++count) run(target, mutator.next());
  std::cout << target.name << ": " << inputs.size() << " files, " << mutations << " mutations\n";
}

void replay_for(const Target& target, const fs::path& corpus, std::chrono::seconds duration,
                std::uint64_t seed) {
  std::cout << target.name << ": seed " << seed << std::endl;
  const auto inputs = run_corpus(target, corpus);
  Mutator mutator(inputs, seed);
  const auto end = std::chrono::steady_clock::now() + duration;
  long count = 0;
  for (; std::chrono::steady_clock::now() < end; ++count) {
    const auto input = mutator.next();
    // What ends the process shall leave what did it.
    std::ofstream("fuzz_replay.last", std::ios::binary) << input;
    run(target, input);
  }
  std::cout << target.name << ": " << inputs.size() << " files, " << count << " mutations\n";
}

const Target& find_target(std::string_view name) {
  const auto* const found = std::find_if(k_targets.begin(), k_targets.end(),
                                         [&](const Target& target) { return target.name == name; });
  mps::fuzz::require(found != k_targets.end(), "no such target");
  return *found;
}

std::uint64_t any_seed() {
  std::random_device random;
  return (std::uint64_t{random()} << 32) | random();
}

void run(int argc, char** argv) {
  if (argc == 3) {
    for (const auto& target : k_targets) replay(target, argv[1], std::atol(argv[2]));
    return;
  }
  replay_for(find_target(argv[2]), argv[1], std::chrono::seconds(std::atol(argv[3])),
             argc == 5 ? std::strtoull(argv[4], nullptr, 10) : any_seed());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3 || argc > 5) {
    std::cerr << "usage: fuzz_replay CORPUS ITERATIONS\n"
                 "       fuzz_replay CORPUS TARGET SECONDS [SEED]\n";
    return 2;
  }
  try {
    run(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "fuzz_replay: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
