// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/alert.h"
#include "core/delta.h"
#include "core/losses.h"
#include "core/probe_kind.h"
#include "core/stacks.h"

namespace stackwatch {

/// What was counted in one interval.
struct CountReport {
  struct Probe {
    ProbeKind kind = ProbeKind::kOnCpu;
    double frequency_hz = 0;  ///< on_cpu
    int64_t total = 0;
    Losses lost;
    std::unordered_map<StackId, int64_t> values;
  };
  struct Process {
    ProcessIdentity identity;
    std::vector<Probe> probes;  ///< in order of ProbeKind
  };

  uint64_t begin_realtime_ns = 0;
  uint64_t end_realtime_ns = 0;
  double seconds = 0;              ///< wall time from the begin to the end
  std::vector<Process> processes;  ///< in order of their attaching
};

/// What the ids of a report mean.
struct CountNames {
  const FunctionTable& functions;
  const StackTable& stacks;
};

/// One stack of a report and its value.
struct CountRow {
  StackId stack;
  int64_t value = 0;
};
/// The rows of a probe, largest absolute value first.
[[nodiscard]] std::vector<CountRow> sorted_rows(const CountReport::Probe& probe);
/// Of all processes, for one kind.
[[nodiscard]] Losses losses_of(const CountReport& report, ProbeKind kind);
/// "3 map_full, 1 unwind_failed"; empty where nothing was lost.
[[nodiscard]] std::string losses_line(const Losses& lost);
/// Time in milliseconds that a value of a probe of time stands for: samples × period, or nanoseconds.
[[nodiscard]] double milliseconds(const CountReport::Probe& probe, int64_t value);

/// Takes deltas in and cuts them into intervals. One stack table for all processes, since those of attachments end with
/// them.
class CountLedger {
 public:
  /// Distinct stacks of functions of the whole run: twice what the kernel's map holds at a time, some 60 MB when full.
  /// Past that, values are under [other] and counted as stacks_full.
  static constexpr uint32_t kMaxStacks = 1U << 17;
  /// Processes in one interval; a build may start some thousands a minute. Past that, they are one process "[other]"
  /// with pid 0, counted as stacks_full.
  static constexpr size_t kMaxProcesses = 4096;

  explicit CountLedger(uint32_t max_stacks = kMaxStacks, size_t max_processes = kMaxProcesses)
      : stacks_(max_stacks), max_processes_(max_processes) {}

  /// Starts the first interval.
  void begin(double now_s, uint64_t realtime_ns);
  /// A process that is attached: it is in this interval's report, and in later ones until it is left out.
  void enter(const ProcessIdentity& identity, const std::vector<ProbeKind>& kinds, double frequency_hz);
  /// It executes another program; the reports that are open know it under the new name.
  void rename(const ProcessIdentity& identity);
  /// It is not in the intervals that begin from now on.
  void leave(const ProcessKey& process);
  /// Belongs to the interval that its time lies in.
  void add(const NamedDelta& delta);
  /// What was lost of a process that was never attached.
  void add_lost(ProbeKind kind, LossReason reason, uint64_t count);
  /// Ends the interval, and begins the next.
  void cut(double now_s, uint64_t realtime_ns);
  /// Ends the last interval, which takes in what lies up to `last_s` too.
  void close(double now_s, uint64_t realtime_ns, double last_s);
  /// The oldest interval that has ended, if all deltas up to its end were added; `waiting_since_s` is the time of the
  /// oldest that was not, or infinity.
  [[nodiscard]] std::optional<CountReport> take_complete(double waiting_since_s);

  [[nodiscard]] const StackTable& stacks() const { return stacks_; }

 private:
  struct Interval {
    CountReport report;
    double begin_s = 0;
    double end_s = 0;  // 0: it is the current one
    std::unordered_map<ProcessKey, size_t> index;
  };
  struct Entered {
    ProcessIdentity identity;
    std::vector<ProbeKind> kinds;
    double frequency_hz = 0;
    uint64_t order = 0;
  };
  CountReport::Process& process_in(Interval& interval, const ProcessKey& key);
  CountReport::Process& place(Interval& interval, const Entered& entered);
  static CountReport::Probe& probe_in(CountReport::Process& process, ProbeKind kind);

  StackTable stacks_;
  size_t max_processes_;
  std::vector<Interval> intervals_;  // oldest first; few: names are waited for some seconds
  std::unordered_map<ProcessKey, Entered> entered_;
  uint64_t order_ = 0;
};

}  // namespace stackwatch
