// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace stackwatch {

/// Rows of a series, counted from 0; both ends belong to it.
struct Window {
  size_t first = 0;
  size_t last = 0;
};

/// A series with scores and the truth: what the scoring rules look at.
struct ScoredSeries {
  std::string name;
  std::vector<double> scores;   ///< one per row
  std::vector<Window> windows;  ///< in order, without overlap
};

/// What a detection, a false one and a missed window count.
struct NabProfile {
  const char* name;
  double true_positive;
  double false_positive;
  double false_negative;
};

inline constexpr std::array<NabProfile, 3> kNabProfiles{
    {{"standard", 1, 0.11, 1}, {"reward_low_FP_rate", 1, 0.22, 1}, {"reward_low_FN_rate", 1, 0.11, 2}}};

/// The scoring rules of the Numenta Anomaly Benchmark (Lavin and Ahmad 2015), version 1:
/// - a row is a detection where its score is at least the threshold; the first 15 % of a series (at most 750 rows) are
///   not scored;
/// - a window counts once, by its best detection: a scaled sigmoid that is 1 at its first row and falls towards 0 at
/// its
///   last one; a window without a detection costs `false_negative`;
/// - every detection outside costs up to `false_positive`: less right behind a window, by the same sigmoid;
/// - one threshold for all series; 0 is what no detection at all would have, 100 a detection at the first row of every
///   window.
struct NabResult {
  double score = 0;  ///< 0 is the null detector, 100 the perfect one; may be negative
  double threshold = 0;
  size_t windows = 0;
  size_t found = 0;
  size_t false_rows = 0;
};

/// At a given threshold. A corpus without windows has the score 0.
[[nodiscard]] NabResult nab_score(std::span<const ScoredSeries> corpus, const NabProfile& profile, double threshold);

/// At the one threshold that is best for the whole corpus.
[[nodiscard]] NabResult nab_best(std::span<const ScoredSeries> corpus, const NabProfile& profile);

/// The sigmoid of the rules: `position` is −1 at the first row of a window, 0 right behind its last one, and grows by 1
/// with each further length of the window.
[[nodiscard]] double nab_sigmoid(double position);

/// Rows at the beginning that are not scored.
[[nodiscard]] size_t nab_probation(size_t rows);

}  // namespace stackwatch
