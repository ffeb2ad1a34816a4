// libyaml's events, one after the other: its C structures with owners, its errors as a sentence.
// Private to this room. libyaml, because it reads a policy in a fifth to a tenth of yaml-cpp's
// time, and because Kubernetes' own YAML is a port of it: what kubectl takes we take. One thread.
#pragma once

#include <yaml.h>

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "yaml/tree.h"

namespace mps::yaml {

// Of the byte at `offset`.
Mark place_of(std::string_view text, std::size_t offset);

class Event {
 public:
  Event() = default;
  ~Event() { yaml_event_delete(&event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  [[nodiscard]] yaml_event_type_t type() const { return event_.type; }
  [[nodiscard]] Mark mark() const;
  [[nodiscard]] std::string anchor() const;  // of an alias: what it stands for; empty: none
  [[nodiscard]] std::string tag() const;     // empty: none
  // Of a scalar.
  [[nodiscard]] std::string text() const;
  [[nodiscard]] bool plain() const;  // neither in quotes nor a block

 private:
  friend class Events;
  yaml_event_t event_{};
};

class Events {
 public:
  explicit Events(std::string_view text);  // of UTF-8; must outlive this
  ~Events() { yaml_parser_delete(&parser_); }
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;

  // Into an event that was not used before. The last one is YAML_STREAM_END_EVENT.
  [[nodiscard]] std::optional<Problem> next(Event& event);

 private:
  [[nodiscard]] Problem problem() const;
  [[nodiscard]] std::string_view character_at(std::size_t index) const;

  std::string_view text_;
  yaml_parser_t parser_{};
  bool ready_ = false;
};

}  // namespace mps::yaml
