// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Eigen/Core>
#include <array>
#include <cstddef>
#include <deque>
#include <span>
#include <utility>
#include <vector>

namespace stackwatch {

/// Of plain series. Chosen on public series (docs/detection_proof.md); rows are whatever the series has.
struct SeriesSettings {
  size_t history_rows = 4096;      ///< how far back a like is looked for: two weeks of five minutes
  size_t calibration_rows = 2048;  ///< past distances that a new one is compared with
  double tail = 0.1;               ///< the part of them that the tail is fitted to
  size_t refractory_rows = 150;    ///< so long only what is more surprising than before counts in full
  unsigned scales = 7;             ///< a bit for each of SeriesColumn::kLengths: all
  double repeated = 0.3;           ///< the factor for the rest of an episode
};

/// How unusual a value is among those before it: a conformal p-value (Laxhammar and Falkman 2014), beyond the last
/// tenth continued by a Pareto tail whose index is estimated as by Hill (1975), shrunken towards 1/2 by two
/// observations. Assumes that past values are exchangeable with the new one; where they are not, it ranks and promises
/// no rate.
class SeriesTail {
 public:
  SeriesTail(size_t capacity, double tail) : capacity_(capacity), tail_(tail) {}

  /// −ln p, from 0 to most(). 0 while fewer than 20 values are known. Values below `floor` do not differ.
  [[nodiscard]] double surprise(double value, double floor) const;
  void add(double value);
  /// Beyond that a tail of so few values says nothing.
  [[nodiscard]] double most() const;

 private:
  size_t capacity_;
  double tail_;
  std::vector<double> sorted_;
  std::deque<double> order_;
};

/// The distance of the latest `length` rows to the most similar stretch of the past, at one scale: the left matrix
/// profile (Yeh et al. 2016; causal as in Lu et al. 2022), with absolute differences of raw values, so that levels
/// count and one spike does not outweigh all else. Distances of all lags are carried on from row to row.
class SeriesScale {
 public:
  SeriesScale(size_t length, const SeriesSettings& settings);

  /// `past`: the series, newest first; `rows`: so many of it are known. `deviation`: its mean absolute deviation.
  /// −ln p; 0 where there is no past to compare with.
  [[nodiscard]] double observe(const double* past, size_t rows, double deviation);

 private:
  void sum_up(const double* past, size_t lag);
  void refresh(const double* past, size_t lags);
  void drop_oldest(const double* past, size_t rows, double deviation);

  size_t length_;
  Eigen::ArrayXd distance_;  // by lag − 1
  Eigen::ArrayXd left_;      // what leaves it at this row
  size_t refreshed_ = 0;
  SeriesTail tail_;
};

/// One column: its past, and three scales of it.
class SeriesColumn {
 public:
  /// A third of an hour, an hour, four hours of a series of five minutes. What one misses another finds: the table of
  /// docs/detection_proof.md tells what each contributes.
  static constexpr std::array<size_t, 3> kLengths{4, 12, 48};

  explicit SeriesColumn(const SeriesSettings& settings);

  /// NaN is missing: the last value stands in, and the row is no evidence. Else the mean of the largest and the average
  /// surprise of the scales.
  [[nodiscard]] double observe(double value);

 private:
  void push(double value);

  size_t history_;
  std::vector<double> past_;  // newest first from begin_ on; filled from the end towards the front
  size_t begin_;
  size_t rows_ = 0;
  double mean_ = 0;
  double deviation_ = 0;
  std::vector<SeriesScale> scales_;
};

/// Scores each row of a series by what came before it. Deterministic, causal: a score never depends on later rows, nor
/// on the length. About 20 µs and 370 kB per column. Not tied to time: rows should be about equally far apart.
///
/// It finds stretches unlike any before: spikes, shifts, a missing or additional peak. It does not find slow drifts,
/// nor what has happened once before. Of many columns, the three most surprising count, by their mean.
class SeriesDetector {
 public:
  explicit SeriesDetector(size_t columns, const SeriesSettings& settings = {});

  /// `values`: one per column, NaN where missing. The score, in [0, 1], 1 most anomalous. 0 for the first rows, and
  /// where all values are missing.
  [[nodiscard]] double observe(std::span<const double> values);

 private:
  [[nodiscard]] double combined();
  [[nodiscard]] double damped(double surprise);

  SeriesSettings settings_;
  double most_;
  std::vector<SeriesColumn> columns_;
  std::vector<double> surprises_;
  std::deque<std::pair<size_t, double>> peaks_;  // falling: the first is the largest of the last refractory_rows
  size_t row_ = 0;
};

}  // namespace stackwatch
