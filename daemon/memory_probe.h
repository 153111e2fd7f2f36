// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "bpf/memory_engine.h"
#include "core/clock.h"
#include "core/probe.h"
#include "core/result.h"

namespace stackwatch {

/// The memory probe as one engine: the probes on allocator functions (bpf/), and the finder that tells where those are
/// (symbols/). A process that is attached is looked for by the finder; what it finds is handed on in drain() and
/// collect(). One thread.
class MemoryProbeEngine : public ProbeEngine {
 public:
  virtual void set_overhead_limit(double percent) = 0;
};

/// `clock` outlives it. Errors: as make_memory_engine() and make_allocator_finder().
[[nodiscard]] Result<std::unique_ptr<MemoryProbeEngine>> make_memory_probe_engine(
    const Clock& clock, const MemoryLimits& limits, std::shared_ptr<UnwindMaps> unwind = nullptr);

}  // namespace stackwatch
