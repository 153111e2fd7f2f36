// SPDX-License-Identifier: Apache-2.0
#include "series_scorers.h"

#include <Eigen/Dense>
#include <algorithm>
#include <array>
#include <cmath>
#include <deque>
#include <limits>
#include <random>

#include "detectors/series.h"

namespace stackwatch {
namespace {

class Ours final : public SeriesScorer {
 public:
  explicit Ours(size_t columns) : detector_(columns) {}
  double observe(std::span<const double> values) override { return detector_.observe(values); }

 private:
  SeriesDetector detector_;
};

class Random final : public SeriesScorer {
 public:
  explicit Random(size_t /*columns*/) {}
  double observe(std::span<const double> /*values*/) override { return uniform_(random_); }

 private:
  std::mt19937_64 random_{7};
  std::uniform_real_distribution<double> uniform_;
};

class Constant final : public SeriesScorer {
 public:
  explicit Constant(size_t /*columns*/) {}
  double observe(std::span<const double> /*values*/) override { return 0.5; }
};

class Ewma final : public SeriesScorer {
 public:
  explicit Ewma(size_t columns) : mean_(columns), variance_(columns) {}
  double observe(std::span<const double> values) override {
    double largest = 0;
    ++rows_;
    const double weight = std::max(1.0 / 288, 1.0 / rows_);
    for (size_t i = 0; i < values.size(); ++i) {
      const double difference = values[i] - mean_[i];
      if (rows_ > 20 && variance_[i] > 0) largest = std::max(largest, std::abs(difference) / std::sqrt(variance_[i]));
      mean_[i] += weight * difference;
      variance_[i] = (1 - weight) * (variance_[i] + weight * difference * difference);
    }
    return largest;
  }

 private:
  std::vector<double> mean_;
  std::vector<double> variance_;
  double rows_ = 0;
};

/// Two clusters of the features of one column, and how far their members were from them.
class KMeans {
 public:
  static constexpr size_t kLags = 6;
  using Point = std::array<double, kLags>;

  explicit KMeans(const std::deque<Point>& points) : centres_{points.front(), points.back()} {
    for (int round = 0; round < 20; ++round) {
      std::array<Point, 2> sums{};
      std::array<double, 2> counts{};
      for (const Point& point : points) {
        const size_t k = distance(point, centres_[0]) <= distance(point, centres_[1]) ? 0 : 1;
        ++counts[k];
        for (size_t i = 0; i < kLags; ++i) sums[k][i] += point[i];
      }
      for (size_t k = 0; k < 2; ++k) {
        for (size_t i = 0; counts[k] > 0 && i < kLags; ++i) centres_[k][i] = sums[k][i] / counts[k];
      }
    }
    for (const Point& point : points) farthest_ = std::max(farthest_, nearest(point));
  }
  [[nodiscard]] double unusual(const Point& point) const { return nearest(point) / (farthest_ + 1e-12); }

 private:
  static double distance(const Point& a, const Point& b) {
    double sum = 0;
    for (size_t i = 0; i < kLags; ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
    return std::sqrt(sum);
  }
  [[nodiscard]] double nearest(const Point& p) const {
    return std::min(distance(p, centres_[0]), distance(p, centres_[1]));
  }

  std::array<Point, 2> centres_;
  double farthest_ = 0;
};

class Netdata final : public SeriesScorer {
 public:
  explicit Netdata(size_t columns) : columns_(columns) {}
  double observe(std::span<const double> values) override {
    double sum = 0;
    ++rows_;
    for (size_t i = 0; i < values.size(); ++i) sum += column(columns_[i], values[i]);
    return sum / static_cast<double>(values.size());
  }

 private:
  struct Column {
    std::deque<double> values;    // of the last 4
    std::deque<double> smoothed;  // differences, newest first
    std::deque<KMeans::Point> points;
    std::deque<KMeans> models;
  };

  double column(Column& c, double value) const {
    c.values.push_front(value);
    if (c.values.size() < 4) return 0;
    c.smoothed.push_front((c.values[0] - c.values[3]) / 3);
    c.values.pop_back();
    if (c.smoothed.size() < KMeans::kLags) return 0;
    KMeans::Point point;
    std::copy_n(c.smoothed.begin(), KMeans::kLags, point.begin());
    c.smoothed.pop_back();
    double least = c.models.empty() ? 0 : std::numeric_limits<double>::max();
    for (const KMeans& model : c.models) least = std::min(least, model.unusual(point));
    c.points.push_back(point);
    if (c.points.size() > 800) c.points.pop_front();
    if (rows_ % 200 == 0 && c.points.size() > 100) {
      c.models.emplace_back(c.points);
      if (c.models.size() > 6) c.models.pop_front();
    }
    return least;
  }

  std::vector<Column> columns_;
  size_t rows_ = 0;
};

class GTest final : public SeriesScorer {
 public:
  explicit GTest(size_t columns) : past_(columns) {}
  double observe(std::span<const double> values) override {
    std::vector<double> surprises;
    for (size_t i = 0; i < values.size(); ++i) surprises.push_back(column(past_[i], values[i]));
    std::sort(surprises.begin(), surprises.end(), std::greater<>());
    // Adjusted −ln p of the best: the largest of (−ln p of rank k) − ln(m / k).
    double best = 0;
    const auto m = static_cast<double>(surprises.size());
    for (size_t k = 1; k <= surprises.size(); ++k) {
      best = std::max(best, surprises[k - 1] - std::log(m / static_cast<double>(k)));
    }
    return best;
  }

 private:
  static constexpr size_t kRecent = 24;
  static constexpr size_t kReference = 500;
  static constexpr size_t kBins = 10;

  static double column(std::deque<double>& past, double value) {
    past.push_back(value);
    if (past.size() > kRecent + kReference) past.pop_front();
    if (past.size() < kRecent + kReference) return 0;
    std::vector<double> sorted(past.begin(), past.begin() + kReference);
    std::sort(sorted.begin(), sorted.end());
    std::array<double, kBins - 1> borders{};
    for (size_t i = 0; i + 1 < kBins; ++i) borders[i] = sorted[kReference * (i + 1) / kBins];
    std::array<double, kBins> before{};
    std::array<double, kBins> now{};
    for (size_t i = 0; i < past.size(); ++i) {
      const auto bin = static_cast<size_t>(std::upper_bound(borders.begin(), borders.end(), past[i]) - borders.begin());
      ++(i < kReference ? before : now)[bin];
    }
    return p_value(before, now);
  }

  /// −ln p of twice the log-likelihood ratio, by the normal approximation of Wilson and Hilferty.
  static double p_value(const std::array<double, kBins>& before, const std::array<double, kBins>& now) {
    double g = 0;
    double freedom = -1;
    for (size_t i = 0; i < kBins; ++i) {
      const double all = before[i] + now[i];
      if (all == 0) continue;
      ++freedom;
      const double part = static_cast<double>(kRecent) / (kRecent + kReference);
      if (before[i] > 0) g += 2 * before[i] * std::log(before[i] / (all * (1 - part)));
      if (now[i] > 0) g += 2 * now[i] * std::log(now[i] / (all * part));
    }
    if (freedom < 1 || g <= 0) return 0;
    const double scale = 2 / (9 * freedom);
    const double z = (std::cbrt(g / freedom) - 1 + scale) / std::sqrt(scale);
    const double tail = std::erfc(z / std::sqrt(2.0)) / 2;
    return tail > 1e-300 ? -std::log(tail) : z * z / 2;
  }

  std::vector<std::deque<double>> past_;
};

class StreamingPca final : public SeriesScorer {
 public:
  explicit StreamingPca(size_t columns)
      : size_(columns > 1 ? static_cast<Eigen::Index>(columns) : kLags),
        lagged_(columns == 1),
        latest_(Eigen::VectorXd::Zero(size_)),
        mean_(Eigen::VectorXd::Zero(size_)),
        covariance_(Eigen::MatrixXd::Zero(size_, size_)) {}

  double observe(std::span<const double> values) override {
    if (lagged_) {
      for (Eigen::Index i = size_ - 1; i > 0; --i) latest_[i] = latest_[i - 1];
      latest_[0] = values[0];
    } else {
      for (Eigen::Index i = 0; i < size_; ++i) latest_[i] = values[static_cast<size_t>(i)];
    }
    ++rows_;
    const double weight = std::max(1.0 / 1000, 1.0 / static_cast<double>(rows_));
    const Eigen::VectorXd difference = latest_ - mean_;
    double score = 0;
    if (leading_.cols() > 0) {
      const double residual = (difference - leading_ * (leading_.transpose() * difference)).squaredNorm();
      score = usual_ > 0 ? residual / usual_ : 0;
      usual_ += weight * (residual - usual_);
    }
    mean_ += weight * difference;
    covariance_ = (1 - weight) * (covariance_ + weight * difference * difference.transpose());
    if (rows_ % 50 == 0 && rows_ >= 200) decompose();
    return score;
  }

 private:
  static constexpr Eigen::Index kLags = 12;

  void decompose() {
    const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(covariance_);
    const double total = solver.eigenvalues().sum();
    double explained = 0;
    Eigen::Index count = 0;
    while (count < size_ - 1 && explained < 0.95 * total) explained += solver.eigenvalues()[size_ - ++count];
    leading_ = solver.eigenvectors().rightCols(std::max<Eigen::Index>(count, 1));
  }

  Eigen::Index size_;
  bool lagged_;
  Eigen::VectorXd latest_;
  Eigen::VectorXd mean_;
  Eigen::MatrixXd covariance_;
  Eigen::MatrixXd leading_;
  double usual_ = 0;
  size_t rows_ = 0;
};

template <class Scorer>
NamedScorer scorer(std::string name) {
  return {std::move(name),
          [](size_t columns) -> std::unique_ptr<SeriesScorer> { return std::make_unique<Scorer>(columns); }};
}

}  // namespace

NamedScorer our_scorer() { return scorer<Ours>("stackwatch detect"); }

std::vector<NamedScorer> baseline_scorers() {
  return {scorer<Random>("random"),
          scorer<Constant>("constant"),
          scorer<Ewma>("EWMA z-score"),
          scorer<Netdata>("k-means, as Netdata"),
          scorer<GTest>("windowed G-test, BH"),
          scorer<StreamingPca>("streaming PCA")};
}

}  // namespace stackwatch
