// What a test tells the simulator to do. Read from `key = value` files and the environment, later
// ones win: <folder above bin/ or lib/>/sim.conf, <folder above the pipe directory>/sim.conf,
// $MPS_SIM_CONF, and MPS_SIM_<KEY> for any key. Unknown keys are ignored, bad numbers are 0.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace mps::sim {

class Steering {
 public:
  // `own_file` is the path of the program or library that asks.
  static Steering load(const std::string& own_file);
  static Steering from_text(std::string_view text);

  void set(const std::string& key, const std::string& value) { values_[key] = value; }
  [[nodiscard]] std::string text(const std::string& key, const std::string& fallback = {}) const;
  [[nodiscard]] long number(const std::string& key, long fallback) const;
  [[nodiscard]] bool flag(const std::string& key) const { return number(key, 0) != 0; }
  [[nodiscard]] bool is_535() const { return number("version", 550) < 550; }
  // As programs from 580 on print it first of all: "13000", "13010"; empty: an older one.
  [[nodiscard]] std::string newer_binary() const;

 private:
  void read_text(std::string_view text);
  void read_file(const std::string& path);
  void read_environment();
  std::map<std::string, std::string> values_;
};

std::string own_program();     // /proc/self/exe
std::string pipe_directory();  // CUDA_MPS_PIPE_DIRECTORY or the default
std::string environment(const char* name, const char* fallback);

}  // namespace mps::sim
