// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "nab_score.h"

namespace stackwatch {

/// Volume under the surface of precision and recall (Paparrizos et al. 2022): the area under the curve over all
/// thresholds, averaged over widths of a buffer from 0 to `max_buffer` rows. The buffer surrounds each window, half on
/// each side, with labels that fall like a root from 1 to 0; recall is multiplied by the part of the windows that were
/// touched. 1 is perfect; what chance has is about the part of rows that is anomalous. Nothing is adjusted by points: a
/// window is not found whole because one of its rows was.
[[nodiscard]] double vus_pr(std::span<const double> scores, std::span<const Window> windows, size_t max_buffer);

}  // namespace stackwatch
