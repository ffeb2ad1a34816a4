// The file, line by line (words are separated by blanks, a value may stand in "quotes"; a line that
// begins with # is a comment):
//
//   driver VERSION
//   gpu UUID [name=] [memory=MiB] [reserved=MiB] [cc=9.0] [sms=] [mode=default|exclusive-thread|
//            prohibited|exclusive-process] [mig=on|off] [vgpu=guest|none] [pci=]
//   mig UUID [name=] [memory=MiB] [reserved=MiB] [sms=] [place=]      of the gpu line above it
//   process UUID PID [memory=MiB] [mps=on|off]      uses this device; without memory= not told
//   process_size BYTES          how large entries of lists of processes are: 16, 24 or 32
//   fail ENTRY CODE [UUID]      the entry point returns CODE, for this device or for all
//   hang ENTRY                  the entry point does not return while this line stands
#include "inventory.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <mutex>
#include <sstream>

#include "base/text.h"

namespace mps::sim {

namespace {

constexpr std::array<std::string_view, 4> k_modes{"default", "exclusive-thread", "prohibited",
                                                  "exclusive-process"};

constexpr std::string_view k_default_inventory = R"(
gpu GPU-51300000-0000-4000-8000-000000000000
gpu GPU-51300000-0000-4000-8000-000000000001
gpu GPU-51300000-0000-4000-8000-000000000002 mig=on
mig MIG-51300000-0000-4000-8000-000000000020 memory=71424 sms=60
mig MIG-51300000-0000-4000-8000-000000000021 memory=35712 sms=32
)";

// Compute modes set where there is no file to keep them.
std::mutex g_modes_mutex;
std::map<std::string, unsigned>& modes_without_file() {
  static std::map<std::string, unsigned> modes;
  return modes;
}

std::vector<std::string> words_of(std::string_view line) {
  std::vector<std::string> words;
  std::string word;
  bool quoted = false;
  for (const char c : line) {
    if (c == '"') {
      quoted = !quoted;
    } else if (!quoted && (c == ' ' || c == '\t' || c == '\r')) {
      if (!word.empty()) words.push_back(std::exchange(word, {}));
    } else {
      word += c;
    }
  }
  if (!word.empty()) words.push_back(word);
  return words;
}

template <typename Number>
bool set_number(Number& target, std::string_view value) {
  const auto number = parse_number<Number>(value);
  if (number) target = *number;
  return number.has_value();
}

bool set_capability(SimDevice& device, std::string_view value) {
  const auto dot = value.find('.');
  return dot != std::string_view::npos && set_number(device.major, value.substr(0, dot)) &&
         set_number(device.minor, value.substr(dot + 1));
}

bool set_mode(SimDevice& device, std::string_view value) {
  const auto found = std::ranges::find(k_modes, value);
  if (found == k_modes.end()) return false;
  device.mode = static_cast<unsigned>(found - k_modes.begin());
  return true;
}

bool set_switch(bool& target, std::string_view value, std::string_view on, std::string_view off) {
  target = value == on;
  return value == on || value == off;
}

bool set_property(SimDevice& device, std::string_view word) {
  const auto equals = word.find('=');
  if (equals == std::string_view::npos) return false;
  const auto key = word.substr(0, equals);
  const auto value = word.substr(equals + 1);
  if (key == "name") return device.name = value, true;
  if (key == "pci") return device.pci = value, true;
  if (key == "memory") return set_number(device.memory_mebibytes, value);
  if (key == "reserved") return set_number(device.reserved_mebibytes, value);
  if (key == "sms") return set_number(device.sms, value);
  if (key == "place" && device.parent) return set_number(device.place, value);
  if (key == "cc") return set_capability(device, value);
  if (key == "mode") return set_mode(device, value);
  if (key == "mig") return set_switch(device.mig_enabled, value, "on", "off");
  if (key == "vgpu") return set_switch(device.vgpu_guest, value, "guest", "none");
  return false;
}

std::string pci_of(unsigned index) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "00000000:%02X:00.0", (index + 0x1BU) & 0xFFU);
  return text.data();
}

class Parser {
 public:
  // False where the line is not understood.
  bool take(const std::vector<std::string>& words) {
    if (words[0] == "driver" && words.size() == 2) return inventory_.driver = words[1], true;
    if (words[0] == "hang" && words.size() == 2) return inventory_.hangs.push_back(words[1]), true;
    if (words[0] == "fail") return take_failure(words);
    if (words[0] == "process" && words.size() >= 3) return take_process(words);
    if (words[0] == "process_size" && words.size() == 2) {
      return set_number(inventory_.process_size, words[1]);
    }
    if (words[0] == "gpu" && words.size() >= 2) return take_gpu(words);
    if (words[0] == "mig" && words.size() >= 2) return take_mig(words);
    return false;
  }

  SimInventory result() { return std::move(inventory_); }

 private:
  bool take_failure(const std::vector<std::string>& words) {
    if (words.size() != 3 && words.size() != 4) return false;
    const auto code = parse_number<int>(words[2]);
    if (!code) return false;
    inventory_.failures.push_back({words[1], *code, words.size() == 4 ? words[3] : ""});
    return true;
  }

  bool take_process(const std::vector<std::string>& words) {
    SimProcess process;
    process.uuid = words[1];
    if (!set_number(process.pid, words[2])) return false;
    for (std::size_t i = 3; i < words.size(); ++i) {
      const std::string_view word = words[i];
      if (word.starts_with("memory=")) {
        if (!set_number(process.memory_mebibytes.emplace(), word.substr(7))) return false;
      } else if (!word.starts_with("mps=") ||
                 !set_switch(process.mps, word.substr(4), "on", "off")) {
        return false;
      }
    }
    inventory_.processes.push_back(std::move(process));
    return true;
  }

  bool take_gpu(const std::vector<std::string>& words) {
    SimDevice device;
    device.place = gpus_;
    device.pci = pci_of(gpus_++);
    migs_ = 0;
    return add(std::move(device), words);
  }

  bool take_mig(const std::vector<std::string>& words) {
    const auto gpus = inventory_.gpus();
    if (gpus.empty()) return false;
    SimDevice device = *gpus.back();
    device.parent = gpus.back()->uuid;
    device.name = gpus.back()->name + " MIG";
    device.mig_enabled = false;
    device.place = migs_++;
    return add(std::move(device), words);
  }

  bool add(SimDevice device, const std::vector<std::string>& words) {
    device.uuid = words[1];
    for (std::size_t i = 2; i < words.size(); ++i) {
      if (!set_property(device, words[i])) return false;
    }
    inventory_.devices.push_back(std::move(device));
    return true;
  }

  SimInventory inventory_;
  unsigned gpus_ = 0;
  unsigned migs_ = 0;
};

const char* file_name() {
  const char* name = std::getenv("MPS_SIM_NVML");  // NOLINT(concurrency-mt-unsafe): never set here
  return name != nullptr && *name != '\0' ? name : nullptr;
}

Result<std::string> read_file(const std::string& name) {
  std::ifstream file(name);
  if (!file) return Error::from_errno(name, errno);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string with_mode(const std::string& text, const std::string& uuid, unsigned mode) {
  std::string result;
  for (const auto line : split_lines(text)) {
    const auto words = words_of(line);
    std::string changed(line);
    if (words.size() >= 2 && words[0] == "gpu" && words[1] == uuid) {
      if (const auto old = changed.find(" mode="); old != std::string::npos) {
        const auto end = changed.find_first_of(" \t\r", old + 1);
        changed.erase(old, end == std::string::npos ? end : end - old);
      }
      changed += " mode=" + std::string(k_modes.at(mode));
    }
    result += changed + "\n";
  }
  return result;
}

Result<void> replace_file(const std::string& name, const std::string& text) {
  const auto temporary = name + ".new." + std::to_string(::getpid());
  std::ofstream file(temporary);
  file << text;
  file.close();
  if (!file) return Error::from_errno(temporary, errno);
  if (std::rename(temporary.c_str(), name.c_str()) != 0) return Error::from_errno(name, errno);
  return {};
}

}  // namespace

const SimDevice* SimInventory::find(std::string_view uuid) const {
  const auto found = std::ranges::find(devices, uuid, &SimDevice::uuid);
  return found == devices.end() ? nullptr : &*found;
}

std::vector<const SimDevice*> SimInventory::gpus() const {
  std::vector<const SimDevice*> gpus;
  for (const auto& device : devices) {
    if (!device.parent) gpus.push_back(&device);
  }
  return gpus;
}

const SimDevice* SimInventory::mig_at(std::string_view gpu, unsigned place) const {
  for (const auto& device : devices) {
    if (device.parent == gpu && device.place == place) return &device;
  }
  return nullptr;
}

Result<SimInventory> parse_inventory(std::string_view text) {
  Parser parser;
  std::size_t number = 0;
  for (const auto line : split_lines(text)) {
    ++number;
    if (trim(line).empty() || trim(line).front() == '#') continue;
    if (!parser.take(words_of(line))) {
      return Error{"line " + std::to_string(number) + ": not understood: " + printable(line)};
    }
  }
  return parser.result();
}

Result<SimInventory> load_inventory() {
  const char* name = file_name();
  if (name != nullptr) {
    const auto text = read_file(name);
    if (!text) return text.error();
    auto inventory = parse_inventory(*text);
    return inventory ? inventory : Result<SimInventory>(inventory.error().in(name));
  }
  auto inventory = parse_inventory(k_default_inventory);
  const std::lock_guard lock(g_modes_mutex);
  for (auto& device : inventory->devices) {
    const auto mode = modes_without_file().find(device.uuid);
    if (mode != modes_without_file().end()) device.mode = mode->second;
  }
  return inventory;
}

Result<void> store_compute_mode(const std::string& uuid, unsigned mode) {
  const std::lock_guard lock(g_modes_mutex);
  const char* name = file_name();
  if (name == nullptr) {
    modes_without_file()[uuid] = mode;
    return {};
  }
  const auto text = read_file(name);
  if (!text) return text.error();
  return replace_file(name, with_mode(*text, uuid, mode));
}

}  // namespace mps::sim
