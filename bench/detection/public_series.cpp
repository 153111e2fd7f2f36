// SPDX-License-Identifier: Apache-2.0
#include "public_series.h"

#include <rapidjson/document.h>
#include <rapidjson/istreamwrapper.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <utility>

#include "detectors/series_csv.h"

namespace stackwatch {
namespace {

namespace fs = std::filesystem;

// The data set's own: five minutes. Its rows have no times.
constexpr double kAsdStep_s = 300;

Failure broken(const fs::path& path, const std::string& why) { return fail("read " + path.string(), why); }

Result<std::vector<std::vector<double>>> read_matrix(const fs::path& path) {
  std::ifstream file(path);
  if (!file) return broken(path, "it cannot be opened");
  std::vector<std::vector<double>> columns;
  std::string line;
  for (size_t row = 0; std::getline(file, line); ++row) {
    std::istringstream cells(line);
    std::string cell;
    size_t column = 0;
    for (; std::getline(cells, cell, ','); ++column) {
      if (row == 0) columns.emplace_back();
      if (column >= columns.size())
        return broken(path, "line " + std::to_string(row + 1) + " is longer than the first");
      columns[column].push_back(std::strtod(cell.c_str(), nullptr));
    }
    if (column != columns.size()) return broken(path, "line " + std::to_string(row + 1) + " is too short");
  }
  return columns;
}

Result<PublicSeries> read_csv(const fs::path& path, const std::string& name) {
  std::ifstream file(path);
  if (!file) return broken(path, "it cannot be opened");
  PublicSeries out;
  out.name = name;
  SeriesCsv csv({});
  std::string line;
  for (bool header = true; std::getline(file, line); header = false) {
    if (header) {
      if (auto read = csv.read_header(line); !read) return Failure(read.error());
      out.columns.resize(csv.columns());
      continue;
    }
    const auto row = csv.read_row(line);
    if (!row) return Failure(row.error());
    out.times_s.push_back(row->time_s);
    for (size_t i = 0; i < row->values.size(); ++i) out.columns[i].push_back(row->values[i]);
  }
  return out;
}

std::optional<Window> window_of(const PublicSeries& series, const rapidjson::Value& ends) {
  if (!ends.IsArray() || ends.Size() != 2 || !ends[0].IsString() || !ends[1].IsString()) return std::nullopt;
  const auto first_s = parse_series_time(ends[0].GetString());
  const auto last_s = parse_series_time(ends[1].GetString());
  if (!first_s || !last_s) return std::nullopt;
  const auto row = [&](double time_s) {
    return static_cast<size_t>(std::lower_bound(series.times_s.begin(), series.times_s.end(), time_s) -
                               series.times_s.begin());
  };
  const Window out{row(*first_s), row(*last_s)};
  if (out.last >= series.rows() || out.first > out.last) return std::nullopt;
  return out;
}

struct Event {
  Window rows;
  std::vector<size_t> columns;
};

/// `760-765:4,5,7`; columns from 1.
Result<std::vector<Event>> read_culprits(const fs::path& path) {
  std::ifstream file(path);
  if (!file) return broken(path, "it cannot be opened");
  std::vector<Event> out;
  std::string line;
  while (std::getline(file, line)) {
    Event event;
    char dash = 0;
    char sign = 0;
    std::istringstream text(line);
    if (!(text >> event.rows.first >> dash >> event.rows.last >> sign) || dash != '-' || sign != ':') continue;
    size_t column = 0;
    while (text >> column) {
      if (column == 0) return broken(path, "columns are counted from 1");
      event.columns.push_back(column - 1);
      text >> sign;
    }
    out.push_back(std::move(event));
  }
  return out;
}

/// As NAB makes them: a tenth of the rows, divided over the events, centred on each; cut where they would touch.
std::vector<Window> widened(const std::vector<Window>& events, size_t rows) {
  std::vector<Window> out;
  for (const Window& event : events) {
    const size_t half = rows / 20 / events.size();
    const size_t middle = event.first;
    Window window{std::min(event.first, middle > half ? middle - half : 0),
                  std::min(rows - 1, std::max(event.last, middle + half))};
    if (!out.empty() && window.first <= out.back().last) {
      if (event.first <= out.back().last + 1) {
        out.back().last = std::max(out.back().last, window.last);
        continue;
      }
      const size_t border = (out.back().last + window.first) / 2;
      out.back().last = std::min(border, event.first - 1);
      window.first = out.back().last + 1;
    }
    out.push_back(window);
  }
  return out;
}

std::vector<double> grid_of_times(size_t rows) {
  std::vector<double> out(rows);
  for (size_t i = 0; i < rows; ++i) out[i] = kAsdStep_s * static_cast<double>(i);
  return out;
}

std::vector<fs::path> servers(const std::string& directory) {
  std::vector<fs::path> out;
  constexpr std::string_view kEnd = "_train.csv";
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(directory, ignored)) {
    const std::string name = entry.path().string();
    if (name.ends_with(kEnd)) out.emplace_back(name.substr(0, name.size() - kEnd.size()));
  }
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace

Result<std::vector<PublicSeries>> read_nab(const std::string& directory) {
  const fs::path windows = fs::path(directory) / "windows.json";
  std::ifstream file(windows);
  if (!file) return broken(windows, "it cannot be opened");
  rapidjson::IStreamWrapper stream(file);
  rapidjson::Document document;
  document.ParseStream(stream);
  if (document.HasParseError() || !document.IsObject()) return broken(windows, "it is no JSON object");
  std::vector<PublicSeries> out;
  for (const auto& member : document.GetObject()) {
    const fs::path path = fs::path(directory) / member.name.GetString();
    if (!fs::exists(path)) continue;
    auto series = read_csv(path, member.name.GetString());
    if (!series) return Failure(series.error());
    for (const auto& ends : member.value.GetArray()) {
      const auto window = window_of(*series, ends);
      if (!window) return broken(windows, "a window of " + series->name + " is none of its rows");
      series->windows.push_back(*window);
    }
    out.push_back(std::move(*series));
  }
  return out;
}

Result<std::vector<PublicSeries>> read_asd(const std::string& directory) {
  std::vector<PublicSeries> out;
  for (const fs::path& server : servers(directory)) {
    auto train = read_matrix(server.string() + "_train.csv");
    if (!train) return Failure(train.error());
    auto test = read_matrix(server.string() + "_test.csv");
    if (!test) return Failure(test.error());
    auto labels = read_matrix(server.string() + "_test_label.csv");
    if (!labels) return Failure(labels.error());
    if (train->empty() || train->size() != test->size() || labels->size() != 1 ||
        labels->front().size() != test->front().size()) {
      return broken(server, "its parts do not fit together");
    }
    PublicSeries series;
    series.name = server.filename().string();
    series.scored_from = train->front().size();
    series.columns = std::move(*train);
    for (size_t i = 0; i < test->size(); ++i) {
      series.columns[i].insert(series.columns[i].end(), (*test)[i].begin(), (*test)[i].end());
    }
    series.times_s = grid_of_times(series.columns.front().size());
    const std::vector<double>& label = labels->front();
    for (size_t i = 0; i < label.size(); ++i) {
      if (label[i] == 0) continue;
      const size_t row = series.scored_from + i;
      if (i > 0 && label[i - 1] != 0)
        series.windows.back().last = row;
      else
        series.windows.push_back({row, row});
    }
    out.push_back(std::move(series));
  }
  return out;
}

Result<std::vector<PublicSeries>> read_asd_columns(const std::string& directory) {
  std::vector<PublicSeries> out;
  for (const fs::path& server : servers(directory)) {
    auto test = read_matrix(server.string() + "_test.csv");
    if (!test) return Failure(test.error());
    const auto events = read_culprits(server.string() + "_culprits.txt");
    if (!events) return Failure(events.error());
    for (size_t column = 0; column < test->size(); ++column) {
      PublicSeries series;
      series.name = server.filename().string() + "/" + std::to_string(column + 1);
      series.columns.push_back(std::move((*test)[column]));
      series.times_s = grid_of_times(series.columns.front().size());
      std::vector<Window> own;
      for (const Event& event : *events) {
        const bool culprit = std::ranges::find(event.columns, column) != event.columns.end();
        if (culprit && event.rows.last < series.rows()) own.push_back(event.rows);
      }
      if (!own.empty()) series.windows = widened(own, series.rows());
      out.push_back(std::move(series));
    }
  }
  return out;
}

}  // namespace stackwatch
