// SPDX-License-Identifier: Apache-2.0
#include "poisson_interval.h"

#include <cmath>

namespace stackwatch {
namespace {

constexpr double kTail = 0.025;

/// Chance of at most `events`.
double at_most(int events, double mean) {
  double term = std::exp(-mean);
  double sum = term;
  for (int i = 1; i <= events; ++i) sum += term *= mean / i;
  return sum;
}

/// Where at_most() falls through `chance`.
double mean_where(int events, double chance) {
  double low = 0;
  double high = 20 + 3.0 * events;
  for (int i = 0; i < 100; ++i) {
    const double middle = (low + high) / 2;
    (at_most(events, middle) > chance ? low : high) = middle;
  }
  return low;
}

}  // namespace

std::pair<double, double> poisson_interval(int events) {
  return {events == 0 ? 0 : mean_where(events - 1, 1 - kTail), mean_where(events, kTail)};
}

}  // namespace stackwatch
