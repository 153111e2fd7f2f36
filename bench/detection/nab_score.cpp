// SPDX-License-Identifier: Apache-2.0
#include "nab_score.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace stackwatch {
namespace {

constexpr size_t kOutside = std::numeric_limits<size_t>::max();

/// What a detection at a row would be worth.
struct Point {
  double score;
  double worth;
  size_t window;  ///< over the whole corpus; kOutside
};

double worth_outside(size_t row, const Window* previous, const NabProfile& profile) {
  if (previous == nullptr) return -profile.false_positive;
  const auto behind = static_cast<double>(row - previous->last);
  const auto width = static_cast<double>(previous->last - previous->first);
  return profile.false_positive * (width > 0 ? nab_sigmoid(behind / width) : -1.0);
}

double worth_inside(size_t row, const Window& window, const NabProfile& profile) {
  const auto left = static_cast<double>(window.last - row + 1);
  const auto width = static_cast<double>(window.last - window.first + 1);
  return profile.true_positive * nab_sigmoid(-left / width) / nab_sigmoid(-1);
}

void add_points(const ScoredSeries& series, const NabProfile& profile, size_t& windows, std::vector<Point>& points) {
  const Window* previous = nullptr;
  size_t next = 0;
  for (size_t row = 0; row < series.scores.size(); ++row) {
    const bool inside = next < series.windows.size() && row >= series.windows[next].first;
    if (row >= nab_probation(series.scores.size())) {
      const double worth =
          inside ? worth_inside(row, series.windows[next], profile) : worth_outside(row, previous, profile);
      points.push_back({series.scores[row], worth, inside ? windows + next : kOutside});
    }
    if (inside && row == series.windows[next].last) previous = &series.windows[next++];
  }
  windows += series.windows.size();
}

/// Takes in detections one after the other.
class Tally {
 public:
  Tally(size_t windows, const NabProfile& profile)
      : profile_(profile),
        best_(windows, -profile.false_negative),
        raw_(-profile.false_negative * static_cast<double>(windows)) {}

  void add(const Point& point) {
    if (point.window == kOutside) {
      raw_ += point.worth;
      ++result_.false_rows;
      return;
    }
    double& best = best_[point.window];
    if (best == -profile_.false_negative) ++result_.found;
    if (point.worth > best) {
      raw_ += point.worth - best;
      best = point.worth;
    }
  }

  [[nodiscard]] NabResult at(double threshold) const {
    NabResult out = result_;
    out.threshold = threshold;
    out.windows = best_.size();
    const double null = -profile_.false_negative * static_cast<double>(best_.size());
    const double perfect = profile_.true_positive * static_cast<double>(best_.size());
    out.score = best_.empty() ? 0 : 100 * (raw_ - null) / (perfect - null);
    return out;
  }

 private:
  NabProfile profile_;
  std::vector<double> best_;
  double raw_;
  NabResult result_;
};

std::vector<Point> all_points(std::span<const ScoredSeries> corpus, const NabProfile& profile, size_t& windows) {
  std::vector<Point> points;
  windows = 0;
  for (const ScoredSeries& series : corpus) add_points(series, profile, windows, points);
  return points;
}

}  // namespace

double nab_sigmoid(double position) { return position > 3 ? -1 : 2 / (1 + std::exp(5 * position)) - 1; }

size_t nab_probation(size_t rows) {
  return static_cast<size_t>(0.15 * static_cast<double>(std::min<size_t>(rows, 5000)));
}

NabResult nab_score(std::span<const ScoredSeries> corpus, const NabProfile& profile, double threshold) {
  size_t windows = 0;
  const std::vector<Point> points = all_points(corpus, profile, windows);
  Tally tally(windows, profile);
  for (const Point& point : points) {
    if (point.score >= threshold) tally.add(point);
  }
  return tally.at(threshold);
}

NabResult nab_best(std::span<const ScoredSeries> corpus, const NabProfile& profile) {
  size_t windows = 0;
  std::vector<Point> points = all_points(corpus, profile, windows);
  std::sort(points.begin(), points.end(), [](const Point& a, const Point& b) { return a.score > b.score; });
  Tally tally(windows, profile);
  NabResult best = tally.at(std::numeric_limits<double>::infinity());
  for (size_t i = 0; i < points.size(); ++i) {
    tally.add(points[i]);
    // Rows of one score are detected together or not at all.
    if (i + 1 < points.size() && points[i + 1].score == points[i].score) continue;
    const NabResult here = tally.at(points[i].score);
    if (here.score > best.score) best = here;
  }
  return best;
}

}  // namespace stackwatch
