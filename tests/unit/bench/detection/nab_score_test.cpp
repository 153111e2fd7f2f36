// SPDX-License-Identifier: Apache-2.0
#include "nab_score.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace stackwatch {
namespace {

constexpr NabProfile kStandard = kNabProfiles[0];
constexpr size_t kRows = 1000;  // 150 are not scored

ScoredSeries series(std::vector<Window> windows, const std::vector<size_t>& detections) {
  ScoredSeries out{"s", std::vector<double>(kRows, 0.0), std::move(windows)};
  for (const size_t row : detections) out.scores[row] = 1;
  return out;
}

double score(const ScoredSeries& one, const NabProfile& profile = kStandard) {
  return nab_score(std::vector{one}, profile, 0.5).score;
}

/// By hand from the published formula.
double sigmoid(double x) { return 2 / (1 + std::exp(5 * x)) - 1; }

TEST(NabScore, HasNothingToScoreInAnEmptyCorpus) {
  EXPECT_EQ(nab_score({}, kStandard, 0.5).score, 0);
  EXPECT_EQ(nab_best({}, kStandard).score, 0);
  EXPECT_EQ(score(series({}, {500})), 0);
}

TEST(NabScore, SilenceIsZeroAndTheFirstRowOfEachWindowIsHundred) {
  EXPECT_DOUBLE_EQ(score(series({{400, 499}}, {})), 0);
  EXPECT_DOUBLE_EQ(score(series({{400, 499}}, {400})), 100);
  EXPECT_DOUBLE_EQ(score(series({{400, 499}, {600, 699}}, {400, 600})), 100);
  EXPECT_DOUBLE_EQ(score(series({{400, 499}}, {400}), kNabProfiles[2]), 100);
}

TEST(NabScore, LaterInTheWindowIsLess) {
  // Row 450 of 400…499: 50 rows left of 100.
  const double worth = sigmoid(-0.5) / sigmoid(-1);
  EXPECT_NEAR(score(series({{400, 499}}, {450})), 100 * (worth + 1) / 2, 1e-9);
  const double at_the_end = sigmoid(-0.01) / sigmoid(-1);
  EXPECT_NEAR(score(series({{400, 499}}, {499})), 100 * (at_the_end + 1) / 2, 1e-9);
}

TEST(NabScore, AWindowCountsOnceByItsBestDetection) {
  EXPECT_DOUBLE_EQ(score(series({{400, 499}}, {400, 401, 450, 499})), 100);
  EXPECT_DOUBLE_EQ(score(series({{400, 499}}, {450, 460})), score(series({{400, 499}}, {450})));
}

TEST(NabScore, EveryFalseRowCosts) {
  // Before any window: the full price, of 2 between none and perfect.
  EXPECT_NEAR(score(series({{400, 499}}, {300})), -100 * 0.11 / 2, 1e-9);
  EXPECT_NEAR(score(series({{400, 499}}, {300, 301})), -100 * 0.22 / 2, 1e-9);
  EXPECT_NEAR(score(series({{400, 499}}, {300}), kNabProfiles[1]), -100 * 0.22 / 2, 1e-9);
  EXPECT_NEAR(score(series({{400, 499}}, {300}), kNabProfiles[2]), -100 * 0.11 / 3, 1e-9);
}

TEST(NabScore, RightBehindAWindowIsLessFalse) {
  EXPECT_NEAR(score(series({{400, 499}}, {509})), 100 * 0.11 * sigmoid(10.0 / 99) / 2, 1e-9);
  // More than three lengths behind it: the full price.
  EXPECT_NEAR(score(series({{400, 499}}, {900})), -100 * 0.11 / 2, 1e-9);
}

TEST(NabScore, TheFirstRowsAreNotScored) {
  EXPECT_EQ(nab_probation(kRows), 150U);
  EXPECT_EQ(nab_probation(22695), 750U);
  EXPECT_DOUBLE_EQ(score(series({{400, 499}}, {0, 149})), 0);
  EXPECT_LT(score(series({{400, 499}}, {150})), 0);
  EXPECT_DOUBLE_EQ(score(series({{100, 199}}, {100})), 0) << "too early to count, even in a window";
}

TEST(NabScore, OneThresholdForAllSeries) {
  // Each has a detection at its own height; the lower one has a false row between the two.
  ScoredSeries high = series({{400, 499}}, {});
  high.scores[400] = 0.9;
  ScoredSeries low = series({{400, 499}}, {});
  low.scores[400] = 0.5;
  for (size_t row = 200; row < 240; ++row) high.scores[row] = 0.6;  // 40 × 0.11 is more than a window
  const std::vector<ScoredSeries> corpus{high, low};
  const NabResult best = nab_best(corpus, kStandard);
  EXPECT_DOUBLE_EQ(best.threshold, 0.9);
  EXPECT_DOUBLE_EQ(best.score, 50);
  EXPECT_EQ(best.found, 1U);
  EXPECT_EQ(best.windows, 2U);
  EXPECT_EQ(best.false_rows, 0U);
}

TEST(NabScore, RowsOfOneScoreAreDetectedTogether) {
  ScoredSeries all = series({{400, 499}}, {});
  all.scores.assign(kRows, 0.5);
  const NabResult best = nab_best(std::vector{all}, kStandard);
  EXPECT_EQ(best.score, 0) << "a constant score cannot pick the rows it wants";
  EXPECT_EQ(best.threshold, std::numeric_limits<double>::infinity());
  EXPECT_LT(nab_score(std::vector{all}, kStandard, 0.5).score, -1000);
}

TEST(NabScore, TheBestThresholdIsTheBest) {
  ScoredSeries wild = series({{300, 349}, {700, 749}}, {});
  for (size_t row = 0; row < kRows; ++row) wild.scores[row] = static_cast<double>(row * 7919 % 1000) / 1000;
  const std::vector<ScoredSeries> corpus{wild};
  const NabResult best = nab_best(corpus, kStandard);
  for (double threshold = 0; threshold <= 1; threshold += 0.001) {
    EXPECT_LE(nab_score(corpus, kStandard, threshold).score, best.score + 1e-9);
  }
  EXPECT_NEAR(nab_score(corpus, kStandard, best.threshold).score, best.score, 1e-9);
}

}  // namespace
}  // namespace stackwatch
