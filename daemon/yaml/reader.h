// Reading a YAML tree into plain values with errors that name the place: what the settings' and the
// policies' formats are made of. Every error is collected, nothing is thrown. Not thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "yaml/tree.h"

namespace mps::yaml {

// A value in the file and the way to it: "devices[0].uuid". Valid as long as the tree.
struct Field {
  std::string path;
  const Node* node = nullptr;
  Mark mark{};  // of the key where the value itself is empty
};

// "file:line:column", as errors begin and as a place is named within one.
std::string to_string(std::string_view file, const Mark& mark);

class Reader {
 public:
  // Enough for a person; more of them come from a file that is something else.
  static constexpr std::size_t k_error_limit = 100;

  using Read = std::function<void(const Field&)>;
  struct Key {
    std::string_view name;
    Read read;
    bool required = false;
  };

  explicit Reader(std::string_view file) : file_(file) {}

  // "file:line:column: path: reason: "value"".
  void fail(const Field& field, std::string_view reason);
  void fail_at(const Mark& mark, std::string_view reason);
  [[nodiscard]] bool failed() const { return !errors_.empty(); }
  // In the order of their places.
  [[nodiscard]] std::vector<std::string> take_errors();

  // Calls each present key's reader. False where the field is no mapping.
  bool read_mapping(const Field& field, std::initializer_list<Key> keys);
  // Calls `read` for each pair of a mapping whose keys are the user's own; the path of both ends in
  // the key. A key that is given twice, or is no word, is an error here.
  bool read_pairs(const Field& field,
                  const std::function<void(const Field& key, const Field& value)>& read);
  // Calls `read` for each entry; `what` says what the field must be.
  bool read_list(const Field& field, std::string_view what, std::size_t limit, const Read& read);

  // These leave `out` as it was when they fail.
  std::optional<std::string> text(const Field& field, std::string_view what);
  // Text that every reader of YAML takes for text: 123, true, on and ~ need quotes.
  std::optional<std::string> strict_text(const Field& field, std::string_view what);
  void boolean(const Field& field, bool& out);
  // `off` or `on`, the words for false and true.
  void choice(const Field& field, std::string_view off, std::string_view on, bool& out);
  bool whole_number(const Field& field, std::uint64_t min, std::uint64_t max, unsigned& out);
  // From 0.1 to `max`, with one decimal at most: what the control daemon keeps and prints.
  bool percentage(const Field& field, double max, double& out);
  bool duration(const Field& field, std::chrono::milliseconds min, std::chrono::milliseconds max,
                std::chrono::milliseconds& out);
  // Bytes as Kubernetes writes them, as whole mebibytes, rounded down.
  std::optional<std::uint64_t> mebibytes(const Field& field);

 private:
  struct Complaint {
    Mark mark;
    std::string text;
  };
  std::optional<std::string> number_text(const Field& field, std::string_view what);
  bool refuse_octal(const Field& field);
  bool first_of_name(const Field& value, const Field& key, std::string_view name,
                     std::vector<std::pair<std::string_view, int>>& lines);

  std::string file_;
  std::vector<Complaint> errors_;
  std::size_t left_out_ = 0;
};

}  // namespace mps::yaml
