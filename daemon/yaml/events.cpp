#include "yaml/events.h"

#include "base/text.h"

namespace mps::yaml {

namespace {

std::string to_text(const yaml_char_t* text) {
  return text == nullptr ? std::string() : reinterpret_cast<const char*>(text);
}

std::string to_text(const char* text) {
  return text == nullptr ? std::string() : text;
}

Mark to_mark(const yaml_mark_t& mark) {
  return {static_cast<int>(mark.line) + 1, static_cast<int>(mark.column) + 1};
}

}  // namespace

Mark Event::mark() const {
  return to_mark(event_.start_mark);
}

std::string Event::anchor() const {
  switch (event_.type) {
    case YAML_ALIAS_EVENT:
      return to_text(event_.data.alias.anchor);
    case YAML_SCALAR_EVENT:
      return to_text(event_.data.scalar.anchor);
    case YAML_SEQUENCE_START_EVENT:
      return to_text(event_.data.sequence_start.anchor);
    case YAML_MAPPING_START_EVENT:
      return to_text(event_.data.mapping_start.anchor);
    default:
      return {};
  }
}

std::string Event::tag() const {
  switch (event_.type) {
    case YAML_SCALAR_EVENT:
      return to_text(event_.data.scalar.tag);
    case YAML_SEQUENCE_START_EVENT:
      return to_text(event_.data.sequence_start.tag);
    case YAML_MAPPING_START_EVENT:
      return to_text(event_.data.mapping_start.tag);
    default:
      return {};
  }
}

std::string Event::text() const {
  const auto& scalar = event_.data.scalar;
  return {reinterpret_cast<const char*>(scalar.value), scalar.length};
}

bool Event::plain() const {
  return event_.data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

Events::Events(std::string_view text) : ready_(yaml_parser_initialize(&parser_) == 1) {
  if (!ready_) return;
  yaml_parser_set_input_string(&parser_, reinterpret_cast<const yaml_char_t*>(text.data()),
                               text.size());
}

std::optional<Problem> Events::next(Event& event) {
  if (!ready_) return Problem{{}, "cannot be read: no memory"};
  if (yaml_parser_parse(&parser_, &event.event_) == 1) return std::nullopt;
  return problem();
}

Problem Events::problem() const {
  if (parser_.error == YAML_MEMORY_ERROR) return {{}, "cannot be read: no memory"};
  auto reason = "not YAML: " + printable(to_text(parser_.problem));
  if (parser_.context != nullptr) reason += ' ' + printable(to_text(parser_.context));
  // What began on an earlier line is where an error that shows late was made.
  if (parser_.context != nullptr && parser_.context_mark.line < parser_.problem_mark.line) {
    reason += " that begins on line " + std::to_string(parser_.context_mark.line + 1);
  }
  return {to_mark(parser_.problem_mark), std::move(reason)};
}

}  // namespace mps::yaml
