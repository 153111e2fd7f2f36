// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "core/delta.h"
#include "core/process.h"
#include "core/stacks.h"

namespace stackwatch {

/// How often each stack of functions is on a CPU, machine-wide, now and in its own past, and in which processes.
/// "Now" and "the past" are exponentially weighted means of samples per second of wall time, in cores, with half-lives
/// of kNowHalfLifeS and kPastHalfLifeS; those of a young process are the plain mean of what was seen. The score is
/// the signed square root of twice the log-likelihood ratio of a Poisson count over the last kNowHalfLifeS against the
/// past's rate: about a number of standard deviations. It orders a list for people; it is no test, and nobody is
/// alerted by it.
class StackBoard {
 public:
  static constexpr double kNowHalfLifeS = 15;
  static constexpr double kPastHalfLifeS = 600;
  /// A process has no past before: its stacks are listed, with score 0.
  static constexpr double kLearnS = 60;
  /// (process, stack) pairs kept, some 100 bytes each: 6 MB. Those with least CPU time go first.
  static constexpr size_t kMaxEntries = 65536;
  /// Processes named per row.
  static constexpr size_t kMaxProcessesPerRow = 16;

  struct Share {
    ProcessKey process;
    double now_cores = 0;
    double past_cores = 0;
  };
  struct Row {
    std::vector<FunctionId> frames;  ///< root first
    double score = 0;
    double now_cores = 0;
    double past_cores = 0;
    std::vector<Share> processes;  ///< largest change first
  };

  /// On-CPU deltas of one tick, in any order; deltas of other probes are not looked at.
  void observe(double time_s, const std::vector<NamedDelta>& deltas);
  /// The process has ended or is watched no longer.
  void forget(const ProcessKey& process) { processes_.erase(process); }
  /// Most unusual first.
  [[nodiscard]] std::vector<Row> unusual(size_t limit) const;
  [[nodiscard]] size_t entries() const;

 private:
  struct Entry {
    double now_cores = 0;
    double past_cores = 0;
    double updated_s = 0;
    double frequency_hz = 0;
  };
  struct Process {
    double seen_s = 0;                   ///< begin of its first interval
    const StackTable* stacks = nullptr;  ///< valid while the process is attached
    std::unordered_map<StackId, Entry> entries;
  };

  static void decay(Entry& entry, double seen_s, double time_s);
  void make_room();

  std::unordered_map<ProcessKey, Process> processes_;
  double time_s_ = 0;
};

}  // namespace stackwatch
