#include "ctl/table.h"

#include <algorithm>

#include "base/text.h"

namespace mps::ctl {

namespace {

constexpr std::size_t k_cell_limit = 400;

std::string line(const std::vector<std::string>& cells, const std::vector<std::size_t>& widths) {
  std::string text;
  for (std::size_t i = 0; i < cells.size(); ++i) {
    text += i + 1 == cells.size() ? cells[i] : padded(cells[i], widths[i] + 2);
  }
  text.erase(text.find_last_not_of(' ') + 1);
  return text + "\n";
}

}  // namespace

std::size_t display_width(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char character) {
    return (static_cast<unsigned char>(character) & 0xc0U) != 0x80U;
  }));
}

std::string padded(std::string_view text, std::size_t width) {
  std::string result(text);
  const auto have = display_width(text);
  if (have < width) result.append(width - have, ' ');
  return result;
}

std::string to_text(const Table& table) {
  auto lines = table.rows;
  for (auto& cells : lines) {
    for (auto& cell : cells) cell = cell.empty() ? "-" : printable(cell, k_cell_limit);
  }
  lines.insert(lines.begin(), table.header);
  std::vector<std::size_t> widths(table.header.size());
  for (const auto& cells : lines) {
    for (std::size_t i = 0; i < std::min(cells.size(), widths.size()); ++i) {
      widths[i] = std::max(widths[i], display_width(cells[i]));
    }
  }
  widths.resize(std::max_element(lines.begin(), lines.end(), [](const auto& a, const auto& b) {
                  return a.size() < b.size();
                })->size());
  std::string text;
  for (const auto& cells : lines) text += line(cells, widths);
  return text;
}

}  // namespace mps::ctl
