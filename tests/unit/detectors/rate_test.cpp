// SPDX-License-Identifier: Apache-2.0
#include "detectors/rate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <vector>

namespace stackwatch {
namespace {

constexpr uint64_t kSeeds = 12;

/// A process of which only the CPU time matters.
class Load {
 public:
  explicit Load(RateSettings settings = {}) : detector_(ProbeKind::kOnCpu, {}, settings) {
    delta_.probe = ProbeKind::kOnCpu;
  }
  std::optional<Finding> tick(double cores, double interval_s = 1) {
    delta_.time_s += interval_s;
    delta_.interval_s = interval_s;
    delta_.exposure_s = cores * interval_s;
    return detector_.observe(delta_);
  }
  /// The first finding in `ticks` ticks of `cores(i)`; `ticks_taken()` after it.
  std::optional<Finding> run(int ticks, const std::function<double(int)>& cores) {
    for (taken_ = 1; taken_ <= ticks; ++taken_) {
      if (auto finding = tick(std::max(0.0, cores(taken_ - 1)))) return finding;
    }
    return std::nullopt;
  }
  [[nodiscard]] int taken() const { return taken_; }
  RateDetector& detector() { return detector_; }
  NamedDelta& delta() { return delta_; }

 private:
  RateDetector detector_;
  NamedDelta delta_;
  int taken_ = 0;
};

/// Bursty and correlated: exp of an AR(1), mean `level`.
class Bursty {
 public:
  Bursty(uint64_t seed, double level, double deviation, double correlation_s)
      : random_(seed), level_(level), deviation_(deviation), memory_(std::exp(-1 / correlation_s)) {
    state_ = normal_(random_);
  }
  double operator()(int) {
    state_ = memory_ * state_ + std::sqrt(1 - memory_ * memory_) * normal_(random_);
    return level_ * std::exp(deviation_ * state_ - deviation_ * deviation_ / 2);
  }

 private:
  std::mt19937_64 random_;
  std::normal_distribution<double> normal_;
  double level_;
  double deviation_;
  double memory_;
  double state_ = 0;
};

TEST(RateBadInput, NonsenseIsSkipped) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  Load load;
  std::mt19937_64 random(1);
  std::normal_distribution<double> noise(0.5, 0.05);
  for (int i = 0; i < 1000; ++i) {
    ASSERT_FALSE(load.tick(noise(random)));
    const double level = load.detector().level();
    for (const double exposure : {kNan, kInfinity, -1.0, 1e300}) {
      NamedDelta broken = load.delta();
      broken.time_s += 0.1;
      broken.exposure_s = exposure;
      ASSERT_FALSE(load.detector().observe(broken));
    }
    for (const double interval : {kNan, 0.0, -1.0}) {
      NamedDelta broken = load.delta();
      broken.time_s += 0.1;
      broken.interval_s = interval;
      ASSERT_FALSE(load.detector().observe(broken));
    }
    for (const double time : {kNan, load.delta().time_s, load.delta().time_s - 100}) {
      NamedDelta broken = load.delta();
      broken.time_s = time;
      broken.exposure_s = 100;
      ASSERT_FALSE(load.detector().observe(broken));
    }
    ASSERT_EQ(load.detector().level(), level);
  }
}

TEST(RateBadInput, NegativeCountsAndLossesAreSkipped) {
  RateDetector detector(ProbeKind::kPageFault, {}, {});
  NamedDelta delta;
  delta.probe = ProbeKind::kPageFault;
  delta.interval_s = 1;
  for (int i = 0; i < 400; ++i) {
    delta.time_s += 1;
    delta.lost = {};
    delta.values = {{StackId{1}, 1000}};
    if (i % 4 == 0) delta.values = {{StackId{1}, -1'000'000}};
    if (i % 4 == 2) {
      delta.values = {{StackId{1}, 5}};
      delta.lost[LossReason::kMapFull] = 1'000;
    }
    ASSERT_FALSE(detector.observe(delta));
  }
  EXPECT_NEAR(detector.level(), 1000, 1e-6);
}

TEST(RateBadInput, ACounterThatRunsWildForOneTickIsNoFindingAndNotLearned) {
  Load load;
  ASSERT_FALSE(load.run(600, [](int) { return 0.5; }));
  for (int i = 0; i < 2000; ++i) ASSERT_FALSE(load.tick(i % 100 == 0 ? 1e5 : 0.5)) << i;
  EXPECT_LT(load.detector().level(), 0.6);
}

TEST(RateBadInput, MissedTicksAreOneLongOne) {
  Load load;
  for (int i = 0; i < 2000; ++i) ASSERT_FALSE(load.tick(0.5, i % 30 == 0 ? 5 : 1)) << i;
  EXPECT_NEAR(load.detector().level(), 0.5, 1e-6);
}

TEST(RateBadInput, DaysOfNothingStayAtNothing) {
  Load load;
  ASSERT_FALSE(load.run(3 * 86400, [](int) { return 0.0; }));
  EXPECT_EQ(load.detector().level(), 0);
  EXPECT_TRUE(std::isfinite(load.detector().score()));
}

// ---- what it must find

TEST(Rate, ADoubledLoadIsFound) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Load load;
    Bursty before(seed, 0.4, 0.1, 2);
    ASSERT_FALSE(load.run(400, std::ref(before))) << seed;
    Bursty after(seed + 100, 0.9, 0.1, 2);
    const auto finding = load.run(120, std::ref(after));
    ASSERT_TRUE(finding) << seed;
    EXPECT_GE(load.taken(), 20) << "no shorter than the persistence";
    EXPECT_LE(load.taken(), 40) << seed;
    EXPECT_FALSE(finding->frame);
    EXPECT_NEAR(finding->onset_s, 400, 3) << seed;
    EXPECT_NEAR(finding->before, 0.4, 0.05);
    EXPECT_NEAR(finding->after, 0.9, 0.1);
    EXPECT_NEAR(finding->change_cores, 0.5, 0.12);
    EXPECT_EQ(finding->unit_of_measure, "cores");
    EXPECT_GE(finding->score, finding->threshold);
  }
}

TEST(Rate, AProcessThatGoesQuietIsFound) {
  Load load;
  Bursty before(1, 2.0, 0.2, 3);
  ASSERT_FALSE(load.run(600, std::ref(before)));
  const auto finding = load.run(120, [](int) { return 0.1; });
  ASSERT_TRUE(finding);
  EXPECT_LT(finding->change_cores, -1.5);
}

TEST(Rate, WaitingThreadsAreCountedFromNanoseconds) {
  RateDetector detector(ProbeKind::kBlocked, {}, {});
  NamedDelta delta;
  delta.probe = ProbeKind::kBlocked;
  delta.interval_s = 1;
  std::optional<Finding> finding;
  for (int i = 0; i < 600 && !finding; ++i) {
    delta.time_s += 1;
    delta.values = {{StackId{0}, i < 400 ? 2'000'000'000 : 5'000'000'000}};
    finding = detector.observe(delta);
    if (i < 400) {
      ASSERT_FALSE(finding);
    }
  }
  ASSERT_TRUE(finding);
  EXPECT_NEAR(finding->before, 2, 0.1);
  EXPECT_NEAR(finding->after, 5, 0.2);
  EXPECT_EQ(finding->unit_of_measure, "threads waiting");
  EXPECT_EQ(finding->change_cores, 0);
}

// ---- what it must not find

TEST(Rate, TenHoursOfBurstyLoadAreQuiet) {
  for (const double deviation : {0.1, 0.3, 0.6}) {
    for (const double correlation_s : {1.0, 10.0, 60.0}) {
      int findings = 0;
      for (uint64_t seed = 0; seed < 20; ++seed) {
        Load load;
        Bursty bursty(seed, 0.5, deviation, correlation_s);
        if (load.run(36000, std::ref(bursty))) ++findings;
      }
      // Phases of minutes that swing by a factor of two are beyond what the variance of three minutes can tell.
      const bool beyond = deviation == 0.6 && correlation_s == 60;
      EXPECT_LE(findings, beyond ? 1 : 0) << deviation << " " << correlation_s;
    }
  }
}

TEST(Rate, RegularBurstsOfAnIdleProcessAreQuiet) {
  for (const int period : {10, 30, 60, 120}) {
    for (const int length : {1, 5, 10}) {
      Load load;
      EXPECT_FALSE(load.run(20000, [&](int i) { return i % period < length ? 1.0 : 0.0; }))
          << period << " " << length << " after " << load.taken();
    }
  }
}

TEST(Rate, FirstBurstsAfterLongIdlenessAreQuiet) {
  Load load;
  ASSERT_FALSE(load.run(1000, [](int) { return 0.001; }));
  EXPECT_FALSE(load.run(20000, [](int i) { return i % 300 < 10 ? 1.5 : 0.001; })) << load.taken();
}

TEST(Rate, AStartUpRampIsQuiet) {
  for (const double ramp_s : {10.0, 60.0, 180.0, 400.0}) {
    for (uint64_t seed = 0; seed < 4; ++seed) {
      Load load;
      Bursty noise(seed, 1, 0.1, 3);
      EXPECT_FALSE(load.run(5000, [&](int i) { return noise(i) * std::min(1.0, i / ramp_s); }))
          << ramp_s << " " << seed << " after " << load.taken();
    }
  }
}

TEST(Rate, FiveSecondTransientsAreQuiet) {
  Load load;
  Bursty noise(1, 0.5, 0.1, 3);
  EXPECT_FALSE(load.run(5000, [&](int i) { return noise(i) + (i > 300 && i % 90 < 5 ? 3.0 : 0.0); })) << load.taken();
}

TEST(Rate, SmallChangesAreNotWorthTelling) {
  Load load;
  ASSERT_FALSE(load.run(600, [](int) { return 0.5; }));
  EXPECT_FALSE(load.run(3000, [](int) { return 0.7; }));
  Load little;
  ASSERT_FALSE(little.run(600, [](int) { return 0.01; }));
  EXPECT_FALSE(little.run(3000, [](int) { return 0.08; }));
}

// ---- the life of a finding

TEST(Rate, RepeatsAndThenEndsWhenTheLevelReturns) {
  Load load;
  Bursty noise(3, 0.5, 0.1, 3);
  ASSERT_FALSE(load.run(600, std::ref(noise)));
  const auto first = load.run(100, [&](int i) { return 3 * noise(i); });
  ASSERT_TRUE(first);
  for (int i = 0; i < 200; ++i) {
    const auto again = load.tick(3 * noise(i));
    ASSERT_TRUE(again);
    EXPECT_EQ(again->onset_s, first->onset_s);
  }
  int ticks = 0;
  while (ticks < 100 && load.tick(noise(ticks))) ++ticks;
  EXPECT_GE(ticks, 9);
  EXPECT_LE(ticks, 30);
  EXPECT_FALSE(load.run(1000, std::ref(noise)));
}

TEST(Rate, AChangeThatStandsIsAdopted) {
  RateSettings settings;
  settings.adopt_after_s = 600;
  Load load(settings);
  ASSERT_FALSE(load.run(400, [](int) { return 0.5; }));
  ASSERT_TRUE(load.run(100, [](int) { return 1.5; }));
  int ticks = 0;
  while (ticks < 1000 && load.tick(1.5)) ++ticks;
  EXPECT_NEAR(ticks, 580, 15);
  EXPECT_FALSE(load.run(1000, [](int) { return 1.5; }));
  EXPECT_NEAR(load.detector().level(), 1.5, 0.01);
  EXPECT_TRUE(load.run(100, [](int) { return 0.5; }));
}

TEST(Rate, TruncatingTheInputChangesNoEarlierFinding) {
  const auto run = [](int ticks) {
    Load load;
    Bursty noise(3, 0.5, 0.2, 3);
    std::vector<double> out;
    for (int i = 0; i < ticks; ++i) {
      const auto finding = load.tick(noise(i) * (i >= 400 && i < 600 ? 3 : 1));
      out.push_back(finding ? finding->score + finding->after + finding->onset_s : 0);
      out.push_back(load.detector().score());
    }
    return out;
  };
  const std::vector<double> whole = run(800);
  EXPECT_GT(*std::max_element(whole.begin(), whole.end()), 100);
  for (const int ticks : {50, 181, 399, 430, 500, 620, 799}) {
    const std::vector<double> part = run(ticks);
    EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin())) << ticks;
  }
}

}  // namespace
}  // namespace stackwatch
