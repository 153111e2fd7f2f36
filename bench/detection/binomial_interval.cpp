// SPDX-License-Identifier: Apache-2.0
#include "binomial_interval.h"

#include <cmath>

namespace stackwatch {
namespace {

constexpr double kTail = 0.025;

/// Chance of at most `hits`.
double at_most(int hits, int trials, double probability) {
  if (probability <= 0) return 1;
  if (probability >= 1) return hits >= trials ? 1 : 0;
  double sum = 0;
  for (int k = 0; k <= hits; ++k) {
    sum += std::exp(std::lgamma(trials + 1) - std::lgamma(k + 1) - std::lgamma(trials - k + 1) +
                    k * std::log(probability) + (trials - k) * std::log1p(-probability));
  }
  return sum;
}

/// Where at_most() falls through `chance`.
double probability_where(int hits, int trials, double chance) {
  double low = 0;
  double high = 1;
  for (int i = 0; i < 60; ++i) {
    const double middle = (low + high) / 2;
    (at_most(hits, trials, middle) > chance ? low : high) = middle;
  }
  return low;
}

}  // namespace

std::pair<double, double> binomial_interval(int hits, int trials) {
  return {hits == 0 ? 0 : probability_where(hits - 1, trials, 1 - kTail),
          hits == trials ? 1 : probability_where(hits, trials, kTail)};
}

}  // namespace stackwatch
