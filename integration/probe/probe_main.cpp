// mps-probe: a small CUDA driver-API program that needs no toolkit. It loads libcuda.so.1, becomes
// a client, says what it sees as one line of JSON, does what it is told to (steps.h), and stays as
// long as it is told to. So it is a client of the real control daemon even without a GPU (cuInit is
// 805 then), of the simulator, and of a GPU.
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "cuda.h"
#include "json_line.h"
#include "steps.h"

namespace {

using namespace mps::probe;  // NOLINT: this file is that namespace's program

constexpr int k_usage = 2;
constexpr int k_no_library = 3;
constexpr int k_multiprocessor_count = 16;
constexpr std::uint64_t k_mebibyte = 1024ULL * 1024ULL;

struct Options {
  std::chrono::milliseconds hold{0};
  bool hold_until_stdin_closes = false;
  bool look_at_end = false;
  std::optional<std::uint64_t> allocate_mebibytes;
  std::vector<Step> steps;
  int device = 0;         // its ordinal
  bool commands = false;  // more steps from stdin
  bool context_on_input = false;
};

struct Finding {
  int init = -1;
  std::chrono::microseconds init_took{};
  std::string init_name;
  int devices = 0;
  std::string name;
  std::string uuid;
  int multiprocessors = 0;
  std::uint64_t memory_total = 0;
  std::uint64_t memory_free = 0;
  std::uint64_t memory_limit = 0;  // what its context may have of the total
  int context = -1;
  std::optional<int> allocation;
};

std::string printed_uuid(const std::array<unsigned char, 16>& bytes) {
  std::string text = "GPU-";
  for (std::size_t index = 0; index < bytes.size(); ++index) {
    std::array<char, 4> digits{};
    (void)std::snprintf(digits.data(), digits.size(), "%02x", static_cast<unsigned>(bytes[index]));
    if (index == 4 || index == 6 || index == 8 || index == 10) text += '-';
    text += digits.data();
  }
  return text;
}

void look_at_device(const Cuda& cuda, int ordinal, Finding& finding) {
  int device = 0;
  if (cuda.call("cuDeviceGet", &device, ordinal) != 0) return;
  std::array<char, 128> name{};
  (void)cuda.call("cuDeviceGetName", name.data(), static_cast<int>(name.size()), device);
  finding.name = name.data();
  std::array<unsigned char, 16> uuid{};
  void* const uuid_bytes = uuid.data();
  if (cuda.call("cuDeviceGetUuid", uuid_bytes, device) == 0) finding.uuid = printed_uuid(uuid);
  (void)cuda.call("cuDeviceGetAttribute", &finding.multiprocessors, k_multiprocessor_count, device);
  std::size_t total = 0;
  (void)cuda.call("cuDeviceTotalMem_v2", &total, device);
  finding.memory_total = total;
}

void use_memory(const Cuda& cuda, const Options& options, Finding& finding) {
  void* context = nullptr;
  finding.context = cuda.call("cuCtxCreate_v2", &context, 0U, options.device);
  if (finding.context != 0) return;
  if (options.allocate_mebibytes) {
    std::uint64_t address = 0;
    const std::size_t size = *options.allocate_mebibytes * k_mebibyte;
    finding.allocation = cuda.call("cuMemAlloc_v2", &address, size);
  }
  std::size_t free_bytes = 0;
  std::size_t total_bytes = 0;
  if (cuda.call("cuMemGetInfo_v2", &free_bytes, &total_bytes) == 0) {
    finding.memory_free = free_bytes;
    finding.memory_limit = total_bytes;
  }
}

// A line of stdin without its end, byte by byte, so that a loop sees what is still to be read.
std::optional<std::string> read_line() {
  constexpr std::size_t k_longest = 256;
  std::string line;
  for (char letter = 0; ::read(STDIN_FILENO, &letter, 1) == 1;) {
    if (letter == '\n') return line;
    if (line.size() < k_longest) line += letter;
  }
  return line.empty() ? std::nullopt : std::optional(line);
}

// Between the two, whoever runs the probe can change what a client may have.
void wait_before_context(const Finding& finding) {
  JsonLine().number("pid", ::getpid()).number("cuInit", finding.init).print();
  (void)read_line();
}

Finding look(const Cuda& cuda, const Options& options) {
  Finding finding;
  const auto began = std::chrono::steady_clock::now();
  finding.init = cuda.call("cuInit", 0U);
  finding.init_took = std::chrono::duration_cast<std::chrono::microseconds>(
      std::chrono::steady_clock::now() - began);
  finding.init_name = cuda.name_of(finding.init);
  if (options.context_on_input) wait_before_context(finding);
  if (finding.init != 0 || cuda.call("cuDeviceGetCount", &finding.devices) != 0) return finding;
  if (finding.devices == 0) return finding;
  look_at_device(cuda, options.device, finding);
  use_memory(cuda, options, finding);
  return finding;
}

void print(const Finding& finding) {
  JsonLine()
      .number("pid", ::getpid())
      .number("uid", ::getuid())
      .number("cuInit", finding.init)
      .number("cuInitMicroseconds", finding.init_took.count())
      .text("cuInitName", finding.init_name)
      .number("devices", finding.devices)
      .text("name", finding.name)
      .text("uuid", finding.uuid)
      .number("smCount", finding.multiprocessors)
      .number("memTotal", static_cast<std::int64_t>(finding.memory_total))
      .number("memFree", static_cast<std::int64_t>(finding.memory_free))
      .number("cuCtxCreate", finding.context)
      .raw("cuMemAlloc", finding.allocation ? std::to_string(*finding.allocation) : "null")
      .number("memLimit", static_cast<std::int64_t>(finding.memory_limit))
      .print();
}

// Whether its context is good still, once more as a line of JSON.
void print_end(const Cuda& cuda) {
  std::size_t free_bytes = 0;
  std::size_t total_bytes = 0;
  const int result = cuda.call("cuMemGetInfo_v2", &free_bytes, &total_bytes);
  JsonLine().number("cuMemGetInfo", result).print();
}

void run_steps(const Cuda& cuda, const Options& options) {
  Prober prober(cuda, options.commands || options.hold_until_stdin_closes);
  for (const Step& step : options.steps) prober.run(step);
  if (!options.commands) return;
  while (const auto line = read_line()) {
    const auto step = parse_step(*line);
    if (step) {
      prober.run(*step);
    } else {
      JsonLine().text("unknownStep", *line).print();
    }
  }
}

void wait_for_end_of_input() {
  std::array<char, 256> ignored{};
  while (::read(STDIN_FILENO, ignored.data(), ignored.size()) > 0) {
  }
}

std::optional<double> number(const char* text) {
  char* rest = nullptr;
  const double value = std::strtod(text, &rest);
  if (rest == text || *rest != '\0' || value < 0 || value > 1e9) return std::nullopt;
  return value;
}

// The options without a value; false where it is none of them.
bool read_switch(std::string_view word, Options& options) {
  if (word == "--hold-until-stdin-closes") return options.hold_until_stdin_closes = true;
  if (word == "--look-at-end") return options.look_at_end = true;
  if (word == "--commands") return options.commands = true;
  if (word == "--context-on-input") return options.context_on_input = true;
  if (word != "--hang" && word != "--exit-badly" && word != "--until-error") return false;
  options.steps.push_back(*parse_step(word.substr(2)));
  return true;
}

bool read_value(std::string_view word, const char* value, Options& options) {
  if (word == "--fault" || word == "--loop" || word == "--launch-ms") {
    const std::string_view name = word == "--launch-ms" ? "launch" : word.substr(2);
    const auto step = parse_step(std::string(name) + " " + value);
    if (step) options.steps.push_back(*step);
    return step.has_value();
  }
  const auto given = number(value);
  if (!given) return false;
  if (word == "--hold") {
    options.hold = std::chrono::milliseconds(static_cast<long>(*given * 1000));
  } else if (word == "--device") {
    options.device = static_cast<int>(*given);
  } else if (word == "--alloc") {
    options.allocate_mebibytes = static_cast<std::uint64_t>(*given);
  } else {
    return false;
  }
  return true;
}

// With a loop, --launch-ms says how long each of its kernels is and is no step of its own.
void join_loops(Options& options) {
  std::optional<std::int64_t> length;
  bool has_loop = false;
  for (const Step& step : options.steps) {
    if (step.kind == Step::Kind::k_launch) length = step.milliseconds;
    has_loop =
        has_loop || step.kind == Step::Kind::k_loop || step.kind == Step::Kind::k_until_error;
  }
  if (!has_loop || !length) return;
  std::erase_if(options.steps, [](const Step& step) { return step.kind == Step::Kind::k_launch; });
  for (Step& step : options.steps) step.milliseconds = *length;
}

std::optional<Options> read_options(int count, char** words) {
  Options options;
  for (int index = 1; index < count; ++index) {
    if (read_switch(words[index], options)) continue;
    if (index + 1 >= count || !read_value(words[index], words[index + 1], options)) {
      return std::nullopt;
    }
    ++index;
  }
  join_loops(options);
  return options;
}

}  // namespace

int main(int count, char** words) {
  const auto options = read_options(count, words);
  if (!options) {
    (void)std::fputs(
        "usage: mps-probe [--device N] [--alloc MIB] [--launch-ms MS] [--loop COUNT] "
        "[--until-error]\n"
        "                 [--fault bad-address|trap] [--hang] [--exit-badly] [--commands]\n"
        "                 [--hold SECONDS] [--hold-until-stdin-closes] [--look-at-end]\n"
        "                 [--context-on-input]\n",
        stderr);
    return k_usage;
  }
  const Cuda cuda;
  if (!cuda.is_loaded()) {
    const char* reason = ::dlerror();  // NOLINT(concurrency-mt-unsafe): one thread
    (void)std::fprintf(stderr, "mps-probe: %s\n", reason != nullptr ? reason : "no libcuda.so.1");
    return k_no_library;
  }
  const Finding finding = look(cuda, *options);
  print(finding);
  if (finding.init == 0) run_steps(cuda, *options);
  std::this_thread::sleep_for(options->hold);
  if (options->hold_until_stdin_closes) wait_for_end_of_input();
  if (options->look_at_end) print_end(cuda);
  return finding.init == 0 ? 0 : 1;
}
