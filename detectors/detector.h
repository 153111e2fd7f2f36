// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/census_delta.h"
#include "core/delta.h"
#include "core/finding.h"
#include "core/result.h"

namespace stackwatch {

/// How wrong the detectors of a host may be, and what is worth telling. Shared by all detectors.
struct DetectionPolicy {
  double false_alarms = 1;                     ///< at most so many false alarms …
  double false_alarm_period_s = 30 * 86400.0;  ///< … in this time on the whole host
  double tick_s = 1;                           ///< nominal length of a tick
  double expected_streams = 1000;              ///< number of streams on the host that share the budget
  double min_change_share = 0.02;              ///< smallest change of a share that is worth telling, absolute
  double min_change_cores = 0.02;              ///< smallest change in CPU cores that is worth telling
};

/// Watches one probe of one process, or its census. Deterministic: the same deltas give the same findings; it reads no
/// clock and does no I/O. Sees every tick in order, empty ones too. A finding at a tick rests on that tick and earlier
/// ones alone. Owned by the attachment; used by one thread at a time.
class Detector {
 public:
  virtual ~Detector() = default;
  /// The name in alerts and in the configuration, `[detectors.NAME]`; static storage.
  [[nodiscard]] virtual std::string_view name() const = 0;
  /// What this detector claims at this tick; nothing where it sees no change (any more). While a change stands, the
  /// finding is repeated at every tick, with the same frame and onset. A delta that makes no sense (time that goes
  /// back, a negative value where there can be none) is skipped: it is no evidence, for a change or against one.
  /// All deltas must come with the same stack table; another one makes the detector start to learn anew.
  [[nodiscard]] virtual std::optional<Finding> observe(const NamedDelta& delta) = 0;
  /// Other changes that stand at the tick of the last observe(), beside the one that it gave: each a finding of its
  /// own, repeated likewise. Nothing where it gave nothing.
  [[nodiscard]] virtual std::vector<Finding> further() const { return {}; }
  /// What the census says about the process in this tick, given before the tick's deltas. A detector of
  /// ProbeKind::kCensus answers here and never sees a delta; to others it is something to condition on, and they answer
  /// nothing. Not every source has a census: a detector of a probe must do without.
  [[nodiscard]] virtual std::optional<Finding> observe_census(const CensusDelta& census) {
    static_cast<void>(census);
    return std::nullopt;
  }
  /// A reloaded configuration, or a new count of the host's streams: in force from the next tick, nothing that was
  /// learned is lost.
  virtual void set_policy(const DetectionPolicy& policy) = 0;
  /// Under which name that is kept: its own for each of several detectors of one name. Static storage.
  [[nodiscard]] virtual std::string_view heritage_name() const { return name(); }
  /// What it has learned, for a successor of the process: versioned and bounded bytes, empty where there is nothing
  /// worth to be kept. The process may be gone; the tables of its last delta must not.
  [[nodiscard]] virtual std::string save() const { return {}; }
  /// Begins anew with what a predecessor had learned. An error where the bytes are not what save() gave (nothing has
  /// changed then), and where this detector keeps nothing.
  [[nodiscard]] virtual Result<void> restore(std::string_view saved) {
    static_cast<void>(saved);
    return fail(ErrorKind::kFailed, std::string(name()), "keeps nothing for a successor");
  }
  /// Whether it judges by a past that restore() gave: then its silence says that all is as it was in that past.
  [[nodiscard]] virtual bool remembers() const { return false; }
  /// Whether its silence says so of each change that stood in that past, while it tells another one, too.
  [[nodiscard]] virtual bool remembers_each() const { return false; }
  /// Number of series that it tests now. The sum over the host is what `expected_streams` should be.
  [[nodiscard]] virtual size_t streams() const = 0;
};

}  // namespace stackwatch
