// SPDX-License-Identifier: Apache-2.0
#include "detectors/alternatives.h"

#include <algorithm>
#include <cmath>

namespace stackwatch {
namespace {

constexpr int kSizes = kAlternatives / 2;
constexpr double kLargestIncrease = 0.9;    // of what is left above the share
constexpr double kLargestDecrease = 0.98;   // of the share: a share of exactly 0 would be refuted by one stray sample
constexpr double kLargestFactor = 24;       // of the smallest size: further out every tick is overwhelming anyway
constexpr double kLargestLevelFactor = 16;  // further out the cap decides anyway
constexpr double kJoinAt = 2;               // levels: in distances of the edge
// A change must be so many times larger than the smallest one that this baseline could ever prove.
constexpr double kProvable = 1.4;
// Without a change the evidence is about e^3 already: that much is not gathered after it.
constexpr double kHeadStart = 3;
constexpr double kIndependent = 1 + 1e-6;  // a dispersion below this is that of the binomial

double size_at(int i, double smallest, double largest) {
  return smallest * std::pow(largest / smallest, static_cast<double>(i) / (kSizes - 1));
}

double logit(double p) { return std::log(p / (1 - p)); }

struct Line {
  double per_count = 0;
  double per_exposure = 0;
};

// The tilt that turns the mean of a beta-binomial count from `before` into `after`, see share_alternatives().
Line tilt(double before, double after, double dispersion) {
  if (dispersion < kIndependent) {
    return {logit(after) - logit(before), std::log1p(-after) - std::log1p(-before)};
  }
  const double tightness = 1 / (dispersion - 1);
  const double middle = (after * (dispersion - 1) + before) / dispersion;
  const double divergence = before * std::log(before / middle) + (1 - before) * std::log((1 - before) / (1 - middle));
  return {logit(after) - logit(middle), -(std::log1p(-middle) - std::log1p(-after)) + tightness * divergence};
}

void put_share(Alternatives& out, int row, const ShareBaseline& baseline, double before, double after) {
  Line line = tilt(before, after, baseline.dispersion);
  // Samples until this change is found, each pass a little more than the last: uncertain baselines make it longer.
  for (int i = 0; i < 2; ++i) {
    const double information = line.per_count * after + line.per_exposure;
    const double until_found = information > 0 ? (baseline.evidence - kHeadStart) / information : baseline.total;
    const double uncertain = 1 + std::min(1.0, until_found / baseline.total);
    line = tilt(before, after, baseline.dispersion * uncertain);
  }
  out.per_count[row] = static_cast<float>(line.per_count);
  out.per_exposure[row] = static_cast<float>(line.per_exposure);
}

void put_level(Alternatives& out, int row, double edge, double level, double variance) {
  out.per_count[row] = static_cast<float>((level - edge) / variance);
  out.per_exposure[row] = static_cast<float>(-(level - edge) * (level + edge) / 2 / variance);
}

}  // namespace

double believed_share(const ShareBaseline& baseline) {
  const double pseudo = baseline.dispersion;
  const double count = std::clamp(baseline.count, 0.0, baseline.total);
  return (count + pseudo) / (baseline.total + 2 * pseudo);
}

double smallest_provable_change(const ShareBaseline& baseline) {
  const double share = believed_share(baseline);
  const double error = std::sqrt(baseline.dispersion * share * (1 - share) / baseline.total);
  return kProvable * std::sqrt(2 * baseline.evidence) * error;
}

Alternatives share_alternatives(const ShareBaseline& baseline) {
  Alternatives out;
  const double share = believed_share(baseline);
  const double smallest = std::max(baseline.min_change, smallest_provable_change(baseline));
  const double largest_up = std::min(kLargestIncrease * (1 - share), kLargestFactor * smallest);
  for (int i = 0; i < kSizes && smallest <= largest_up; ++i) {
    put_share(out, i, baseline, share, share + size_at(i, smallest, largest_up));
  }
  const double largest_down = std::min(kLargestDecrease * share, kLargestFactor * smallest);
  for (int i = 0; i < kSizes && smallest <= largest_down; ++i) {
    put_share(out, kSizes + i, baseline, share, share - size_at(i, smallest, largest_down));
    out.decreases = true;
  }
  return out;
}

Alternatives level_alternatives(const LevelBaseline& baseline) {
  Alternatives out;
  const double edge = kEdge * std::sqrt(baseline.variance / baseline.exposure);
  const double smallest = std::max(baseline.min_change, kJoinAt * edge);
  const double largest_up = kLargestLevelFactor * smallest;
  for (int i = 0; i < kSizes; ++i) {
    const double size = size_at(i, smallest, largest_up);
    put_level(out, i, baseline.level + edge, baseline.level + size, baseline.variance);
  }
  const double asked_down = baseline.min_decrease > 0 ? baseline.min_decrease : baseline.min_change;
  const double smallest_down = std::max(asked_down, kJoinAt * edge);
  const double largest_down = baseline.may_be_negative ? kLargestLevelFactor * smallest_down : baseline.level;
  for (int i = 0; i < kSizes && baseline.may_decrease && smallest_down <= largest_down; ++i) {
    const double size = size_at(i, smallest_down, largest_down);
    put_level(out, kSizes + i, baseline.level - edge, baseline.level - size, baseline.variance);
    out.decreases = true;
  }
  return out;
}

}  // namespace stackwatch
