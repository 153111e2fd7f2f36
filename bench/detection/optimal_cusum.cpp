// SPDX-License-Identifier: Apache-2.0
#include "optimal_cusum.h"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>

namespace stackwatch {
namespace {

// States of the statistic between 0 and the threshold: twice as many move the run length by less than 3 %.
constexpr int kStates = 300;
constexpr int kRunIn = 300;

double log_binomial(int n, int k, double p) {
  return std::lgamma(n + 1) - std::lgamma(k + 1) - std::lgamma(n - k + 1) + k * std::log(p) + (n - k) * std::log1p(-p);
}

}  // namespace

OptimalCusum::OptimalCusum(double before, double after, int samples, double average_run_length)
    : before_(before),
      after_(after),
      samples_(samples),
      per_count_(std::log(after / before) - std::log((1 - after) / (1 - before))),
      constant_(samples * std::log((1 - after) / (1 - before))) {
  double low = 0.1;
  double high = std::log(average_run_length) + 1;
  for (int i = 0; i < 25; ++i) {
    const double middle = (low + high) / 2;
    (run_length(middle) < average_run_length ? low : high) = middle;
  }
  threshold_ = high;
}

// Mean first passage time of the Markov chain of the binned statistic, from 0.
double OptimalCusum::run_length(double threshold) const {
  const double width = threshold / kStates;
  Eigen::MatrixXd stay = Eigen::MatrixXd::Identity(kStates, kStates);
  for (int count = 0; count <= samples_; ++count) {
    const double probability = std::exp(log_binomial(samples_, count, before_));
    if (probability < 1e-16) continue;
    for (int from = 0; from < kStates; ++from) {
      const double at = from == 0 ? 0 : (from + 0.5) * width;
      const int to = static_cast<int>(std::floor(std::max(0.0, at + step(count)) / width));
      if (to < kStates) stay(from, to) -= probability;
    }
  }
  return stay.partialPivLu().solve(Eigen::VectorXd::Ones(kStates))(0);
}

int OptimalCusum::delay(std::mt19937_64& random) const {
  std::binomial_distribution<int> quiet(samples_, before_);
  std::binomial_distribution<int> changed(samples_, after_);
  double statistic = 0;
  for (int i = 0; i < kRunIn; ++i) {
    statistic = std::max(0.0, statistic + step(quiet(random)));
    if (statistic >= threshold_) statistic = 0;  // a false alarm before the change is not a detection of it
  }
  int ticks = 0;
  while (statistic < threshold_) {
    statistic = std::max(0.0, statistic + step(changed(random)));
    ++ticks;
  }
  return ticks;
}

}  // namespace stackwatch
