// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/allocator.h"
#include "core/clock.h"
#include "core/probe.h"

namespace stackwatch {

class UnwindMaps;

struct MemoryLimits {
  /// Live allocations of all attached processes together. 1,048,576 take 100 MB when they are all there (16 MB of it
  /// at once, the rest as it is needed); past that, allocations are lost and their bytes counted as map_full.
  uint32_t addresses = 1U << 20;
  /// Threads that are in an allocator or were lately. 16,384 take 2 MB; past that, as above.
  uint32_t threads = 16384;
  /// Distinct stacks of all attached processes together, 6.8 MB.
  uint32_t stacks = 65536;
  /// Processes. 4,096 take 1.2 MB.
  uint32_t processes = 4096;
  /// Ring buffer for frames of new stacks, a power of two.
  uint32_t ring_bytes = 1U << 20;
  /// A process that the probe makes slower than this is let go of ([limits] overhead_percent_per_process).
  double overhead_percent = 5;
  /// From letting go of a process to looking at it again, …
  uint64_t pause_ns = 600'000'000'000;
  /// … for so long.
  uint64_t window_ns = 10'000'000'000;
  /// Tests: no uprobe_multi, as on kernels before 6.6.
  bool allow_multi = true;
};

enum class MemoryPhase {
  kWaiting,    ///< its allocator functions are not known yet (set_functions)
  kAttaching,  ///< probes are being put in
  kCounting,
  kPaused,   ///< let go of because it became too slow; is looked at again later
  kNothing,  ///< no allocator function was found: there is nothing to count
  kRefused,  ///< the kernel takes no probe in its allocator; the event said why
};

struct MemoryState {
  MemoryPhase phase = MemoryPhase::kWaiting;
  double calls_per_s = 0;       ///< into the allocator, as last measured
  double ns_per_call = 0;       ///< what one of them costs the process
  double overhead_percent = 0;  ///< of its CPU time without the probe
  std::string note;             ///< what a person should know: what cannot be counted, why it is paused; else empty
};

/// Something that was decided about a process, for the log.
struct MemoryEvent {
  ProcessKey process;
  Error text;
};

/// What the memory engine needs beyond being a ProbeEngine.
class MemoryControl {
 public:
  virtual ~MemoryControl() = default;
  /// Where the allocator functions of an attached process are. Again when more were found; what is known already is
  /// not attached twice. Ignored where the process is not attached. Does not block: probes are put in on a thread.
  virtual void set_functions(const AllocatorFunctions& functions) = 0;
  virtual void set_overhead_limit(double percent) = 0;
  [[nodiscard]] virtual std::optional<MemoryState> state(const ProcessKey& process) const = 0;
  [[nodiscard]] virtual std::vector<MemoryEvent> take_process_events() = 0;
  /// Blocks until all probes that were asked for are in, or out: for programs that have nothing else to do.
  virtual void wait_until_settled() = 0;
};

struct MemoryEngine {
  std::unique_ptr<ProbeEngine> engine;
  MemoryControl* control = nullptr;  ///< a part of `engine`
};

/// Counts outstanding bytes by allocating stack, exactly: probes on the allocator's functions. Values are bytes
/// allocated minus bytes freed since attaching, so they may be negative in an interval, never in sum. Attaching a probe
/// alone counts nothing: set_functions() must follow. Children (ProbeOptions) are reported by take_adopted() at the
/// next collect, and need their own set_functions() too. What an allocator's call costs the process is measured; one
/// that becomes slower than the limit is let go of, with an event, and looked at again for a short while from time to
/// time. `clock` outlives the engine. The program is loaded at the first attach. Errors: kUnsupported where BTF or
/// privileges are missing. Kernels that take no probes refuse the first attach.
[[nodiscard]] Result<MemoryEngine> make_memory_engine(const Clock& clock, const MemoryLimits& limits,
                                                      std::shared_ptr<UnwindMaps> unwind = nullptr);

}  // namespace stackwatch
