// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string_view>

#include "core/delta.h"
#include "core/finding.h"

namespace stackwatch {

/// Watches one probe of one process. Deterministic: the same deltas give the same findings; it reads no clock and does
/// no I/O. Sees every tick in order, empty ones too. A finding at a tick rests on that tick and earlier ones alone.
class Detector {
 public:
  virtual ~Detector() = default;
  [[nodiscard]] virtual std::string_view name() const = 0;
  /// What this detector claims at this tick; nothing where it sees no change (any more). While a change stands, the
  /// finding is repeated at every tick, with the same onset unless a better estimate exists.
  [[nodiscard]] virtual std::optional<Finding> observe(const NamedDelta& delta) = 0;
};

/// How wrong the detectors of a host may be, and what is worth telling. Shared by all detectors.
struct DetectionPolicy {
  double false_alarms = 1;             ///< at most so many false alarms …
  double false_alarm_period_s = 30 * 86400.0;  ///< … in this time on the whole host
  double tick_s = 1;                   ///< nominal length of a tick
  double expected_streams = 1000;      ///< number of streams on the host that share the budget
  double min_change_share = 0.02;      ///< smallest change of a share that is worth telling, absolute
  double min_change_cores = 0.02;      ///< smallest change in CPU cores that is worth telling
};

}  // namespace stackwatch
