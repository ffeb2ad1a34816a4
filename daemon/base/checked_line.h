// Lines that show whether they are whole: "<CRC-32 of the rest, 8 hex digits> <text>". Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace mps {

// With the newline. The text has none of its own.
std::string checked_line(std::string_view text);

// What stands in a line (without its newline) behind the checksum; none: it is damaged.
std::optional<std::string_view> checked_text(std::string_view line);

}  // namespace mps
