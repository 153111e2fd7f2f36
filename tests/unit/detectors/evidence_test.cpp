// SPDX-License-Identifier: Apache-2.0
#include "detectors/evidence.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "detectors/alternatives.h"
#include "detectors/dispersion.h"

namespace stackwatch {
namespace {

Alternatives only(float per_count, float per_exposure, bool decreases) {
  Alternatives out;
  out.per_count.setConstant(per_count);
  out.per_exposure.setConstant(per_exposure);
  out.decreases = decreases;
  return out;
}

TEST(Threshold, ComesFromTheBudgetAndSurvivesNonsense) {
  DetectionPolicy policy;
  EXPECT_NEAR(log_threshold(policy, 10), std::log(30 * 86400.0 * 1000), 1e-9);
  EXPECT_NEAR(log_threshold(policy, 5000), std::log(30 * 86400.0 * 5000), 1e-9);
  policy.false_alarms = 10;
  EXPECT_NEAR(log_threshold(policy, 0), std::log(3 * 86400.0 * 1000), 1e-9);
  for (const double bad :
       {0.0, -1.0, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    DetectionPolicy broken{bad, bad, bad, bad, bad, bad};
    EXPECT_TRUE(std::isfinite(log_threshold(broken, 1))) << bad;
    EXPECT_GT(log_threshold(broken, 1), 0);
  }
}

TEST(EvidenceGrid, FollowsTheRecursionToTheLetter) {
  EvidenceGrid grid;
  const size_t stream = grid.add();
  grid.calibrate(stream, only(0.5F, -0.02F, true));
  double expected = 0;
  for (const double count : {3.0, 0.0, 1.0, 0.0, 0.0, 4.0}) {
    grid.begin_tick(10, 50);
    if (count > 0) grid.update(stream, count);
    grid.finish_tick();
    expected = (1 + expected) * std::exp(0.5 * count - 0.02 * 10);
    EXPECT_NEAR(grid.score(stream), std::log(expected), 1e-5);
  }
}

TEST(EvidenceGrid, ASleeperIsNeverAheadOfTheRecursion) {
  EvidenceGrid grid;
  const size_t stream = grid.add();
  grid.calibrate(stream, only(0.5F, -0.02F, false));
  double exact = 0;
  std::mt19937 random(1);
  std::poisson_distribution<int> counts(0.2);
  for (int i = 0; i < 2000; ++i) {
    const int count = counts(random);
    grid.begin_tick(10, 50);
    if (count > 0) grid.update(stream, count);
    grid.finish_tick();
    exact = (1 + exact) * std::exp(0.5 * count - 0.2);
    if (count > 0) {
      EXPECT_LE(grid.score(stream), std::log(exact) + 1e-4);
    }
  }
  // Counts in every tick: nothing is left out from then on, and both agree soon.
  for (int i = 0; i < 40; ++i) {
    grid.begin_tick(10, 50);
    grid.update(stream, 1);
    grid.finish_tick();
    exact = (1 + exact) * std::exp(0.5 - 0.2);
  }
  EXPECT_NEAR(grid.score(stream), std::log(exact), 1.5);
}

TEST(EvidenceGrid, CapsOneTickAndNeverOverflows) {
  EvidenceGrid grid;
  const size_t stream = grid.add();
  grid.calibrate(stream, only(1, 0, true));
  grid.begin_tick(1, 2.5);
  grid.update(stream, 1e18);
  grid.finish_tick();
  EXPECT_NEAR(grid.score(stream), 2.5, 1e-5);
  for (int i = 0; i < 1000; ++i) {
    grid.begin_tick(1, 60);
    grid.update(stream, 1e18);
    grid.finish_tick();
  }
  EXPECT_NEAR(grid.score(stream), EvidenceGrid::kMaxScore, 0.01);
}

TEST(EvidenceGrid, AnUncalibratedStreamSeesNothing) {
  EvidenceGrid grid;
  const size_t stream = grid.add();
  for (int i = 0; i < 100; ++i) {
    grid.begin_tick(99, 5);
    grid.update(stream, 99);
    grid.finish_tick();
  }
  EXPECT_LT(grid.score(stream), 0);
}

TEST(Alternatives, JoinOnlyWhenTheBaselineIsPreciseEnough) {
  const auto joined = [](double total) {
    const Alternatives a = share_alternatives({total / 10, total, 1, 0.01});
    return (a.per_count != 0).count();
  };
  EXPECT_LT(joined(500), joined(5'000));
  EXPECT_LT(joined(5'000), joined(500'000));
  EXPECT_EQ(joined(500'000), kAlternatives);
}

TEST(Alternatives, NoneWhereNoChangeIsWorthTelling) {
  const Alternatives all = share_alternatives({1000, 1000, 1, 0.02});
  EXPECT_TRUE(all.decreases);
  EXPECT_EQ((all.per_count > 0).count(), 0) << "nothing can grow beyond everything";
  const Alternatives nothing = share_alternatives({0, 100'000, 1, 0.02});
  EXPECT_FALSE(nothing.decreases);
  EXPECT_EQ((nothing.per_count < 0).count(), 0) << "nothing can shrink below nothing";
}

TEST(Alternatives, TheEdgeHoldsTheTruthAndShrinks) {
  const ShareInterval none = share_interval({0, 1000, 1, 0.02});
  EXPECT_EQ(none.low, 0);
  EXPECT_GT(none.high, 0.002);
  EXPECT_LT(none.high, 0.01);
  const ShareInterval wide = share_interval({100, 1000, 5, 0.02});
  const ShareInterval narrow = share_interval({100, 1000, 1, 0.02});
  EXPECT_LT(wide.low, narrow.low);
  EXPECT_GT(wide.high, narrow.high);
}

TEST(Dispersion, IsOneForIndependentSamplesAndGrowsWithCorrelation) {
  const auto measure = [](int repeat) {  // each share lasts for `repeat` ticks
    BlockMoments moments;
    const size_t stream = moments.add();
    std::mt19937_64 random(1);
    double count = 0;
    double share = 0.2;
    for (int i = 0; i < 4096; ++i) {
      if (repeat > 1 && i % repeat == 0) share = std::uniform_real_distribution<double>(0.1, 0.3)(random);
      const int x = std::binomial_distribution<int>(99, share)(random);
      const BlockMoments::Count entry{static_cast<uint32_t>(stream), static_cast<float>(x)};
      moments.learn({&entry, 1}, 99);
      count += x;
    }
    ShareDispersion dispersion;
    const ShareDispersion::Share baseline{count / (99 * 4096), count};
    dispersion.estimate(moments, {&baseline, 1});
    return dispersion.factor(moments, stream, baseline);
  };
  EXPECT_NEAR(measure(1), 1, 0.2);
  // var(share) = 0.2^2/12: 99 * that / 0.16 per tick is 2, times the 16 ticks that it lasts.
  EXPECT_NEAR(measure(16), 1 + 2.06 * 16, 12);
}

TEST(Dispersion, HalvingKeepsTheEstimate) {
  BlockMoments moments;
  const size_t stream = moments.add();
  std::mt19937_64 random(1);
  std::binomial_distribution<int> binomial(99, 0.5);
  for (int i = 0; i < 2048; ++i) {
    const BlockMoments::Count entry{static_cast<uint32_t>(stream), static_cast<float>(binomial(random))};
    moments.learn({&entry, 1}, 99);
  }
  ASSERT_TRUE(moments.at_boundary());
  const double scatter = moments.scatter(stream, 3);
  const double blocks = moments.blocks(3);
  moments.halve();
  EXPECT_NEAR(moments.scatter(stream, 3), scatter / 2, 1e-6);
  EXPECT_NEAR(moments.blocks(3), blocks / 2, 1e-9);
}

}  // namespace
}  // namespace stackwatch
