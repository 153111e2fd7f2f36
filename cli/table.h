// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace stackwatch {

/// How text is made visible: plain, or with the colours of a terminal.
struct Style {
  bool colour = false;
  [[nodiscard]] std::string bold(const std::string& text) const { return wrap("1", text); }
  [[nodiscard]] std::string warning(const std::string& text) const { return wrap("33", text); }
  [[nodiscard]] std::string alarm(const std::string& text) const { return wrap("31;1", text); }
  [[nodiscard]] std::string good(const std::string& text) const { return wrap("32", text); }

 private:
  [[nodiscard]] std::string wrap(const char* code, const std::string& text) const {
    return colour ? "\x1b[" + std::string(code) + "m" + text + "\x1b[0m" : text;
  }
};

/// Lines of cells under a header line, each column as wide as its widest cell.
class Table {
 public:
  enum class Align { kLeft, kRight };
  struct Column {
    std::string title;
    Align align = Align::kLeft;
  };
  enum class Emphasis { kNone, kWarning, kAlarm };

  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  /// One cell per column, of safe text.
  void add(std::vector<std::string> cells, Emphasis emphasis = Emphasis::kNone);
  /// Lines with their ends. Lines are cut to `max_columns`; 0 is no limit.
  [[nodiscard]] std::string text(const Style& style, size_t max_columns = 0) const;

 private:
  struct Row {
    std::vector<std::string> cells;
    Emphasis emphasis;
  };
  [[nodiscard]] std::string line(const std::vector<std::string>& cells, const std::vector<size_t>& widths,
                                 size_t max_columns) const;

  std::vector<Column> columns_;
  std::vector<Row> rows_;
};

}  // namespace stackwatch
