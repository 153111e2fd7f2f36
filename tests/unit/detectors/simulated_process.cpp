// SPDX-License-Identifier: Apache-2.0
#include "simulated_process.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace stackwatch {

SimulatedProcess::SimulatedProcess(std::vector<Leaf> leaves, uint64_t seed, double samples_per_tick)
    : random_(seed), leaves_(std::move(leaves)), samples_(samples_per_tick), wander_(leaves_.size()) {
  for (const Leaf& leaf : leaves_) {
    std::vector<FunctionId> frames;
    for (const std::string& name : leaf.stack) frames.push_back(functions_.intern(leaf.object, name));
    ids_.push_back(stacks_.intern(frames));
  }
  delta_.process = {4711, 0};
  delta_.probe = ProbeKind::kOnCpu;
  delta_.frequency_hz = 99;
  delta_.stacks = &stacks_;
  delta_.functions = &functions_;
  cumulative_.resize(leaves_.size());
  counts_.resize(leaves_.size());
}

void SimulatedProcess::move_share(size_t from, size_t to, double share) {
  leaves_[from].share -= share;
  leaves_[to].share += share;
}

void SimulatedProcess::set_wandering(double deviation, double correlation_ticks) {
  wandering_ = deviation;
  memory_ = std::exp(-1 / correlation_ticks);
  std::normal_distribution<double> normal;
  for (double& w : wander_) w = deviation * normal(random_);
}

void SimulatedProcess::draw_shares() {
  std::normal_distribution<double> normal;
  std::vector<double> shares(leaves_.size());
  for (size_t i = 0; i < leaves_.size(); ++i) {
    if (wandering_ > 0) {
      wander_[i] = memory_ * wander_[i] + std::sqrt(1 - memory_ * memory_) * wandering_ * normal(random_);
    }
    shares[i] = leaves_[i].share * (wandering_ > 0 ? std::exp(wander_[i]) : 1);
  }
  const double total = std::accumulate(shares.begin(), shares.end(), 0.0);
  for (double& share : shares) share /= total;
  if (dispersion_ > 1 && samples_ > dispersion_) {
    // var = n p q (1 + (n - 1) rho) with rho = 1 / (concentration + 1).
    const double rho = (dispersion_ - 1) / (samples_ - 1);
    const double concentration = 1 / rho - 1;
    for (double& share : shares) {
      if (share > 0) share = std::gamma_distribution<double>(share * concentration)(random_);
    }
  }
  std::partial_sum(shares.begin(), shares.end(), cumulative_.begin());
}

const NamedDelta& SimulatedProcess::tick() {
  draw_shares();
  const int64_t samples =
      poisson_ ? std::poisson_distribution<int64_t>(samples_)(random_) : static_cast<int64_t>(samples_);
  std::fill(counts_.begin(), counts_.end(), 0);
  std::uniform_real_distribution<double> uniform(0, cumulative_.back());
  for (int64_t i = 0; i < samples; ++i) {
    const auto at = std::upper_bound(cumulative_.begin(), cumulative_.end() - 1, uniform(random_));
    ++counts_[static_cast<size_t>(at - cumulative_.begin())];
  }
  delta_.values.clear();
  for (size_t i = 0; i < counts_.size(); ++i) {
    if (counts_[i] > 0) delta_.values.push_back({ids_[i], counts_[i]});
  }
  delta_.time_s += 1;
  delta_.interval_s = 1;
  delta_.exposure_s = static_cast<double>(samples) / delta_.frequency_hz;
  return delta_;
}

}  // namespace stackwatch
