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
  double evidence = 20;   ///< natural logarithm of the evidence that a finding needs, > 0
};
struct LevelBaseline {
  double level = 0;              ///< mean per unit of exposure
  double variance = 0;           ///< long-run variance per unit of exposure, > 0
  double exposure = 0;           ///< length of the baseline, > 0
  double min_change = 0;         ///< smallest increase of the level worth telling, > 0
  double min_decrease = 0;       ///< likewise downwards; 0: as upwards
  bool may_decrease = true;      ///< whether decreases are looked for at all
  bool may_be_negative = false;  ///< the level is not bounded by 0: decreases reach as far as increases
};

/// Half-width of the interval in which the true level is taken to lie, in standard errors. The evidence is measured
/// against the edge of it that is nearest to the alternative, and alternatives begin at twice the edge's distance, so
/// that the drift is downwards until the baseline is wrong by 3.75 standard errors.
inline constexpr double kEdge = 2.5;

/// The share that a baseline makes us believe in: never 0 or 1, which one stray sample would refute. One independent
/// observation (as many samples as the dispersion) is added on each side: for what was never seen, the mean of the
/// exponential posterior.
[[nodiscard]] double believed_share(const ShareBaseline& baseline);

/// n samples of baseline cannot prove a change of less than sqrt(2 evidence) standard errors, however long one looks
/// afterwards: the error of the difference is at least the baseline's own. This is that, with a margin of 1.4.
[[nodiscard]] double smallest_provable_change(const ShareBaseline& baseline);

/// Likelihood ratios of a count x of n samples: before the change x is beta-binomial with variance n p q dispersion;
/// the alternative is its exponential tilt with the changed mean. In closed form, with d the dispersion, p before and r
/// after: f = (r (d - 1) + p) / d, LLR = x (logit r - logit f) - n (log((1 - f)/(1 - r)) - KL(p, f)/(d - 1)).
/// For small changes it is the quasi-likelihood (the binomial ratio to the power 1/d), for d = 1 the binomial ratio.
/// For large ones it is flatter: samples in clumps have tails e^-x/d, and a ratio that grows faster than they fall
/// would turn a single clump into an alarm. Derived from the large-deviation rate of the beta-binomial (Dembo and
/// Zeitouni 1998, 2.2), which is exact where the share is small (negative binomial counts).
///
/// The baseline has an error itself. Over the m samples until an alternative is found, the counts vary around the
/// learned share as if the dispersion were 1 + m / (baseline's samples) times larger (the predictive distribution of a
/// beta posterior); each alternative is given that factor for its own m, so no margin has to be kept.
///
/// Sizes grow geometrically from the smallest change worth telling, or the smallest that can be proved: sizes that
/// nobody wants to hear of are not looked for at all, which is what keeps small slow fluctuations of real programs from
/// ever becoming evidence.
[[nodiscard]] Alternatives share_alternatives(const ShareBaseline& baseline);

/// Gaussian likelihood ratios with the long-run variance: x = value times exposure, n = exposure. The sizes upwards
/// reach 16 times the smallest, those downwards the level 0.
[[nodiscard]] Alternatives level_alternatives(const LevelBaseline& baseline);

}  // namespace stackwatch
