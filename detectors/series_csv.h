// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/result.h"

namespace stackwatch {

/// Seconds since 1970 of a timestamp in a series: ISO 8601, `YYYY-MM-DD HH:MM:SS` (UTC where it names no zone), a date
/// alone, or a number, which is taken as it is. Nothing where it is none of these.
[[nodiscard]] std::optional<double> parse_series_time(std::string_view text);

/// A row as it was read. The views and the span are valid until the next row is read.
struct SeriesRow {
  std::string_view timestamp;  ///< as it stood there, without quotes
  double time_s = 0;
  std::span<const double> values;  ///< the selected columns in the order of the selection; NaN is missing
};

/// Reads a series in CSV line by line: a header, then a timestamp and values in each line. Cells may be quoted, "" in
/// them is a quote; a quoted cell ends on its line. Blanks around cells, CR at the end of a line and a byte order mark
/// are no part of a cell. An empty cell, `nan` and an infinite value are missing.
class SeriesCsv {
 public:
  /// More columns than any export has; a line of text by mistake is not one column each.
  static constexpr size_t kMaxColumns = 1024;

  /// `selected`: names of columns; none: all but the first.
  explicit SeriesCsv(std::vector<std::string> selected) : selected_(std::move(selected)) {}

  /// The first line. Error: it has no values, too many columns, or not exactly one of each that is selected (kUsage).
  [[nodiscard]] Result<void> read_header(std::string_view line);
  /// A line after it. Error: what is wrong with it; the line is counted, nothing else changes.
  [[nodiscard]] Result<SeriesRow> read_row(std::string_view line);
  /// A line without content: counted, and no row.
  void skip_line() { ++lines_; }
  /// Number of values in a row.
  [[nodiscard]] size_t columns() const { return picks_.size(); }
  /// Lines read so far, the header included.
  [[nodiscard]] size_t lines() const { return lines_; }

 private:
  [[nodiscard]] Result<void> split(std::string_view line);
  [[nodiscard]] Failure wrong(std::string why, std::string hint = {}) const;
  [[nodiscard]] Result<size_t> find_column(const std::string& name) const;

  std::vector<std::string> selected_;
  std::vector<std::string> cells_;  // of the line at hand; the header's until the first row
  size_t cell_count_ = 0;
  size_t width_ = 0;
  std::vector<size_t> picks_;
  std::vector<double> values_;
  size_t lines_ = 0;
};

}  // namespace stackwatch
