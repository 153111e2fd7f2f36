// SPDX-License-Identifier: Apache-2.0
#include "cli/import.h"

#include <fmt/format.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "capture/perf_import.h"
#include "cli/output.h"
#include "cli/text.h"

namespace stackwatch {
namespace {

std::string summary(const PerfImportReport& report) {
  std::string text = fmt::format("{} samples of {} in {} ticks of {} processes, {:.1f} Hz by {}\n", report.read.samples,
                                 safe_text(report.survey.event, 64), report.ticks, report.processes,
                                 report.survey.frequency_hz.value_or(0), report.survey.frequency_from);
  for (const auto& [event, samples] : report.read.skipped) {
    text += fmt::format("skipped {} samples of {}\n", samples, safe_text(event, 64));
  }
  if (report.idle > 0) text += fmt::format("left out {} samples of idle CPUs\n", report.idle);
  if (report.late > 0) text += fmt::format("{} samples out of order are in a later tick\n", report.late);
  if (report.read.bad_lines > 0) {
    text +=
        fmt::format("left out {} bad lines, the first is line {}\n", report.read.bad_lines, report.read.first_bad_line);
  }
  if (!report.survey.has_pids) {
    text += "the text has threads and no processes: each thread counts as a process (perf script -F +pid tells both)\n";
  }
  return text;
}

}  // namespace

Result<void> run_import(const Options& options) {
  auto text = open_file(options.input);
  if (!text) return Failure(text.error());
  PerfImportOptions import;
  import.event = options.import_event;
  import.frequency_hz = options.import_frequency_hz;
  import.tick_s = options.import_tick_s;
  import.skip_bad_lines = options.skip_bad_lines;
  import.started_ns = options.import_started_ns;
  const std::string name = options.input == "-" ? "standard input" : options.input;
  auto report = import_perf_script(std::move(*text), name, options.output, import);
  if (!report) return Failure(report.error());
  return write_output(STDERR_FILENO, summary(*report));
}

}  // namespace stackwatch
