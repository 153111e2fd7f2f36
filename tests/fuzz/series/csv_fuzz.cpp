// SPDX-License-Identifier: Apache-2.0
// Any bytes as a series: scores within their range, or an error.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "detectors/series.h"
#include "detectors/series_csv.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

std::string_view take_line(std::string_view& text) {
  const size_t end = text.find('\n');
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  return line;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stackwatch;
  std::string_view text(reinterpret_cast<const char*>(data), size);
  SeriesCsv csv({});
  if (!csv.read_header(take_line(text))) return 0;
  // Small: what is looked for is in the reading, and in values that no arithmetic likes.
  SeriesSettings settings;
  settings.history_rows = 64;
  settings.calibration_rows = 64;
  if (csv.columns() > 16) return 0;
  SeriesDetector detector(csv.columns(), settings);
  while (!text.empty()) {
    const auto row = csv.read_row(take_line(text));
    if (!row) {
      require(!row.error().message().empty());
      continue;
    }
    require(row->values.size() == csv.columns() && std::isfinite(row->time_s));
    const double score = detector.observe(row->values);
    require(score >= 0 && score <= 1);
  }
  return 0;
}
