// SPDX-License-Identifier: Apache-2.0
#include "cli/table.h"

#include <algorithm>
#include <utility>

#include "cli/text.h"

namespace stackwatch {
namespace {

constexpr size_t kGap = 2;

void cut_to(std::string& text, size_t max_columns) {
  size_t columns = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool begins = (static_cast<unsigned char>(text[i]) & 0xC0U) != 0x80U;
    if (begins && columns++ == max_columns) {
      text.resize(i);
      return;
    }
  }
}

}  // namespace

void Table::add(std::vector<std::string> cells, Emphasis emphasis) {
  cells.resize(columns_.size());
  rows_.push_back({std::move(cells), emphasis});
}

std::string Table::line(const std::vector<std::string>& cells, const std::vector<size_t>& widths,
                        size_t max_columns) const {
  std::string text;
  for (size_t i = 0; i < cells.size(); ++i) {
    if (i > 0) text.append(kGap, ' ');
    const std::string padding(widths[i] - columns_of(cells[i]), ' ');
    text += columns_[i].align == Align::kRight ? padding + cells[i] : cells[i] + padding;
  }
  text.erase(text.find_last_not_of(' ') + 1);
  if (max_columns > 0) cut_to(text, max_columns);
  return text;
}

std::string Table::text(const Style& style, size_t max_columns) const {
  std::vector<std::string> titles;
  std::vector<size_t> widths;
  for (size_t i = 0; i < columns_.size(); ++i) {
    titles.push_back(columns_[i].title);
    size_t width = columns_of(columns_[i].title);
    for (const Row& row : rows_) width = std::max(width, columns_of(row.cells[i]));
    widths.push_back(width);
  }
  std::string text = style.bold(line(titles, widths, max_columns)) + "\n";
  for (const Row& row : rows_) {
    std::string cells = line(row.cells, widths, max_columns);
    if (row.emphasis == Emphasis::kWarning) cells = style.warning(cells);
    if (row.emphasis == Emphasis::kAlarm) cells = style.alarm(cells);
    text += cells + "\n";
  }
  return text;
}

}  // namespace stackwatch
