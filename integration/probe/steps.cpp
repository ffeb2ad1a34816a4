#include "steps.h"

#include <poll.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <sstream>
#include <thread>
#include <vector>

#include "json_line.h"
#include "kernels.h"

namespace mps::probe {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;
constexpr const char* k_spin = "mps_probe_spin";
constexpr milliseconds k_left_behind{10000};     // the kernel that a bad exit leaves running
constexpr milliseconds k_pause_after_error{10};  // between launches that fail at once

std::optional<std::int64_t> number(const std::string& word) {
  std::int64_t value = 0;
  const char* end = word.data() + word.size();
  const auto [rest, error] = std::from_chars(word.data(), end, value);
  if (error != std::errc{} || rest != end || value < 0 || value > 1'000'000'000) {
    return std::nullopt;
  }
  return value;
}

bool has_input() {
  pollfd input{STDIN_FILENO, POLLIN, 0};
  return ::poll(&input, 1, 0) > 0;
}

std::string printed(nanoseconds length) {
  char text[32] = {};
  (void)std::snprintf(text, sizeof text, "%.3f", static_cast<double>(length.count()) / 1e6);
  return text;
}

std::optional<Step> plain_step(const std::string& name) {
  if (name == "await") return Step{Step::Kind::k_await};
  if (name == "hang") return Step{Step::Kind::k_hang};
  if (name == "exit-badly") return Step{Step::Kind::k_exit_badly};
  if (name == "until-error") return Step{Step::Kind::k_until_error};
  if (name == "memory") return Step{Step::Kind::k_memory};
  return std::nullopt;
}

std::optional<Step> numbered_step(const std::string& name, std::int64_t value) {
  if (name == "launch") return Step{Step::Kind::k_launch, 0, value};
  if (name == "start") return Step{Step::Kind::k_start, 0, value};
  if (name == "until-error") return Step{Step::Kind::k_until_error, 0, value};
  if (name == "loop") return Step{Step::Kind::k_loop, value};
  if (name == "alloc") return Step{Step::Kind::k_allocate, value};
  return std::nullopt;
}

}  // namespace

std::optional<Step> parse_step(std::string_view line) {
  std::istringstream stream{std::string(line)};
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  if (words.size() == 1) return plain_step(words[0]);
  if (words.size() == 2 && words[0] == "fault") {
    if (words[1] != "trap" && words[1] != "bad-address") return std::nullopt;
    return Step{Step::Kind::k_fault, 0, 0, words[1] == "trap"};
  }
  const auto first = words.size() >= 2 ? number(words[1]) : std::nullopt;
  if (!first) return std::nullopt;
  if (words.size() == 2) return numbered_step(words[0], *first);
  const auto second = number(words[2]);
  if (!second || words.size() != 3 || words[0] != "loop") return std::nullopt;
  return Step{Step::Kind::k_loop, *first, *second};
}

void Prober::report(const char* step, const Outcome& outcome) const {
  JsonLine line;
  line.text("step", step).text("call", outcome.call).number("result", outcome.result);
  line.text("name", outcome.result == k_missing ? "missing" : cuda_.name_of(outcome.result));
  line.print();
}

Prober::Outcome Prober::launch(const char* kernel, nanoseconds how_long) {
  int result = 0;
  if (module_ == nullptr) {
    const void* image = k_kernels;
    result = cuda_.call("cuModuleLoadData", &module_, image);
    if (result != 0) return {"cuModuleLoadData", result};
  }
  void* function = nullptr;
  result = cuda_.call("cuModuleGetFunction", &function, module_, kernel);
  if (result != 0) return {"cuModuleGetFunction", result};
  auto length = static_cast<std::uint64_t>(how_long.count());
  void* parameters[] = {&length};
  void** const no_extra = nullptr;
  void* const default_stream = nullptr;
  void** const given = kernel == k_spin ? parameters : nullptr;
  result = cuda_.call("cuLaunchKernel", function, 1U, 1U, 1U, 1U, 1U, 1U, 0U, default_stream, given,
                      no_extra);
  return {"cuLaunchKernel", result};
}

Prober::Outcome Prober::synchronize() {
  return {"cuCtxSynchronize", cuda_.call("cuCtxSynchronize")};
}

Prober::Outcome Prober::launch_and_wait(const char* kernel, nanoseconds how_long) {
  const Outcome outcome = launch(kernel, how_long);
  return outcome.result == 0 ? synchronize() : outcome;
}

void Prober::loop(const Step& step) {
  const bool to_error = step.kind == Step::Kind::k_until_error;
  std::optional<int> before;
  for (std::int64_t launches = 1; to_error || step.number == 0 || launches <= step.number;
       ++launches) {
    const Outcome outcome = launch_and_wait(k_spin, milliseconds(step.milliseconds));
    if (outcome.result != before) {
      JsonLine()
          .text("step", to_error ? "until-error" : "loop")
          .number("launches", launches)
          .text("call", outcome.call)
          .number("result", outcome.result)
          .text("name", cuda_.name_of(outcome.result))
          .print();
    }
    before = outcome.result;
    if (to_error && outcome.result != 0) return;
    if (input_ends_loops_ && has_input()) return;
    if (outcome.result != 0) std::this_thread::sleep_for(k_pause_after_error);
  }
}

void Prober::allocate(const Step& step) {
  std::uint64_t address = 0;
  const auto size = static_cast<std::size_t>(step.number) << 20U;
  report("alloc", {"cuMemAlloc_v2", cuda_.call("cuMemAlloc_v2", &address, size)});
}

void Prober::tell_memory() {
  std::size_t free_bytes = 0;
  std::size_t total_bytes = 0;
  const int result = cuda_.call("cuMemGetInfo_v2", &free_bytes, &total_bytes);
  JsonLine()
      .text("step", "memory")
      .text("call", "cuMemGetInfo_v2")
      .number("result", result)
      .text("name", cuda_.name_of(result))
      .number("free", static_cast<std::int64_t>(free_bytes))
      .number("total", static_cast<std::int64_t>(total_bytes))
      .print();
}

void Prober::run(const Step& step) {
  const milliseconds length(step.milliseconds);
  switch (step.kind) {
    case Step::Kind::k_launch: {
      const auto began = std::chrono::steady_clock::now();
      const Outcome outcome = launch_and_wait(k_spin, length);
      const nanoseconds took = std::chrono::steady_clock::now() - began;
      JsonLine()
          .text("step", "launch")
          .text("call", outcome.call)
          .number("result", outcome.result)
          .text("name", outcome.result == k_missing ? "missing" : cuda_.name_of(outcome.result))
          .raw("milliseconds", printed(took))
          .print();
      return;
    }
    case Step::Kind::k_start:
      return report("start", launch(k_spin, length));
    case Step::Kind::k_await:
      return report("await", synchronize());
    case Step::Kind::k_fault:
      return report("fault",
                    launch_and_wait(step.traps ? "mps_probe_trap" : "mps_probe_bad_address", {}));
    case Step::Kind::k_hang:
      report("hang", launch("mps_probe_hang", {}));
      return report("hang-ended", synchronize());
    case Step::Kind::k_exit_badly:
      report("exit-badly", launch(k_spin, k_left_behind));
      ::_exit(0);
    case Step::Kind::k_loop:
    case Step::Kind::k_until_error:
      return loop(step);
    case Step::Kind::k_allocate:
      return allocate(step);
    case Step::Kind::k_memory:
      return tell_memory();
  }
}

}  // namespace mps::probe
