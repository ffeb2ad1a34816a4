#include "steering.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

extern char** environ;  // NOLINT: POSIX declares it nowhere

namespace mps::sim {
namespace {

std::string trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return std::string(text.substr(first, text.find_last_not_of(" \t\r") - first + 1));
}

std::string sibling_conf(const std::string& path) {
  return (std::filesystem::path(path).parent_path() / "sim.conf").string();
}

}  // namespace

std::string environment(const char* name, const char* fallback) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): nobody here calls setenv
  return value != nullptr ? value : fallback;
}

std::string own_program() {
  std::array<char, 4096> path{};
  const auto length = ::readlink("/proc/self/exe", path.data(), path.size());
  return length > 0 ? std::string(path.data(), static_cast<std::size_t>(length)) : std::string();
}

std::string pipe_directory() {
  return environment("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps");
}

Steering Steering::load(const std::string& own_file) {
  Steering steering;
  steering.read_file(sibling_conf(std::filesystem::path(own_file).parent_path().string()));
  steering.read_file(sibling_conf(pipe_directory()));
  steering.read_file(environment("MPS_SIM_CONF", ""));
  steering.read_environment();
  return steering;
}

Steering Steering::from_text(std::string_view text) {
  Steering steering;
  steering.read_text(text);
  return steering;
}

void Steering::read_text(std::string_view text) {
  std::istringstream lines{std::string(text)};
  for (std::string line; std::getline(lines, line);) {
    const auto equals = line.find('=');
    if (equals == std::string::npos || trimmed(line).starts_with('#')) continue;
    values_[trimmed(line.substr(0, equals))] = trimmed(line.substr(equals + 1));
  }
}

void Steering::read_file(const std::string& path) {
  if (path.empty()) return;
  const std::ifstream file(path);
  if (!file) return;
  std::ostringstream text;
  text << file.rdbuf();
  read_text(text.str());
}

void Steering::read_environment() {
  constexpr std::string_view k_prefix = "MPS_SIM_";
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view pair = *entry;
    const auto equals = pair.find('=');
    if (!pair.starts_with(k_prefix) || equals == std::string_view::npos) continue;
    std::string key(pair.substr(k_prefix.size(), equals - k_prefix.size()));
    std::transform(key.begin(), key.end(), key.begin(),
                   [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
    values_[key] = pair.substr(equals + 1);
  }
}

std::string Steering::newer_binary() const {
  const long version = number("version", 550);
  if (version < 580) return {};
  return version < 590 ? "13000" : "13010";
}

std::string Steering::text(const std::string& key, const std::string& fallback) const {
  const auto found = values_.find(key);
  return found == values_.end() ? fallback : found->second;
}

long Steering::number(const std::string& key, long fallback) const {
  const auto found = values_.find(key);
  return found == values_.end() ? fallback : std::strtol(found->second.c_str(), nullptr, 10);
}

}  // namespace mps::sim
