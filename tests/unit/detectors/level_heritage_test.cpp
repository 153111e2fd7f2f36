// SPDX-License-Identifier: Apache-2.0
// What rate hands on to a successor, and what it makes of it.
#include "detectors/level_heritage.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <random>

#include "detectors/rate.h"

namespace stackwatch {
namespace {

/// Draws a load, bursty and correlated, as on-CPU deltas.
class Source {
 public:
  explicit Source(uint64_t seed) : random_(seed) { delta_.probe = ProbeKind::kOnCpu; }
  const NamedDelta& next(double cores) {
    state_ = 0.8 * state_ + 0.6 * normal_(random_);
    delta_.time_s += 1;
    delta_.interval_s = 1;
    delta_.exposure_s = cores * std::exp(0.2 * state_);
    return delta_;
  }

 private:
  std::mt19937_64 random_;
  std::normal_distribution<double> normal_;
  NamedDelta delta_;
  double state_ = 0;
};

RateDetector learned(Source& source, int ticks, double cores) {
  RateDetector detector(RateMetric::kCores, {}, {});
  for (int i = 0; i < ticks; ++i) EXPECT_FALSE(detector.observe(source.next(cores)));
  return detector;
}

TEST(LevelHeritageBadInput, AnyCutCostsThePastAndNothingElse) {
  Source source(1);
  const std::string saved = learned(source, 600, 0.4).save();
  ASSERT_TRUE(decode_level_heritage(saved));
  RateDetector detector = learned(source, 600, 0.7);
  const double level = detector.level();
  for (size_t length = 0; length < saved.size(); ++length) {
    ASSERT_FALSE(detector.restore(saved.substr(0, length))) << length;
  }
  EXPECT_FALSE(detector.restore(saved + "x"));
  std::string other = saved;
  other[7] = '2';  // the next version
  EXPECT_FALSE(detector.restore(other));
  EXPECT_EQ(detector.level(), level);
  EXPECT_FALSE(detector.remembers());
}

TEST(LevelHeritageBadInput, FlippedBytesAreRefusedOrGiveNumbers) {
  Source source(2);
  const std::string saved = learned(source, 600, 0.4).save();
  for (size_t i = 0; i < saved.size(); ++i) {
    for (const int flip : {0xff, 0x01, 0x80, 0x40}) {
      std::string damaged = saved;
      damaged[i] = static_cast<char>(damaged[i] ^ flip);
      RateDetector detector(RateMetric::kCores, {}, {});
      if (!detector.restore(damaged)) continue;
      Source again(3);
      for (int k = 0; k < 400; ++k) (void)detector.observe(again.next(0.4));
      ASSERT_TRUE(std::isfinite(detector.level())) << i;
      ASSERT_FALSE(std::isnan(detector.score())) << i;
    }
  }
}

TEST(LevelHeritageBadInput, NumbersThatAreNoneAreRefused) {
  LevelHeritage heritage{10, 10, 100, {100, 33, 11, 3, 1}, {1, 1, 1, 1, 1}, 0.1, 100, {}};
  ASSERT_TRUE(decode_level_heritage(encode(heritage)));
  for (double* number : {&heritage.amount, &heritage.exposure_s, &heritage.scatter[2], &heritage.blocks[4]}) {
    const double was = *number;
    for (const double bad : {std::numeric_limits<double>::quiet_NaN(), -1.0, 1e300}) {
      *number = bad;
      EXPECT_FALSE(decode_level_heritage(encode(heritage)));
    }
    *number = was;
  }
}

TEST(LevelHeritage, NothingIsLeftBeforeAnythingIsLearned) {
  Source source(1);
  EXPECT_TRUE(learned(source, 100, 0.4).save().empty());
}

TEST(LevelHeritage, SavedAndRestoredIsNeverRestarted) {
  for (uint64_t seed = 0; seed < 6; ++seed) {
    Source source(seed);
    RateDetector on = learned(source, 5000, 0.4);
    RateDetector restored(RateMetric::kCores, {}, {});
    ASSERT_TRUE(restored.restore(on.save()));
    EXPECT_EQ(restored.level(), on.level());
    // The start-up, which the restored one does not judge.
    for (int i = 0; i < 200; ++i) {
      const NamedDelta& delta = source.next(0.4);
      ASSERT_FALSE(on.observe(delta));
      ASSERT_FALSE(restored.observe(delta));
    }
    EXPECT_TRUE(restored.remembers());
    EXPECT_FALSE(on.remembers());
    std::array<int, 2> found{};
    std::array<Finding, 2> findings;
    for (int i = 1; i < 400 && (found[0] == 0 || found[1] == 0); ++i) {
      const NamedDelta& delta = source.next(1.3);
      for (RateDetector* each : {&on, &restored}) {
        const size_t which = each == &restored ? 1 : 0;
        const auto finding = each->observe(delta);
        if (!finding || found[which] != 0) continue;
        found[which] = i;
        findings[which] = *finding;
      }
    }
    ASSERT_GT(found[0], 0) << seed;
    EXPECT_NEAR(found[1], found[0], 3) << seed;
    EXPECT_NEAR(findings[1].before, findings[0].before, 0.02) << seed;
    EXPECT_NEAR(findings[1].onset_s, findings[0].onset_s, 3) << seed;
  }
}

TEST(LevelHeritage, ASuccessorThatDoesMoreIsFoundAndOneThatStartsUpIsNot) {
  Source source(4);
  const std::string saved = learned(source, 1200, 0.4).save();
  RateDetector same(RateMetric::kCores, {}, {});
  ASSERT_TRUE(same.restore(saved));
  for (int i = 0; i < 2000; ++i) {
    const double cores = i < 120 ? 3 : 0.4;  // warms up its caches
    ASSERT_FALSE(same.observe(source.next(cores))) << i;
  }
  RateDetector more(RateMetric::kCores, {}, {});
  ASSERT_TRUE(more.restore(saved));
  std::optional<Finding> finding;
  int ticks = 0;
  for (; ticks < 600 && !finding; ++ticks) finding = more.observe(source.next(1.4));
  ASSERT_TRUE(finding);
  EXPECT_GT(ticks, 180) << "its start-up is not judged";
  EXPECT_NEAR(finding->before, 0.4, 0.05);
  EXPECT_NEAR(finding->after, 1.4, 0.3);
}

TEST(LevelHeritage, WhatASuccessorLeavesInItsStartUpIsWhatItInherited) {
  Source source(5);
  const std::string saved = learned(source, 1200, 0.4).save();
  RateDetector short_lived(RateMetric::kCores, {}, {});
  ASSERT_TRUE(short_lived.restore(saved));
  const double level = short_lived.level();
  for (int i = 0; i < 50; ++i) ASSERT_FALSE(short_lived.observe(source.next(5)));
  RateDetector next(RateMetric::kCores, {}, {});
  ASSERT_TRUE(next.restore(short_lived.save()));
  EXPECT_EQ(next.level(), level);
}

}  // namespace
}  // namespace stackwatch
