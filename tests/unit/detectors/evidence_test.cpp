// SPDX-License-Identifier: Apache-2.0
#include "detectors/evidence.h"

#include <gtest/gtest.h>

#include <algorithm>
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
    expected = (1 + expected) * std::exp(0.5 * count - 0.02 * 10);  // the weights add up to 1
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

// Mean of e^LLR under counts that are really distributed as assumed: what must not exceed 1.
double mean_ratio(const Alternatives& a, int row, double share, double dispersion, int samples) {
  std::mt19937_64 random(7);
  const double concentration = (samples - 1) / (dispersion - 1) - 1;
  std::gamma_distribution<double> in(share * concentration);
  std::gamma_distribution<double> out((1 - share) * concentration);
  double sum = 0;
  constexpr int kDraws = 400'000;
  for (int i = 0; i < kDraws; ++i) {
    const double x = in(random);
    const double y = out(random);
    const int count = std::binomial_distribution<int>(samples, x + y > 0 ? x / (x + y) : 0)(random);
    sum += std::exp(static_cast<double>(a.per_count[row]) * count + static_cast<double>(a.per_exposure[row]) * samples);
  }
  return sum / kDraws;
}

TEST(Alternatives, KeepTheirPromiseForCountsInClumps) {
  for (const double dispersion : {2.0, 5.0}) {
    for (const double share : {0.01, 0.1, 0.5}) {
      const Alternatives a = share_alternatives({share * 1e9, 1e9, dispersion, 0.005, 20});
      for (int row = 0; row < kAlternatives / 2; ++row) {
        EXPECT_LT(mean_ratio(a, row, share, dispersion, 99), 1.1) << dispersion << " " << share << " size " << row;
      }
    }
  }
}

TEST(Alternatives, OfIndependentSamplesAreTheBinomialRatio) {
  const Alternatives a = share_alternatives({1e8, 1e9, 1, 0.02, 20});
  EXPECT_NEAR(a.per_count[0], std::log(0.12 / 0.10) - std::log(0.88 / 0.90), 1e-3);
  EXPECT_NEAR(a.per_exposure[0], std::log(0.88 / 0.90), 1e-3);
}

TEST(Alternatives, BeginAtWhatTheBaselineCanProve) {
  const auto smallest = [](double total) { return smallest_provable_change({total / 10, total, 1, 0.001, 20}); };
  EXPECT_NEAR(smallest(500'000), 1.4 * std::sqrt(2 * 20 * 0.09 / 500'000), 1e-5);
  EXPECT_GT(smallest(5'000), smallest(500'000));
  // A baseline of ten samples proves nothing below 0.9 of everything.
  EXPECT_EQ((share_alternatives({1, 10, 1, 0.001, 20}).per_count != 0).count(), 0);
}

TEST(Alternatives, NoneWhereNoChangeIsWorthTelling) {
  const Alternatives all = share_alternatives({1000, 1000, 1, 0.02});
  EXPECT_TRUE(all.decreases);
  EXPECT_EQ((all.per_count > 0).count(), 0) << "nothing can grow beyond everything";
  const Alternatives nothing = share_alternatives({0, 100'000, 1, 0.02});
  EXPECT_FALSE(nothing.decreases);
  EXPECT_EQ((nothing.per_count < 0).count(), 0) << "nothing can shrink below nothing";
}

TEST(Alternatives, WhatWasNeverSeenHasAShareAllTheSame) {
  EXPECT_NEAR(believed_share({0, 1000, 1, 0.02}), 1e-3, 1e-5);
  EXPECT_NEAR(believed_share({0, 1000, 5, 0.02}), 5e-3, 1e-4);
  EXPECT_LT(believed_share({1000, 1000, 1, 0.02}), 1);
}

TEST(EvidenceGrid, StreamsThatSayTheSameAddUp) {
  EvidenceGrid grid;
  for (int i = 0; i < 4; ++i) grid.calibrate(grid.add(), only(0.5F, -0.02F, true));
  grid.begin_tick(10, 50);
  for (size_t i = 0; i < 4; ++i) grid.update(i, 3);
  grid.finish_tick();
  EXPECT_NEAR(grid.total_score(), grid.score(0) + std::log(4), 1e-5);
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

TEST(Dispersion, TicksBeforeAStreamWasWatchedAreNoVariation) {
  BlockMoments moments;
  (void)moments.add();
  std::mt19937_64 random(1);
  std::binomial_distribution<int> binomial(99, 0.9);
  double count = 0;
  for (int i = 0; i < 2025; ++i) {
    const int x = binomial(random);
    if (i == 40) moments.begin(0, count / (40 * 99), {1, 1, 1, 1, 1});
    const BlockMoments::Count entry{0, static_cast<float>(x)};
    moments.learn({&entry, i < 40 ? 0U : 1U}, 99);
    count += x;
  }
  ShareDispersion dispersion;
  const ShareDispersion::Share baseline{count / (99 * 2025), count};
  dispersion.estimate(moments, {&baseline, 1});
  EXPECT_LT(dispersion.factor(moments, 0, baseline), 1.5);
}

/// Baselines of 200 ticks with 20 streams of one dispersion, the first of which may come in bursts as well.
struct YoungFactors {
  std::vector<double> of_the_first;
  std::vector<double> of_others;
};
YoungFactors young_factors(double truth, bool bursts) {
  constexpr size_t kStreams = 20;
  constexpr int kTicks = 200;
  constexpr int kCounts = 100;
  YoungFactors out;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    std::mt19937_64 random(seed);
    BlockMoments moments;
    std::vector<ShareDispersion::Share> shares(kStreams);
    for (size_t i = 0; i < kStreams; ++i) (void)moments.add();
    const double concentration = (kCounts - 1) / (truth - 1) - 1;
    for (int tick = 0; tick < kTicks; ++tick) {
      std::vector<BlockMoments::Count> counts;
      for (uint32_t stream = 0; stream < kStreams; ++stream) {
        const double mean = stream > 0 || !bursts ? 0.1 : tick % 27 < 4 ? 0.3 : 0.065;
        const double part = std::gamma_distribution<double>(mean * concentration)(random);
        const double rest = std::gamma_distribution<double>((1 - mean) * concentration)(random);
        const int x = std::binomial_distribution<int>(kCounts, part / (part + rest))(random);
        counts.push_back({stream, static_cast<float>(x)});
        shares[stream].count += x;
      }
      moments.learn(counts, kCounts);
    }
    for (ShareDispersion::Share& share : shares) share.share = share.count / (kCounts * kTicks);
    ShareDispersion dispersion;
    dispersion.estimate(moments, shares);
    for (size_t stream = 0; stream < kStreams; ++stream) {
      (stream == 0 ? out.of_the_first : out.of_others).push_back(dispersion.factor(moments, stream, shares[stream]));
    }
  }
  std::ranges::sort(out.of_the_first);
  std::ranges::sort(out.of_others);
  return out;
}

// The largest of five noisy estimates, times what a young baseline might not have seen, was twice the truth and more.
TEST(Dispersion, OfAYoungBaselineIsNearTheTruthWhereStreamsAreAlike) {
  for (const double truth : {1.2, 2.0}) {
    const auto factors = young_factors(truth, false).of_others;
    EXPECT_GT(factors.front(), 0.8 * truth);
    EXPECT_GT(factors[factors.size() * 5 / 100], 0.9 * truth);
    EXPECT_LT(factors[factors.size() / 2], 1.4 * truth);
    EXPECT_LT(factors[factors.size() * 95 / 100], 1.6 * truth);
  }
}

TEST(Dispersion, OfOneStreamThatIsNotLikeTheOthersIsItsOwn) {
  const YoungFactors factors = young_factors(1.2, true);
  // 0.235^2 * 4/27 * 23/27 * 100 / 0.09 = 7.7 for each of the four ticks that a burst lasts.
  EXPECT_GT(factors.of_the_first.front(), 15);
  EXPECT_LT(factors.of_others[factors.of_others.size() / 2], 3);
}

// A function that comes in bursts is squeezed out of the mix by another one, and comes back.
TEST(Dispersion, WhatIsRecentredToNothingAndBackVariesAsBefore) {
  constexpr size_t kStreams = 9;
  BlockMoments moments;
  for (size_t i = 0; i < kStreams; ++i) (void)moments.add();
  std::mt19937_64 random(1);
  std::vector<ShareDispersion::Share> shares(kStreams);
  constexpr int kTicks = 1620;
  for (int i = 0; i < kTicks; ++i) {
    std::vector<BlockMoments::Count> counts;
    for (uint32_t stream = 0; stream < kStreams; ++stream) {
      const double share = stream > 0 ? 0.1 : i % 81 < 9 ? 0.4 : 0.01;
      const int x = std::binomial_distribution<int>(99, share)(random);
      counts.push_back({stream, static_cast<float>(x)});
      shares[stream].count += x;
    }
    moments.learn(counts, 99);
  }
  for (ShareDispersion::Share& share : shares) share.share = share.count / (99 * kTicks);
  ShareDispersion dispersion;
  dispersion.estimate(moments, shares);
  const double before = dispersion.factor(moments, 0, shares[0]);
  ASSERT_GT(before, 40);
  for (const double small : {0.0, 1e-5, 0.001, 0.005, 0.999999}) {
    // As many counts of the new mix as 45 s have.
    const ShareDispersion::Share squeezed{small, small < 1 ? 4455 * small * (1 - small) : 0};
    moments.recentre(0, small, dispersion.process());
    EXPECT_NEAR(dispersion.factor(moments, 0, squeezed), before, before / 10) << small;
    moments.recentre(0, small, dispersion.process());  // another change
    EXPECT_NEAR(dispersion.factor(moments, 0, squeezed), before, before / 10) << small;
    moments.recentre(0, shares[0].share, dispersion.process());
    EXPECT_NEAR(dispersion.factor(moments, 0, shares[0]), before, before / 10) << small;
  }
  moments.begin(0, 0, dispersion.process());
  EXPECT_LT(dispersion.factor(moments, 0, {0, 0}), before / 2) << "another stream";
}

TEST(Dispersion, HalvingKeepsTheEstimate) {
  BlockMoments moments;
  const size_t stream = moments.add();
  std::mt19937_64 random(1);
  std::binomial_distribution<int> binomial(99, 0.5);
  for (int i = 0; i < 2025; ++i) {
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
