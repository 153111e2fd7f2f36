// SPDX-License-Identifier: Apache-2.0
#include "core/census_delta.h"

#include <cmath>

namespace stackwatch {

std::optional<CensusDelta> census_delta(const ProcessSample& before, double before_s, const ProcessSample& after,
                                        double after_s) {
  CensusDelta out;
  out.process = after.key;
  out.time_s = after_s;
  out.interval_s = after_s - before_s;
  if (!std::isfinite(out.interval_s) || out.interval_s <= 0 || before.key != after.key) return std::nullopt;
  bool forward = true;
  const auto difference = [&forward](uint64_t from, uint64_t to) {
    forward = forward && to >= from;
    return to >= from ? static_cast<double>(to - from) : 0.0;
  };
  out.on_cpu_s = difference(before.on_cpu_ns, after.on_cpu_ns) * 1e-9;
  out.run_queue_s = difference(before.run_queue_ns, after.run_queue_ns) * 1e-9;
  out.voluntary_switches = difference(before.voluntary_switches, after.voluntary_switches);
  out.involuntary_switches = difference(before.involuntary_switches, after.involuntary_switches);
  out.minor_faults = difference(before.minor_faults, after.minor_faults);
  out.major_faults = difference(before.major_faults, after.major_faults);
  out.read_bytes = difference(before.read_bytes, after.read_bytes);
  out.write_bytes = difference(before.write_bytes, after.write_bytes);
  out.rss_bytes = static_cast<double>(after.rss_bytes);
  out.threads = after.threads;
  if (!forward) return std::nullopt;
  return out;
}

}  // namespace stackwatch
