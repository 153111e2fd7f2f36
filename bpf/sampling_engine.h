// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>

#include "bpf/given_events.h"
#include "core/clock.h"
#include "core/probe.h"

namespace stackwatch {

class UnwindMaps;

struct SamplingLimits {
  /// Distinct stacks of all attached processes together. 65,536 entries take 6.8 MB; past that, samples of new stacks
  /// are lost and counted as map_full.
  uint32_t stacks = 65536;
  /// Processes, adopted children included. 4,096 take 0.6 MB.
  uint32_t processes = 4096;
  /// Ring buffer for frames of new stacks, a power of two. 1 MB holds about 2,400 stacks of 50 frames: those of a
  /// 128-CPU machine for 200 ms at 99 Hz when every sample is a new stack, and the loop drains it as it fills.
  uint32_t ring_bytes = 1U << 20;
};

/// Those of page faults: far fewer stacks touch fresh memory than use the CPU.
inline constexpr SamplingLimits kPageFaultLimits = {.stacks = 16384, .processes = 4096, .ring_bytes = 1U << 18};

/// Page faults per sample. Everybody's faults are counted by the kernel, one in so many runs the program: prime, so
/// that a loop which faults so many pages a round is not always met at the same place.
inline constexpr uint32_t kPageFaultPeriod = 31;

/// Samples on-CPU stacks of processes: user frames by `unwind`'s tables (without it by frame pointers), kernel frames,
/// joined. One clock event per CPU while any probe is attached, none otherwise; its rate is the highest that a probe
/// asks for, and each process is thinned to its own. Values are samples. `clock` must outlive the engine. Loads its
/// program at once, so that what the kernel or the privileges do not allow is known before anybody relies on it.
/// `given`: events that need not be opened. Errors: kUnsupported where BTF, privileges or perf events are missing.
[[nodiscard]] Result<std::unique_ptr<ProbeEngine>> make_on_cpu_engine(const Clock& clock, const SamplingLimits& limits,
                                                                      std::shared_ptr<UnwindMaps> unwind = nullptr,
                                                                      EventsByCpu given = {});

/// Samples the stacks that touch memory for the first time (or again after it was taken away): every
/// kPageFaultPeriod-th page fault of each CPU. Values are faults: kPageFaultPeriod per sample, so their error is that
/// of counting samples. Its program is loaded at the first attach.
[[nodiscard]] Result<std::unique_ptr<ProbeEngine>> make_page_fault_engine(const Clock& clock,
                                                                          const SamplingLimits& limits,
                                                                          std::shared_ptr<UnwindMaps> unwind = nullptr,
                                                                          EventsByCpu given = {});

}  // namespace stackwatch
