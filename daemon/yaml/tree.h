// YAML text as a tree of plain values that know their places, within bounds: what the settings and
// the policies are read from. libyaml parses; the tree is ours, so that depth, aliases and size
// are bounded while it is built, and quotes are still known afterwards. Pure; nothing is thrown.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace mps::yaml {

// Both from 1; a column is a character, as editors count.
struct Mark {
  int line = 1;
  int column = 1;
  auto operator<=>(const Mark&) const = default;
};

struct Node {
  enum class Kind { null, scalar, list, mapping };
  Kind kind = Kind::null;
  Mark mark{};
  bool quoted = false;                          // a scalar in quotes, or a block
  std::string text{};                           // of a scalar
  std::vector<Node> entries{};                  // of a list
  std::vector<std::pair<Node, Node>> fields{};  // of a mapping, in order

  [[nodiscard]] bool is_null() const { return kind == Kind::null; }
  [[nodiscard]] bool is_scalar() const { return kind == Kind::scalar; }
  [[nodiscard]] bool is_list() const { return kind == Kind::list; }
  [[nodiscard]] bool is_mapping() const { return kind == Kind::mapping; }
};

struct Limits {
  std::size_t bytes = std::size_t{256} * 1024;  // of the text; and of what all aliases stand for
  std::size_t depth = 16;
  std::size_t values = 20000;  // an alias counts as what it stands for
  std::size_t aliases = 100;
  std::size_t documents = 100;
};

// Why the text as a whole cannot be used, and where.
struct Problem {
  Mark mark{};
  std::string reason;
};

// The documents, the empty ones too. Tags are refused: nothing here is of a type that has one; and
// directives with them.
std::variant<std::vector<Node>, Problem> parse(std::string_view text, const Limits& limits = {});

}  // namespace mps::yaml
