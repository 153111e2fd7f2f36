// SPDX-License-Identifier: Apache-2.0
#include "daemon/entitlement.h"

#include <algorithm>
#include <cmath>

namespace stackwatch {

double weight_of_nice(int nice) { return 1024.0 * std::pow(1.25, -std::clamp(nice, -20, 19)); }

double Entitlement::weight(const ProcessSample& process) {
  constexpr double kIdleWeight = 3;  // WEIGHT_IDLEPRIO
  if (process.policy == SchedulingPolicy::kIdle) return kIdleWeight;
  return weight_of_nice(process.nice);
}

void Entitlement::begin_tick(const std::vector<const ProcessSample*>& active) {
  total_weight_ = 0;
  for (const ProcessSample* process : active) total_weight_ += weight(*process);
}

double Entitlement::cores(const ProcessSample& process) const {
  const double most = std::min<double>(cpus_, std::max(1U, process.threads));
  // Real-time threads go before everybody else.
  if (process.policy == SchedulingPolicy::kFifo || process.policy == SchedulingPolicy::kRoundRobin ||
      process.policy == SchedulingPolicy::kDeadline) {
    return most;
  }
  const double own = weight(process);
  return std::clamp(cpus_ * own / std::max(total_weight_, own), 1e-3, most);
}

}  // namespace stackwatch
