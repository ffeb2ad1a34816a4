#include "yaml/tree.h"

#include <algorithm>
#include <map>
#include <optional>

#include "base/text.h"
#include "yaml/events.h"

namespace mps::yaml {

namespace {

// What a copy of a node costs.
struct Size {
  std::size_t values = 0;
  std::size_t bytes = 0;
  std::size_t depth = 0;

  void add(const Size& inner) {
    values += inner.values;
    bytes += inner.bytes;
    depth = std::max(depth, inner.depth + 1);
  }
};

Size size_of(const Node& node) {
  Size size{1, node.text.size(), node.is_list() || node.is_mapping() ? 1U : 0U};
  for (const auto& entry : node.entries) size.add(size_of(entry));
  for (const auto& [key, value] : node.fields) {
    size.add(size_of(key));
    size.add(size_of(value));
  }
  return size;
}

class Builder {
 public:
  explicit Builder(const Limits& limits) : limits_(limits) {}

  std::vector<Node> take() { return std::move(documents_); }

  [[nodiscard]] std::optional<Problem> add(const Event& event) {
    switch (event.type()) {
      case YAML_DOCUMENT_START_EVENT:
        return start_document(event.mark());
      case YAML_DOCUMENT_END_EVENT:
        documents_.push_back(std::move(root_));
        return std::nullopt;
      case YAML_ALIAS_EVENT:
        return alias(event);
      case YAML_SCALAR_EVENT:
        return scalar(event);
      case YAML_SEQUENCE_START_EVENT:
        return begin(event, Node::Kind::list);
      case YAML_MAPPING_START_EVENT:
        return begin(event, Node::Kind::mapping);
      case YAML_SEQUENCE_END_EVENT:
      case YAML_MAPPING_END_EVENT:
        end();
        return std::nullopt;
      default:
        return std::nullopt;
    }
  }

 private:
  struct Open {
    Node node;
    std::string anchor;
    std::optional<Node> key{};  // of a mapping: waits for its value
  };
  struct Anchored {
    Node node;
    Size size;
  };
  using Stop = std::optional<Problem>;

  Stop start_document(const Mark& mark) {
    if (documents_.size() == limits_.documents) {
      return Problem{mark, "has more than " + std::to_string(limits_.documents) + " documents"};
    }
    open_.clear();
    anchored_.clear();
    root_ = Node{};
    root_.mark = mark;
    return std::nullopt;
  }

  Stop alias(const Event& event) {
    const auto mark = event.mark();
    if (++aliases_ > limits_.aliases) {
      return Problem{mark, "has more than " + std::to_string(limits_.aliases) + " aliases"};
    }
    const auto name = event.anchor();
    const auto found = anchored_.find(name);
    if (found == anchored_.end()) {
      for (const auto& open : open_) {
        if (open.anchor == name) return Problem{mark, "an alias within what it stands for"};
      }
      return Problem{mark, "no anchor of this name before it: \"" + printable(name, 64) + "\""};
    }
    const auto& [node, size] = found->second;
    if (auto stop = count(mark, size.values)) return stop;
    if (auto stop = count_bytes(mark, size.bytes)) return stop;
    if (open_.size() + size.depth > limits_.depth) return too_deep(mark);
    place(Node(node), {});
    return std::nullopt;
  }

  Stop scalar(const Event& event) {
    const auto mark = event.mark();
    const auto tag = event.tag();
    if (auto stop = refuse_tag(mark, tag)) return stop;
    if (auto stop = count(mark, 1)) return stop;
    Node node;
    node.mark = mark;
    node.quoted = tag == "!" || !event.plain();
    node.text = event.text();
    if (node.quoted || !is_null(node.text)) {
      node.kind = Node::Kind::scalar;
    } else {
      node.text.clear();
    }
    place(std::move(node), event.anchor());
    return std::nullopt;
  }

  [[nodiscard]] Problem too_deep(const Mark& mark) const {
    return {mark, "nested too deeply, " + std::to_string(limits_.depth) + " levels are the limit"};
  }

  static bool is_null(std::string_view text) {
    return text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL";
  }

  static Stop refuse_tag(const Mark& mark, const std::string& tag) {
    if (tag.empty() || tag == "!") return std::nullopt;
    return Problem{mark, "tags are not supported: \"" + printable(tag, 64) + "\""};
  }

  Stop count(const Mark& mark, std::size_t more) {
    values_ += more;
    if (values_ <= limits_.values) return std::nullopt;
    return Problem{mark, "has more than " + std::to_string(limits_.values) +
                             " values, aliases counted as what they stand for"};
  }

  // A few aliases of aliases of one long text are few values, and gigabytes.
  Stop count_bytes(const Mark& mark, std::size_t more) {
    aliased_bytes_ += more;
    if (aliased_bytes_ <= limits_.bytes) return std::nullopt;
    return Problem{mark, "has more than " + std::to_string(limits_.bytes) +
                             " bytes, aliases counted as what they stand for"};
  }

  Stop begin(const Event& event, Node::Kind kind) {
    const auto mark = event.mark();
    if (auto stop = refuse_tag(mark, event.tag())) return stop;
    if (open_.size() == limits_.depth) return too_deep(mark);
    if (auto stop = count(mark, 1)) return stop;
    Open open{{}, event.anchor()};
    open.node.kind = kind;
    open.node.mark = mark;
    open_.push_back(std::move(open));
    return std::nullopt;
  }

  void end() {
    auto done = std::move(open_.back());
    open_.pop_back();
    place(std::move(done.node), done.anchor);
  }

  void place(Node node, const std::string& anchor) {
    if (!anchor.empty()) anchored_[anchor] = {node, size_of(node)};
    if (open_.empty()) {
      root_ = std::move(node);
      return;
    }
    auto& parent = open_.back();
    if (parent.node.is_list()) {
      parent.node.entries.push_back(std::move(node));
    } else if (!parent.key) {
      parent.key = std::move(node);
    } else {
      parent.node.fields.emplace_back(std::move(*parent.key), std::move(node));
      parent.key.reset();
    }
  }

  const Limits& limits_;
  std::vector<Node> documents_;
  std::vector<Open> open_;
  std::map<std::string, Anchored> anchored_;
  Node root_;
  std::size_t values_ = 0;
  std::size_t aliases_ = 0;
  std::size_t aliased_bytes_ = 0;
};

// What libyaml would guess an encoding from, complain of by a byte's offset, or take for the end of
// a line that it is not for an editor.
std::optional<Problem> problem_of_bytes(std::string_view text) {
  const auto odd = find_odd_character(text);
  if (!odd) return std::nullopt;
  const std::string_view what =
      odd->control ? "must not have control characters in it" : "is not UTF-8 text";
  return Problem{
      place_of(text, odd->offset),
      std::string(what) + ": \"" + printable(text.substr(odd->offset, odd->length)) + "\""};
}

// %TAG has no use without tags, and libyaml compares each with all before it. %YAML it takes once.
std::optional<Problem> problem_of_directives(std::string_view text) {
  int number = 0;
  for (auto line : split_lines(text)) {
    ++number;
    if (number == 1 && line.starts_with("\xef\xbb\xbf")) line.remove_prefix(3);
    if (!line.starts_with('%') || line.starts_with("%YAML ")) continue;
    return Problem{{number, 1},
                   "directives are not supported: \"" + printable(trim(line), 64) + "\""};
  }
  return std::nullopt;
}

}  // namespace

std::variant<std::vector<Node>, Problem> parse(std::string_view text, const Limits& limits) {
  if (text.size() > limits.bytes) {
    return Problem{{},
                   "must not be larger than " + std::to_string(limits.bytes) + " bytes: \"" +
                       std::to_string(text.size()) + "\""};
  }
  if (auto problem = problem_of_bytes(text)) return *problem;
  if (auto problem = problem_of_directives(text)) return *problem;
  Builder builder(limits);
  Events events(text);
  for (;;) {
    Event event;
    if (auto problem = events.next(event)) return *problem;
    if (event.type() == YAML_STREAM_END_EVENT) return builder.take();
    if (auto problem = builder.add(event)) return *problem;
  }
}

}  // namespace mps::yaml
