// SPDX-License-Identifier: Apache-2.0
#include "detectors/series.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace stackwatch {
namespace {

constexpr size_t kFewest = 20;  // distances, before one of them can be called unusual
constexpr size_t kFewestInTail = 5;
constexpr double kUsualIndex = 0.5;  // of a Pareto tail: 1/α
constexpr double kLeastIndex = 0.1;
constexpr double kMostRanks = 2;  // p is at least (n + 1)^−2
// Differences below a thousandth of the mean deviation are noise of the last digit.
constexpr double kNoise = 1e-3;
constexpr double kGlitch = 8;  // mean deviations
constexpr double kLeastFloor = 1e-12;
// Sums of 4,096 such distances are still finite.
constexpr double kLargest = 1e100;
// So many mean deviations leave an error of 10^−7 of one, far below what counts as a difference.
constexpr double kHuge = 1e9;
// Lags that are summed up anew in each row: carried sums lose digits.
constexpr size_t kRefreshedLags = 64;
constexpr double kLeastWeight = 1.0 / 2048;
constexpr size_t kColumnsThatCount = 3;

}  // namespace

double SeriesTail::most() const { return kMostRanks * std::log(static_cast<double>(sorted_.size()) + 1); }

double SeriesTail::surprise(double value, double floor) const {
  const size_t count = sorted_.size();
  if (count < kFewest) return 0;
  const auto n = static_cast<double>(count);
  const auto at_least = static_cast<size_t>(sorted_.end() - std::lower_bound(sorted_.begin(), sorted_.end(), value));
  const size_t in_tail = std::max(kFewestInTail, static_cast<size_t>(tail_ * n));
  const double rank = -std::log((static_cast<double>(at_least) + 1) / (n + 1));
  if (at_least > in_tail) return rank;
  const auto k = static_cast<double>(in_tail);
  const double border = -std::log((k + 1) / (n + 1));
  if (tail_ <= 0) return rank;
  const double quantile = std::max(sorted_[count - 1 - in_tail], floor);
  if (value <= quantile) return border;
  double logs = 2 * kUsualIndex;
  for (size_t i = count - in_tail; i < count; ++i) logs += std::log(std::max(sorted_[i], quantile) / quantile);
  const double index = std::max(kLeastIndex, logs / (k + 2));
  return std::min(most(), border + std::log(value / quantile) / index);
}

void SeriesTail::add(double value) {
  if (order_.size() == capacity_) {
    sorted_.erase(std::lower_bound(sorted_.begin(), sorted_.end(), order_.front()));
    order_.pop_front();
  }
  order_.push_back(value);
  sorted_.insert(std::upper_bound(sorted_.begin(), sorted_.end(), value), value);
}

SeriesScale::SeriesScale(size_t length, const SeriesSettings& settings)
    : length_(length),
      distance_(Eigen::ArrayXd::Zero(static_cast<Eigen::Index>(settings.history_rows))),
      left_(Eigen::ArrayXd::Zero(distance_.size())),
      tail_(settings.calibration_rows, settings.tail) {}

void SeriesScale::sum_up(const double* past, size_t lag) {
  double sum = 0;
  for (size_t back = 0; back < length_; ++back) sum += std::abs(past[back] - past[back + lag]);
  distance_[static_cast<Eigen::Index>(lag) - 1] = sum;
}

void SeriesScale::refresh(const double* past, size_t lags) {
  for (size_t i = 0; i < std::min(kRefreshedLags, lags); ++i) {
    refreshed_ = refreshed_ >= lags ? 1 : refreshed_ + 1;
    sum_up(past, refreshed_);
  }
}

void SeriesScale::drop_oldest(const double* past, size_t rows, double deviation) {
  const size_t leaving = std::min(rows - 1 - length_, static_cast<size_t>(distance_.size()));
  const auto count = static_cast<Eigen::Index>(leaving);
  left_.head(count) = (Eigen::Map<const Eigen::ArrayXd>(past + length_ + 1, count) - past[length_]).abs();
  distance_.head(count) -= left_.head(count);
  // What a huge value leaves behind when it goes is rounding, of either sign.
  const double huge = kHuge * deviation;
  if (left_.head(count).maxCoeff() <= huge) return;
  for (size_t lag = 1; lag <= leaving; ++lag) {
    if (left_[static_cast<Eigen::Index>(lag) - 1] > huge) sum_up(past, lag);
  }
}

double SeriesScale::observe(const double* past, size_t rows, double deviation) {
  if (rows < 2) return 0;
  const auto capacity = static_cast<size_t>(distance_.size());
  const auto segment = [past](size_t from, size_t count) {
    return Eigen::Map<const Eigen::ArrayXd>(past + from, static_cast<Eigen::Index>(count));
  };
  // past[0] joins the latest stretch, past[length] leaves it; with each the row that is `lag` further back.
  const size_t joining = std::min(rows - 1, capacity);
  distance_.head(static_cast<Eigen::Index>(joining)) += (segment(1, joining) - past[0]).abs();
  if (rows <= length_) return 0;
  if (rows > length_ + 1) drop_oldest(past, rows, deviation);
  // A stretch of the past must be complete, and share no row with the latest one.
  const size_t lags = std::min(rows - length_, capacity);
  if (lags < length_) return 0;
  refresh(past, lags);
  const double nearest = std::max(
      0.0, distance_.segment(static_cast<Eigen::Index>(length_) - 1, static_cast<Eigen::Index>(lags - length_ + 1))
               .minCoeff());
  if (rows <= 3 * length_) return 0;
  const double out = tail_.surprise(nearest, kNoise * deviation + kLeastFloor);
  tail_.add(nearest);
  return out;
}

SeriesColumn::SeriesColumn(const SeriesSettings& settings)
    : history_(settings.history_rows + 2 * kLengths.back()), past_(2 * history_), begin_(past_.size()) {
  for (size_t i = 0; i < kLengths.size(); ++i) {
    if ((settings.scales >> i & 1U) != 0) scales_.emplace_back(kLengths[i], settings);
  }
}

void SeriesColumn::push(double value) {
  if (begin_ == 0) {
    begin_ = past_.size() - history_;
    std::copy_n(past_.begin(), history_, past_.begin() + static_cast<std::ptrdiff_t>(begin_));
  }
  past_[--begin_] = value;
  rows_ = std::min(rows_ + 1, history_);
}

double SeriesColumn::observe(double value) {
  const bool missing = !std::isfinite(value);
  if (missing && rows_ == 0) return 0;
  push(missing ? past_[begin_] : std::clamp(value, -kLargest, kLargest));
  const double weight = std::max(1.0 / static_cast<double>(rows_), kLeastWeight);
  // One glitch must not pass for what is usual.
  const double limit = deviation_ > 0 ? kGlitch * deviation_ : kLargest;
  const double difference = std::clamp(past_[begin_] - mean_, -limit, limit);
  mean_ += weight * difference;
  deviation_ += weight * (std::abs(difference) - deviation_);
  double largest = 0;
  double sum = 0;
  for (SeriesScale& scale : scales_) {
    const double surprise = scale.observe(&past_[begin_], rows_, deviation_);
    largest = std::max(largest, surprise);
    sum += surprise;
  }
  return missing ? 0 : (largest + sum / static_cast<double>(scales_.size())) / 2;
}

SeriesDetector::SeriesDetector(size_t columns, const SeriesSettings& settings)
    : settings_(settings),
      most_(kMostRanks * std::log(static_cast<double>(settings.calibration_rows) + 1)),
      surprises_(columns) {
  for (size_t i = 0; i < columns; ++i) columns_.emplace_back(settings);
}

double SeriesDetector::combined() {
  const size_t count = std::min(kColumnsThatCount, surprises_.size());
  if (count == 0) return 0;
  std::partial_sort(surprises_.begin(), surprises_.begin() + static_cast<std::ptrdiff_t>(count), surprises_.end(),
                    std::greater<>());
  double sum = 0;
  for (size_t i = 0; i < count; ++i) sum += surprises_[i];
  return sum / static_cast<double>(count);
}

double SeriesDetector::damped(double surprise) {
  ++row_;
  while (!peaks_.empty() && peaks_.front().first + settings_.refractory_rows < row_) peaks_.pop_front();
  const bool again = !peaks_.empty() && surprise <= peaks_.front().second;
  while (!peaks_.empty() && peaks_.back().second <= surprise) peaks_.pop_back();
  peaks_.emplace_back(row_, surprise);
  return again ? settings_.repeated * surprise : surprise;
}

double SeriesDetector::observe(std::span<const double> values) {
  for (size_t i = 0; i < columns_.size(); ++i) surprises_[i] = columns_[i].observe(values[i]);
  return std::clamp(damped(combined()) / most_, 0.0, 1.0);
}

}  // namespace stackwatch
