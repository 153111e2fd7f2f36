// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unordered_map>
#include <vector>

#include "core/process.h"

namespace stackwatch {

/// The scheduler's weight of a nice value: 1024 at 0, a quarter more or less per step (sched_prio_to_weight).
[[nodiscard]] double weight_of_nice(int nice);

/// How many CPU cores each process may count on when everybody who is active wants all. What decides it today is the
/// nice value and the policy; cgroup weights, quotas and affinity belong here too.
class Entitlement {
 public:
  explicit Entitlement(unsigned cpus) : cpus_(cpus) {}

  /// Tells who competes in this tick: `active` are the processes that used the CPU or waited for it.
  void begin_tick(const std::vector<const ProcessSample*>& active);
  /// In cores, more than 0. Bounded by the number of threads: one thread can use one core.
  [[nodiscard]] double cores(const ProcessSample& process) const;

 private:
  [[nodiscard]] static double weight(const ProcessSample& process);
  unsigned cpus_;
  double total_weight_ = 0;
};

}  // namespace stackwatch
