// SPDX-License-Identifier: Apache-2.0
// Any bytes as the text of perf script: a report that adds up, or an error.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "capture/perf_import.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stackwatch;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  PerfImportOptions options;
  options.skip_bad_lines = size % 2 == 0;
  if (size % 3 == 0) options.frequency_hz = 997;
  const auto report = import_perf_script(bytes_of(text), "fuzz", "/dev/null", options);
  if (!report) {
    require(!report.error().message().empty());
    return 0;
  }
  require(report->read.samples > 0 && report->survey.frequency_hz && report->bytes > 0);
  require(report->idle <= report->read.samples && report->late <= report->read.samples);
  require(options.skip_bad_lines || report->read.bad_lines == 0);
  return 0;
}
