// mps-probe: a small CUDA driver-API program that needs no toolkit. It loads libcuda.so.1, becomes
// a client, says what it sees as one line of JSON, and stays as long as it is told to. So it is a
// client of the real control daemon even without a GPU (cuInit is 805 then), and of the simulator.
#include <dlfcn.h>
#include <poll.h>
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

namespace {

constexpr int k_usage = 2;
constexpr int k_no_library = 3;
constexpr int k_multiprocessor_count = 16;
constexpr std::uint64_t k_mebibyte = 1024ULL * 1024ULL;

struct Options {
  std::chrono::milliseconds hold{0};
  bool hold_until_stdin_closes = false;
  bool look_at_end = false;
  std::optional<std::uint64_t> allocate_mebibytes;
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
  int context = -1;
  std::optional<int> allocation;
};

class Cuda {
 public:
  Cuda() : library_(::dlopen("libcuda.so.1", RTLD_NOW)) {}
  [[nodiscard]] bool is_loaded() const { return library_ != nullptr; }

  // -1 where this libcuda has no such function.
  template <typename... Arguments>
  int call(const char* name, Arguments... arguments) const {
    using Function = int (*)(Arguments...);
    const auto function = reinterpret_cast<Function>(::dlsym(library_, name));
    return function == nullptr ? -1 : function(arguments...);
  }

 private:
  void* library_;  // never closed: the real one does not like it
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

void look_at_device(const Cuda& cuda, Finding& finding) {
  int device = 0;
  if (cuda.call("cuDeviceGet", &device, 0) != 0) return;
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
  finding.context = cuda.call("cuCtxCreate_v2", &context, 0U, 0);
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
  }
}

Finding look(const Cuda& cuda, const Options& options) {
  Finding finding;
  const auto began = std::chrono::steady_clock::now();
  finding.init = cuda.call("cuInit", 0U);
  finding.init_took = std::chrono::duration_cast<std::chrono::microseconds>(
      std::chrono::steady_clock::now() - began);
  const char* name = nullptr;
  if (cuda.call("cuGetErrorName", finding.init, &name) == 0 && name != nullptr) {
    finding.init_name = name;
  }
  if (finding.init != 0 || cuda.call("cuDeviceGetCount", &finding.devices) != 0) return finding;
  if (finding.devices == 0) return finding;
  look_at_device(cuda, finding);
  use_memory(cuda, options, finding);
  return finding;
}

std::string quoted(std::string_view text) {
  std::string result = "\"";
  for (const char letter : text) {
    if (letter == '"' || letter == '\\') result += '\\';
    result += letter >= ' ' ? letter : '?';
  }
  return result + "\"";
}

void print(const Finding& finding) {
  std::string line = "{\"pid\": " + std::to_string(::getpid());
  line += ", \"uid\": " + std::to_string(::getuid());
  line += ", \"cuInit\": " + std::to_string(finding.init);
  line += ", \"cuInitMicroseconds\": " + std::to_string(finding.init_took.count());
  line += ", \"cuInitName\": " + quoted(finding.init_name);
  line += ", \"devices\": " + std::to_string(finding.devices);
  line += ", \"name\": " + quoted(finding.name);
  line += ", \"uuid\": " + quoted(finding.uuid);
  line += ", \"smCount\": " + std::to_string(finding.multiprocessors);
  line += ", \"memTotal\": " + std::to_string(finding.memory_total);
  line += ", \"memFree\": " + std::to_string(finding.memory_free);
  line += ", \"cuCtxCreate\": " + std::to_string(finding.context);
  line += ", \"cuMemAlloc\": ";
  line += finding.allocation ? std::to_string(*finding.allocation) : "null";
  (void)std::puts((line + "}").c_str());
  (void)std::fflush(stdout);
}

// Whether its context is good still, once more as a line of JSON.
void print_end(const Cuda& cuda) {
  std::size_t free_bytes = 0;
  std::size_t total_bytes = 0;
  const int result = cuda.call("cuMemGetInfo_v2", &free_bytes, &total_bytes);
  (void)std::puts(("{\"cuMemGetInfo\": " + std::to_string(result) + "}").c_str());
  (void)std::fflush(stdout);
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

std::optional<Options> read_options(int count, char** words) {
  Options options;
  for (int index = 1; index < count; ++index) {
    const std::string_view word = words[index];
    if (word == "--hold-until-stdin-closes" || word == "--look-at-end") {
      auto& option =
          word == "--look-at-end" ? options.look_at_end : options.hold_until_stdin_closes;
      option = true;
      continue;
    }
    const auto value = index + 1 < count ? number(words[++index]) : std::nullopt;
    if (!value) return std::nullopt;
    if (word == "--hold") {
      options.hold = std::chrono::milliseconds(static_cast<long>(*value * 1000));
    } else if (word == "--alloc") {
      options.allocate_mebibytes = static_cast<std::uint64_t>(*value);
    } else {
      return std::nullopt;
    }
  }
  return options;
}

}  // namespace

int main(int count, char** words) {
  const auto options = read_options(count, words);
  if (!options) {
    (void)std::fputs(
        "usage: mps-probe [--alloc MIB] [--hold SECONDS] [--hold-until-stdin-closes] "
        "[--look-at-end]\n",
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
  std::this_thread::sleep_for(options->hold);
  if (options->hold_until_stdin_closes) wait_for_end_of_input();
  if (options->look_at_end) print_end(cuda);
  return finding.init == 0 ? 0 : 1;
}
