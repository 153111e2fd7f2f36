// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "capture/byte_source.h"
#include "capture/perf_script.h"
#include "capture/writer.h"
#include "core/result.h"

namespace stackwatch {

struct PerfImportOptions {
  std::string event;                   ///< empty: survey_perf_script() chooses
  std::optional<double> frequency_hz;  ///< nothing: survey_perf_script() finds out
  double tick_s = 1;
  bool skip_bad_lines = false;
  uint64_t started_ns = 0;  ///< CLOCK_REALTIME of the first sample; the text does not tell it
};

struct PerfImportReport {
  PerfScriptSurvey survey;  ///< with the event and the frequency that were used
  PerfScriptReader::Counters read;
  uint64_t idle = 0;  ///< samples of the idle tasks: no process
  uint64_t late = 0;  ///< samples out of order, counted in a later tick
  uint64_t ticks = 0;
  uint64_t processes = 0;  ///< one that comes back after a long silence counts again
  uint64_t bytes = 0;      ///< written
};

/// The text of `perf script` as a capture, in constant memory: samples of one event, by tick and process. A process is
/// the pid where the text has pid/tid, else the thread. One that is silent as long as it was seen (5 s to 5 min) is
/// told as detached. Exposure is the number of samples divided by the frequency. On an error of the text what was
/// complete before it is in the file, which is finished.
[[nodiscard]] Result<PerfImportReport> import_perf_script(std::unique_ptr<ByteSource> text, const std::string& name,
                                                          const std::string& output, const PerfImportOptions& options);

}  // namespace stackwatch
