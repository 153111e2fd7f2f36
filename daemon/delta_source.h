// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/alert.h"
#include "core/delta.h"
#include "core/process.h"
#include "core/result.h"

namespace stackwatch {

/// Everything that happened in one tick, as detectors may see it.
struct TickBatch {
  double time_s = 0;                       ///< end of the tick
  std::span<const ProcessSample> samples;  ///< the census; valid until the next next()
  std::vector<NamedDelta> deltas;    ///< per attached process and probe in order of time; a delta whose names came
                                     ///< late carries its own earlier time
  std::vector<ProcessKey> replaced;  ///< attached processes that execute another program since the last batch: what was
                                     ///< learned about them is about the old one
  std::vector<ProcessKey> exits;     ///< attached processes that have ended; their last deltas were in this or an
                                     ///< earlier batch
  std::vector<ProcessKey> detached;  ///< processes that live on and are watched no longer; likewise
  /// CLOCK_REALTIME minus the time line of time_s; nothing where the source leaves that to whoever has a clock. Part of
  /// the batch, so that a replay tells the same times of day.
  std::optional<int64_t> realtime_offset_ns;
};

/// Where deltas come from: live probes, a capture, a test. What comes after cannot tell them apart.
class DeltaSource {
 public:
  virtual ~DeltaSource() = default;
  /// The next tick; nothing where the source has ended.
  [[nodiscard]] virtual Result<std::optional<TickBatch>> next() = 0;
  /// What is known about a process that appeared in a batch.
  [[nodiscard]] virtual ProcessIdentity identify(const ProcessKey& process) const = 0;
  /// Losses of all probes of a process since it was attached.
  [[nodiscard]] virtual Losses losses(const ProcessKey& process, ProbeKind probe) const = 0;
};

}  // namespace stackwatch
