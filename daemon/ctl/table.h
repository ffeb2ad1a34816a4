// Text in columns, for a person. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace mps::ctl {

struct Table {
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;
};

// Columns two blanks apart, no blank at a line's end. Cells from outside cannot break a line or
// steer the terminal.
std::string to_text(const Table& table);

// Characters as a terminal counts them, nearly: bytes that begin one.
std::size_t display_width(std::string_view text);
std::string padded(std::string_view text, std::size_t width);

}  // namespace mps::ctl
