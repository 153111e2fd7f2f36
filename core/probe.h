// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/delta.h"
#include "core/process.h"
#include "core/result.h"

namespace stackwatch {

struct ProbeOptions {
  double frequency_hz = 99;  ///< on_cpu only
  bool children = false;     ///< its descendants, existing and later ones, are attached too
  bool mappings = false;     ///< memory only: mmap, munmap and mremap of the process are counted too
  int32_t pid_in_ns = 0;     ///< the pid that our own /proc shows; 0: the key's own. Only looked at when attaching
  ExecId exec{};             ///< the program that it ran when it was looked at; 0: not known. Only when attaching
  bool operator==(const ProbeOptions& other) const {
    return frequency_hz == other.frequency_hz && children == other.children && mappings == other.mappings;
  }
};

/// Counts one kind of value per stack in one process: all its threads, present and future.
/// Detaching is idempotent and happens in the destructor too; nothing of the probe is left in the kernel afterwards.
class Probe {
 public:
  virtual ~Probe() = default;
  [[nodiscard]] virtual ProbeKind kind() const = 0;
  [[nodiscard]] virtual Result<void> attach(const ProcessKey& process, const ProbeOptions& options) = 0;
  /// Other options from now on; what was counted stays. Where it fails the old ones may be half in force: set them
  /// again.
  [[nodiscard]] virtual Result<void> change(const ProbeOptions& options) = 0;
  /// What was counted since the last read (or since attaching). Valid after the process has exited too: its last
  /// counts are in the first read after its end.
  [[nodiscard]] virtual Result<StackDelta> read() = 0;
  virtual void detach() = 0;
};

/// What all probes of one kernel program share: its maps and its events. Outlives its probes.
class ProbeEngine {
 public:
  /// A process that the kernel side began to count because its parent is attached with `children`.
  struct Adopted {
    ProcessKey process;
    ProcessKey parent;
  };
  struct Cost {
    uint64_t map_bytes = 0;  ///< memory of the program's maps
    uint64_t runs = 0;       ///< runs of the program; 0 unless kernel.bpf_stats_enabled is set
    uint64_t run_ns = 0;     ///< time spent in them; likewise
    /// Runs that the kernel left out because the program already ran on that CPU, where it tells: it does so for
    /// tracing programs and uprobes, not for perf events. Without those that are in a process's losses: where one alone
    /// is attached they are its.
    uint64_t recursion_misses = 0;
  };

  virtual ~ProbeEngine() = default;
  /// What it counts: one kind, or several that one program tells apart.
  [[nodiscard]] virtual std::span<const ProbeKind> kinds() const = 0;
  /// Loads its program, which takes up to some 100 ms and else happens at the first attach: for whoever knows that
  /// there will be one and has the time now. Errors: as those of attach().
  [[nodiscard]] virtual Result<void> prepare() { return {}; }
  /// Whether attach() has no program to load first. Where it has, a thread begins to load it, and until that is done,
  /// which makes poll_fd() readable, this is false: for whoever must not wait, before each attach(). True after a
  /// failure too: attach() tells it.
  [[nodiscard]] virtual bool load_beside() { return true; }
  /// `kind` is one of kinds().
  [[nodiscard]] virtual std::unique_ptr<Probe> make_probe(ProbeKind kind) = 0;
  /// Readable when frames of new stacks wait: the loop then calls drain(), so that the kernel's buffer does not fill up
  /// between ticks. -1 where there is nothing to poll.
  [[nodiscard]] virtual int poll_fd() const = 0;
  virtual void drain() = 0;
  /// Once per tick, before the probes are read: takes the counts of all attached processes out of the kernel.
  [[nodiscard]] virtual Result<void> collect() = 0;
  /// Processes adopted since the last call, each once something is counted in it. Each must be given probes (attach()
  /// takes over what is already counted) or be refused with forget().
  [[nodiscard]] virtual std::vector<Adopted> take_adopted() = 0;
  virtual void forget(const ProcessKey& process) = 0;
  [[nodiscard]] virtual Cost cost() const = 0;
  /// Blocks, at most so long, until what is attached really counts, where that takes its time: for programs that have
  /// nothing else to do.
  virtual void wait_until_counting(double /*seconds*/) {}
  /// Whether what it was given at the start is of no use any more, and only a new start of this program brings new.
  [[nodiscard]] virtual bool wants_restart() const { return false; }
  /// What a person should know, each once: the caller logs it.
  [[nodiscard]] virtual std::vector<Error> take_events() { return {}; }
  /// Why an attached process is not counted, or not wholly; empty where it is.
  [[nodiscard]] virtual std::string note(const ProcessKey& /*process*/) const { return {}; }
};

}  // namespace stackwatch
