// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

#include "core/process.h"

namespace stackwatch {

/// What one process did between two censuses, as a whole. The twin of NamedDelta for what has no stacks.
struct CensusDelta {
  ProcessKey process;
  double time_s = 0;       ///< end of the interval, same time line as NamedDelta::time_s
  double interval_s = 0;   ///< wall time between the two censuses, > 0
  double on_cpu_s = 0;     ///< CPU time, all threads
  double run_queue_s = 0;  ///< awake and waiting for a CPU, all threads; throttled by a quota counts too
  double voluntary_switches = 0;
  double involuntary_switches = 0;
  double minor_faults = 0;
  double major_faults = 0;
  double read_bytes = 0;   ///< from storage
  double write_bytes = 0;  ///< to storage
  double rss_bytes = 0;    ///< a level: at the end of the interval
  uint32_t threads = 0;    ///< likewise
  /// What wall clocks show at the end of the interval, as seconds since 1970-01-01 00:00 on them; negative: not known.
  /// May jump; detectors may use it to tell times of day, never to measure.
  int64_t local_s = -1;

  /// CPU time that it would have used had nobody been in its way.
  [[nodiscard]] double demand_s() const { return on_cpu_s + run_queue_s; }
};

/// The difference of two censuses of one process. Nothing where no time passed, or a counter went back: then it is
/// another process, or the numbers are garbage, and the later census is where to begin anew.
[[nodiscard]] std::optional<CensusDelta> census_delta(const ProcessSample& before, double before_s,
                                                      const ProcessSample& after, double after_s);

}  // namespace stackwatch
