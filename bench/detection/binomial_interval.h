// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>

namespace stackwatch {

/// Exact interval of 95 % for a probability (Clopper and Pearson 1934): bounds at which so few, or so many, hits would
/// have had a chance of 2.5 %. {0, 1} where there was no trial.
[[nodiscard]] std::pair<double, double> binomial_interval(int hits, int trials);

}  // namespace stackwatch
