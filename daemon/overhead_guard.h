// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/probe_kind.h"
#include "core/process.h"

namespace stackwatch {

/// Holds sampling and off-CPU counting to [limits] overhead_percent_per_process, by what one event costs and how many
/// there are. (The memory probe measures its own cost: bpf/memory_engine.h.) The costs are those of docs/performance.md
/// on the project's kind of machine; other machines differ by a factor of two or so, not of ten. Overhead is a share
/// of the CPU time that the process would take without probes. One thread.
class OverheadGuard {
 public:
  /// One sample with both call chains, one switch with the walk of its stack.
  static constexpr double kSampleNs = 13'800;
  static constexpr double kSwitchNs = 2'700;
  /// Looked at over so long.
  static constexpr double kWindowS = 5;
  /// Less than this share of a core is left alone, whatever part of a nearly idle process it is.
  static constexpr double kNegligibleCores = 0.01;
  /// Waits are counted again when they would have cost less than half of the limit for so long.
  static constexpr double kCalmS = 60;

  void set_limit(double percent) { limit_percent_ = percent; }
  /// The highest rate at which samples cost no more than the limit.
  [[nodiscard]] double max_frequency_hz() const { return limit_percent_ / 100 * 1e9 / kSampleNs; }

  /// Once per tick for each process in which somebody wants waits counted, whether they are at the moment or not.
  void observe(double time_s, const ProcessSample& sample);
  /// Forgets who was not observed since the last call.
  void end_tick();
  /// `probes` without those that cost the process too much; on_cpu where nothing else remains.
  [[nodiscard]] std::vector<ProbeKind> allowed(const ProcessKey& process, const std::vector<ProbeKind>& probes) const;
  /// Of these probes at this rate, as estimated.
  [[nodiscard]] double overhead_percent(const ProcessKey& process, const std::vector<ProbeKind>& probes,
                                        double frequency_hz) const;
  /// Why waits are left out; empty where they are not.
  [[nodiscard]] std::string note(const ProcessKey& process) const;

 private:
  struct Load {
    double begun_s = 0;
    uint64_t switches = 0;
    uint64_t on_cpu_ns = 0;
    double switches_per_s = 0;
    double percent = 0;  ///< what counting the waits costs, or would
    double calm_since_s = 0;
    bool dropped = false;
    bool seen = false;
  };
  void judge(Load& load, double time_s, double seconds, uint64_t switches, uint64_t on_cpu_ns) const;

  double limit_percent_ = 5;
  std::unordered_map<ProcessKey, Load> loads_;
};

[[nodiscard]] constexpr bool counts_waits(ProbeKind kind) {
  return kind == ProbeKind::kBlocked || kind == ProbeKind::kRunQueue;
}

}  // namespace stackwatch
