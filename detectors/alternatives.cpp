// SPDX-License-Identifier: Apache-2.0
#include "detectors/alternatives.h"

#include <algorithm>
#include <cmath>

namespace stackwatch {
namespace {

constexpr int kSizes = kAlternatives / 2;
constexpr double kLargestIncrease = 0.9;    // of what is left above the share
constexpr double kLargestDecrease = 0.98;   // of the share: a share of exactly 0 would be refuted by one stray sample
constexpr double kLargestLevelFactor = 64;  // further out the cap decides anyway
constexpr double kJoinAt = 2;               // in distances of the edge

double size_at(int i, double smallest, double largest) {
  return smallest * std::pow(largest / smallest, static_cast<double>(i) / (kSizes - 1));
}

double logit(double p) { return std::log(p / (1 - p)); }

void put_share(Alternatives& out, int row, double edge, double share, double dispersion) {
  out.per_count[row] = static_cast<float>((logit(share) - logit(edge)) / dispersion);
  out.per_exposure[row] = static_cast<float>((std::log1p(-share) - std::log1p(-edge)) / dispersion);
}

void put_level(Alternatives& out, int row, double edge, double level, double variance) {
  out.per_count[row] = static_cast<float>((level - edge) / variance);
  out.per_exposure[row] = static_cast<float>(-(level - edge) * (level + edge) / 2 / variance);
}

}  // namespace

ShareInterval share_interval(const ShareBaseline& baseline) {
  const double n = baseline.total / baseline.dispersion;
  const double x = std::clamp(baseline.count / baseline.dispersion, 0.0, n);
  const double z2 = kEdge * kEdge;
  const double middle = x + z2 / 2;
  const double half = kEdge * std::sqrt(z2 / 4 + x * (1 - x / n));
  return {std::max(0.0, (middle - half) / (n + z2)), std::min(1.0, (middle + half) / (n + z2))};
}

Alternatives share_alternatives(const ShareBaseline& baseline) {
  Alternatives out;
  const double share = std::clamp(baseline.count / baseline.total, 0.0, 1.0);
  const ShareInterval interval = share_interval(baseline);

  const double largest_up = kLargestIncrease * (1 - share);
  for (int i = 0; i < kSizes && baseline.min_change <= largest_up; ++i) {
    const double size = size_at(i, baseline.min_change, largest_up);
    if (size < kJoinAt * (interval.high - share)) continue;
    put_share(out, i, interval.high, share + size, baseline.dispersion);
  }
  const double largest_down = kLargestDecrease * share;
  for (int i = 0; i < kSizes && baseline.min_change <= largest_down; ++i) {
    const double size = size_at(i, baseline.min_change, largest_down);
    if (size < kJoinAt * (share - interval.low)) continue;
    put_share(out, kSizes + i, interval.low, share - size, baseline.dispersion);
    out.decreases = true;
  }
  return out;
}

Alternatives level_alternatives(const LevelBaseline& baseline) {
  Alternatives out;
  const double edge = kEdge * std::sqrt(baseline.variance / baseline.exposure);
  const double largest_up = kLargestLevelFactor * baseline.min_change;
  for (int i = 0; i < kSizes; ++i) {
    const double size = size_at(i, baseline.min_change, largest_up);
    if (size < kJoinAt * edge) continue;
    put_level(out, i, baseline.level + edge, baseline.level + size, baseline.variance);
  }
  for (int i = 0; i < kSizes && baseline.min_change <= baseline.level; ++i) {
    const double size = size_at(i, baseline.min_change, baseline.level);
    if (size < kJoinAt * edge) continue;
    put_level(out, kSizes + i, baseline.level - edge, baseline.level - size, baseline.variance);
    out.decreases = true;
  }
  return out;
}

}  // namespace stackwatch
