// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "detectors/evidence.h"

namespace stackwatch {

/// What is known about a stream before a change, and which changes of it are worth telling.
struct ShareBaseline {
  double count = 0;       ///< samples of the stream in the baseline
  double total = 0;       ///< all samples in the baseline, > 0
  double dispersion = 1;  ///< >= 1
  double min_change = 0;  ///< smallest change of the share worth telling, > 0
};
struct LevelBaseline {
  double level = 0;       ///< mean per unit of exposure
  double variance = 0;    ///< long-run variance per unit of exposure, > 0
  double exposure = 0;    ///< length of the baseline, > 0
  double min_change = 0;  ///< smallest change of the level worth telling, > 0
};

/// Half-width of the interval in which the true baseline is taken to lie, in standard errors. The evidence is measured
/// against the edge of it that is nearest to the alternative, and an alternative joins only at twice the edge's
/// distance or further out, so that the drift is downwards until the baseline is wrong by 3.75 standard errors. Larger
/// is safer and slower; with an hour of baseline it costs 10 -> 11 % about a tenth of its delay.
inline constexpr double kEdge = 2.5;

/// Where a share may lie that gave `count` of `total`: Wilson's score interval on counts divided by the dispersion.
/// It is right for 0 of n too, where most intervals are not.
struct ShareInterval {
  double low = 0;
  double high = 1;
};
[[nodiscard]] ShareInterval share_interval(const ShareBaseline& baseline);

/// Binomial likelihood ratios to the power 1/dispersion (quasi-likelihood): x counts of n samples. Sizes grow
/// geometrically from min_change to nearly the largest possible: sizes that nobody wants to hear of are not looked for
/// at all, which is what keeps small slow fluctuations of real programs from ever becoming evidence.
[[nodiscard]] Alternatives share_alternatives(const ShareBaseline& baseline);

/// Gaussian likelihood ratios with the long-run variance: x = value times exposure, n = exposure. The sizes upwards
/// reach 64 times the smallest, those downwards the level 0.
[[nodiscard]] Alternatives level_alternatives(const LevelBaseline& baseline);

}  // namespace stackwatch
