// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <random>

namespace stackwatch {

/// Page's CUSUM for a binomial count that is told both shares: no procedure with the same average run length has a
/// smaller worst mean delay (Moustakides 1986). What a detector that knows neither is measured against.
class OptimalCusum {
 public:
  /// `average_run_length` in ticks of `samples` samples: the threshold is solved for on a grid of the statistic.
  OptimalCusum(double before, double after, int samples, double average_run_length);

  /// Ticks from the change until the alarm, the statistic having run without a change before.
  [[nodiscard]] int delay(std::mt19937_64& random) const;
  [[nodiscard]] double threshold() const { return threshold_; }

 private:
  [[nodiscard]] double run_length(double threshold) const;
  [[nodiscard]] double step(int count) const { return per_count_ * count + constant_; }

  double before_;
  double after_;
  int samples_;
  double per_count_;
  double constant_;
  double threshold_ = 0;
};

}  // namespace stackwatch
