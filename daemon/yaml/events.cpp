#include "yaml/events.h"

#include <algorithm>

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

bool begins_character(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0U) != 0x80U;
}

}  // namespace

Mark place_of(std::string_view text, std::size_t offset) {
  const auto before = text.substr(0, offset);
  const auto newline = before.rfind('\n');
  const auto lines = std::count(before.begin(), before.end(), '\n');
  const auto line = before.substr(newline == std::string_view::npos ? 0 : newline + 1);
  const auto column = std::count_if(line.begin(), line.end(), begins_character);
  return {static_cast<int>(lines) + 1, static_cast<int>(column) + 1};
}

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

Events::Events(std::string_view text) : text_(text), ready_(yaml_parser_initialize(&parser_) == 1) {
  if (!ready_) return;
  yaml_parser_set_input_string(&parser_, reinterpret_cast<const yaml_char_t*>(text.data()),
                               text.size());
}

std::optional<Problem> Events::next(Event& event) {
  if (!ready_) return Problem{{}, "cannot be read: no memory"};
  if (yaml_parser_parse(&parser_, &event.event_) == 1) return std::nullopt;
  return problem();
}

// libyaml counts characters, and does not count a byte order mark.
std::string_view Events::character_at(std::size_t index) const {
  constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";
  auto at = text_.starts_with(byte_order_mark) ? byte_order_mark.size() : 0;
  while (at < text_.size() && (index > 0 || !begins_character(text_[at]))) {
    if (begins_character(text_[at++])) --index;
  }
  auto end = std::min(at + 1, text_.size());
  while (end < text_.size() && !begins_character(text_[end])) ++end;
  return text_.substr(at, end - at);
}

Problem Events::problem() const {
  if (parser_.error == YAML_MEMORY_ERROR) return {{}, "cannot be read: no memory"};
  auto reason = "not YAML: " + printable(to_text(parser_.problem));
  if (parser_.error == YAML_READER_ERROR) {
    return {place_of(text_, parser_.problem_offset), std::move(reason)};
  }
  // Which one is not said, and a tab cannot be seen.
  if (reason.ends_with("found character that cannot start any token")) {
    return {to_mark(parser_.problem_mark),
            reason + ": \"" + printable(character_at(parser_.problem_mark.index)) + "\""};
  }
  if (parser_.context != nullptr) reason += ' ' + printable(to_text(parser_.context));
  // What began on an earlier line is where an error that shows late was made.
  if (parser_.context != nullptr && parser_.context_mark.line < parser_.problem_mark.line) {
    reason += " that begins on line " + std::to_string(parser_.context_mark.line + 1);
  }
  return {to_mark(parser_.problem_mark), std::move(reason)};
}

}  // namespace mps::yaml
