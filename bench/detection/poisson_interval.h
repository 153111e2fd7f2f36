// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>

namespace stackwatch {

/// Exact interval of 95 % for the mean of a Poisson count (Garwood 1936): bounds at which so few, or so many, would
/// have had a chance of 2.5 %.
[[nodiscard]] std::pair<double, double> poisson_interval(int events);

}  // namespace stackwatch
