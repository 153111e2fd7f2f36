// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace stackwatch {

/// Scores rows one by one, from what came before alone. Larger is more anomalous; NaN does not come in.
class SeriesScorer {
 public:
  virtual ~SeriesScorer() = default;
  [[nodiscard]] virtual double observe(std::span<const double> values) = 0;
};

struct NamedScorer {
  std::string name;
  std::function<std::unique_ptr<SeriesScorer>(size_t columns)> make;
};

/// What `stackwatch detect` does.
[[nodiscard]] NamedScorer our_scorer();

/// What a detector has to beat, each in the form that its users run:
/// - random: uniform; constant: one half;
/// - EWMA z-score: the largest distance from an exponential mean in exponential deviations (288 rows);
/// - k-means as Netdata does it: two clusters over five lags of smoothed differences, trained every 200 rows on the
/// last
///   800, six models kept; the distance to the nearest centre against the largest of the training, by the model that
///   finds it least unusual, averaged over columns;
/// - windowed G-test: the last 24 rows against the 500 before in ten bins of equal counts, p-values of the columns
///   adjusted as by Benjamini and Hochberg;
/// - streaming PCA: squared residual outside of the leading components (95 % of the variance) of an exponential
///   covariance, over all columns, or over twelve lags of a single one.
[[nodiscard]] std::vector<NamedScorer> baseline_scorers();

}  // namespace stackwatch
