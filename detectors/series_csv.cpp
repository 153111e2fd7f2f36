// SPDX-License-Identifier: Apache-2.0
#include "detectors/series_csv.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <system_error>

#include "core/time_text.h"

namespace stackwatch {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
// What of a bad cell is quoted in a message.
constexpr size_t kMaxQuoted = 40;

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == '\r')) text.remove_suffix(1);
  return text;
}

std::string quoted(std::string_view text) {
  return '"' + std::string(text.substr(0, kMaxQuoted)) + (text.size() > kMaxQuoted ? "…\"" : "\"");
}

/// The whole text as a number; infinite and NaN as they are.
std::optional<double> parse_number(std::string_view text) {
  if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<double> parse_value(std::string_view text) {
  constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();
  if (text.empty()) return kMissing;
  const auto value = parse_number(text);
  if (!value) return std::nullopt;
  return std::isfinite(*value) ? *value : kMissing;
}

}  // namespace

std::optional<double> parse_series_time(std::string_view text) {
  if (const auto number = parse_number(text)) return std::isfinite(*number) ? number : std::nullopt;
  const std::string base(text);
  for (const char* zone : {"", "Z", "T00:00:00Z"}) {
    if (const auto time_ns = parse_time(base + zone, ZonelessTime::kRefused))
      return static_cast<double>(*time_ns) * 1e-9;
  }
  return std::nullopt;
}

Failure SeriesCsv::wrong(std::string why, std::string hint) const {
  return fail("line " + std::to_string(lines_) + " of the series", std::move(why), std::move(hint));
}

Result<void> SeriesCsv::split(std::string_view line) {
  cell_count_ = 0;
  for (bool more = true; more;) {
    if (cell_count_ == kMaxColumns) return wrong("it has more than " + std::to_string(kMaxColumns) + " columns");
    if (cell_count_ == cells_.size()) cells_.emplace_back();
    std::string& cell = cells_[cell_count_++];
    while (line.starts_with(' ') || line.starts_with('\t')) line.remove_prefix(1);
    if (line.starts_with('"')) {
      cell.clear();
      line.remove_prefix(1);
      for (;;) {
        const size_t end = line.find('"');
        if (end == std::string_view::npos) return wrong("a quote is not closed on its line");
        cell += line.substr(0, end);
        line.remove_prefix(end + 1);
        if (!line.starts_with('"')) break;
        cell += '"';
        line.remove_prefix(1);
      }
      const std::string_view rest = line.substr(0, line.find(','));
      if (!trimmed(rest).empty()) return wrong("there is text behind a quoted cell");
    } else {
      cell = trimmed(line.substr(0, line.find(',')));
    }
    const size_t comma = line.find(',');
    more = comma != std::string_view::npos;
    if (more) line.remove_prefix(comma + 1);
  }
  return {};
}

Result<size_t> SeriesCsv::find_column(const std::string& name) const {
  const auto begin = cells_.begin() + 1;
  const auto end = cells_.begin() + static_cast<std::ptrdiff_t>(width_);
  const auto found = std::find(begin, end, name);
  if (found == end) {
    return fail(ErrorKind::kUsage, "--columns " + name, "the header has no such column of values",
                "it begins with " + quoted(cells_[0]) + ", then " + quoted(cells_[1]));
  }
  if (std::find(found + 1, end, name) != end) {
    return fail(ErrorKind::kUsage, "--columns " + name, "the header has two columns of this name");
  }
  return static_cast<size_t>(found - cells_.begin());
}

Result<void> SeriesCsv::read_header(std::string_view line) {
  ++lines_;
  if (line.starts_with(kByteOrderMark)) line.remove_prefix(kByteOrderMark.size());
  if (auto done = split(line); !done) return done;
  width_ = cell_count_;
  if (width_ < 2) return wrong("the header has no columns of values", "a timestamp and values, with commas between");
  if (parse_series_time(cells_[0]) && parse_value(cells_[1])) {
    return wrong("it is no header: " + quoted(cells_[0]) + " is a timestamp", "the first line names the columns");
  }
  if (selected_.empty()) {
    for (size_t i = 1; i < width_; ++i) picks_.push_back(i);
  }
  for (const std::string& name : selected_) {
    const Result<size_t> column = find_column(name);
    if (!column) return Failure(column.error());
    picks_.push_back(*column);
  }
  values_.resize(picks_.size());
  return {};
}

Result<SeriesRow> SeriesCsv::read_row(std::string_view line) {
  ++lines_;
  if (auto done = split(line); !done) return Failure(done.error());
  if (cell_count_ != width_) {
    return wrong("it has " + std::to_string(cell_count_) + " cells, the header has " + std::to_string(width_));
  }
  const auto time_s = parse_series_time(cells_[0]);
  if (!time_s) {
    return wrong(quoted(cells_[0]) + " is no timestamp",
                 "like 2026-11-22T12:00:00Z, '2026-11-22 12:00:00' or a number");
  }
  for (size_t i = 0; i < picks_.size(); ++i) {
    const auto value = parse_value(cells_[picks_[i]]);
    if (!value) return wrong(quoted(cells_[picks_[i]]) + " is no number", "a missing value is nan or empty");
    values_[i] = *value;
  }
  return SeriesRow{cells_[0], *time_s, values_};
}

}  // namespace stackwatch
