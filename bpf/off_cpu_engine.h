// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>

#include "core/clock.h"
#include "core/probe.h"

namespace stackwatch {

class UnwindMaps;

struct OffCpuLimits {
  /// Distinct stacks of all attached processes together. 65,536 entries take 6.8 MB; past that, time of new stacks is
  /// lost and counted (in nanoseconds) as map_full.
  uint32_t stacks = 65536;
  /// Processes, adopted children included. 4,096 take 0.6 MB.
  uint32_t processes = 4096;
  /// Threads of all attached processes together, 100 bytes each. Each wait of a further one is lost as watch_full.
  uint32_t threads = 16384;
  /// Ring buffer for frames of new stacks, a power of two: see SamplingLimits.
  uint32_t ring_bytes = 1U << 20;
};

/// Off-CPU time of all threads of a process, in nanoseconds, by the stack that they left the CPU with: kBlocked
/// (asleep) and kRunQueue (preempted, or awake and waiting for a CPU). A wait that goes on is counted up to each
/// collect; one that had begun before attaching is counted from then on, as kBeforeAttaching.
/// Blocked and run-queue time of a thread add up to wall time minus CPU time. `clock` must outlive the engine.
/// The program is loaded at the first attach.
[[nodiscard]] Result<std::unique_ptr<ProbeEngine>> make_off_cpu_engine(const Clock& clock, const OffCpuLimits& limits,
                                                                       std::shared_ptr<UnwindMaps> unwind = nullptr);

}  // namespace stackwatch
