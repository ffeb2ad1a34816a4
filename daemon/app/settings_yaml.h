// Reading YAML into plain values with errors that name the place: what the settings' schema is made
// of. Every error is collected, nothing is thrown. Not thread-safe.
#pragma once

#include <yaml-cpp/yaml.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mps::app {

// A value in the file and the way to it: "devices[0].uuid".
struct Field {
  std::string path;
  YAML::Node node;
  YAML::Mark mark;  // of the key where the value itself is empty, as yaml-cpp marks what follows it
};

class SettingsReader {
 public:
  // Enough for a person; more of them come from a file that is not a settings file.
  static constexpr std::size_t k_error_limit = 100;

  using Read = std::function<void(const Field&)>;
  struct Key {
    std::string_view name;
    Read read;
  };

  explicit SettingsReader(std::string_view file) : file_(file) {}

  // "file:line:column: path: reason: "value"".
  void fail(const Field& field, std::string_view reason);
  void fail_at(const YAML::Mark& mark, std::string_view reason);
  [[nodiscard]] std::vector<std::string> take_errors();

  // Calls each present key's reader. False where the field is no mapping.
  bool read_mapping(const Field& field, std::initializer_list<Key> keys);
  // Calls `read` for each entry; `what` says what the field must be.
  bool read_list(const Field& field, std::string_view what, std::size_t limit, const Read& read);

  // These leave `out` as it was when they fail.
  std::optional<std::string> text(const Field& field, std::string_view what);
  void boolean(const Field& field, bool& out);
  // `off` or `on`, the words for false and true.
  void choice(const Field& field, std::string_view off, std::string_view on, bool& out);
  bool whole_number(const Field& field, std::uint64_t min, std::uint64_t max, unsigned& out);
  void duration(const Field& field, std::chrono::milliseconds min, std::chrono::milliseconds max,
                std::chrono::milliseconds& out);
  // Bytes as Kubernetes writes them, as whole mebibytes, rounded down.
  std::optional<std::uint64_t> mebibytes(const Field& field);

 private:
  std::string file_;
  std::vector<std::string> errors_;
  std::size_t left_out_ = 0;
};

}  // namespace mps::app
