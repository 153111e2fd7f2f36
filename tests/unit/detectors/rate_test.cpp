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
  explicit Load(RateSettings settings = {}) : detector_(RateMetric::kCores, {}, settings) {
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
  RateDetector detector(RateMetric::kFaults, {}, {});
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

TEST(Rate, ATripledLoadIsFound) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Load load;
    Bursty before(seed, 0.4, 0.1, 2);
    ASSERT_FALSE(load.run(400, std::ref(before))) << seed;
    Bursty after(seed + 100, 1.3, 0.1, 2);
    const auto finding = load.run(120, std::ref(after));
    ASSERT_TRUE(finding) << seed;
    EXPECT_GE(load.taken(), 20) << "no shorter than the persistence";
    EXPECT_LE(load.taken(), 40) << seed;
    EXPECT_FALSE(finding->frame);
    EXPECT_NEAR(finding->onset_s, 400, 3) << seed;
    EXPECT_NEAR(finding->before, 0.4, 0.05);
    EXPECT_NEAR(finding->after, 1.3, 0.15);
    EXPECT_NEAR(finding->change_cores, 0.9, 0.17);
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

// ---- contention

/// One tick of a process that computes for `cores` and waits for a CPU for `waiting`.
std::optional<Finding> contended(Load& load, double cores, double waiting) {
  CensusDelta census;
  census.time_s = load.delta().time_s + 1;
  census.interval_s = 1;
  census.on_cpu_s = cores;
  census.run_queue_s = waiting;
  EXPECT_FALSE(load.detector().observe_census(census)) << "it answers to deltas";
  return load.tick(cores);
}

TEST(RateContention, WhoGetsMoreBecauseACompetitorEndedIsNotBlamed) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Load load;
    Bursty share(seed, 0.30, 0.05, 3);
    for (int i = 0; i < 600; ++i) {
      const double got = share(i);
      ASSERT_FALSE(contended(load, got, 0.96 - got)) << seed;
    }
    for (int i = 0; i < 1200; ++i)
      ASSERT_FALSE(contended(load, 0.95 + 0.01 * (share(i) - 0.3), 0.01)) << seed << " " << i;
  }
}

TEST(RateContention, WhoGetsLessBecauseACompetitorCameIsNotBlamed) {
  Load load;
  Bursty noise(5, 0.95, 0.01, 3);
  for (int i = 0; i < 600; ++i) ASSERT_FALSE(contended(load, noise(i), 0.01));
  for (int i = 0; i < 1200; ++i) ASSERT_FALSE(contended(load, 0.3 * noise(i), 0.65)) << i;
}

TEST(RateContention, WhoWantsMoreIsFoundThoughTheMachineIsContended) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Load load;
    Bursty noise(seed, 0.2, 0.1, 3);
    for (int i = 0; i < 600; ++i) ASSERT_FALSE(contended(load, noise(i), 0.1));
    std::optional<Finding> finding;
    int ticks = 0;
    for (; ticks < 100 && !finding; ++ticks) finding = contended(load, 4 * noise(ticks), 0.8);
    ASSERT_TRUE(finding) << seed;
    EXPECT_GE(ticks, 20);
    EXPECT_NEAR(finding->after, 0.8, 0.1);
  }
}

/// The census detectors, driven by what they need.
class Census {
 public:
  explicit Census(RateMetric metric) : detector_(metric, {}, {}) {}
  std::optional<Finding> tick(double on_cpu_s, double run_queue_s, double switches = 0, double io = 0) {
    CensusDelta census;
    census.time_s = ++time_s_;
    census.interval_s = 1;
    census.on_cpu_s = on_cpu_s;
    census.run_queue_s = run_queue_s;
    census.voluntary_switches = switches;
    census.read_bytes = io;
    return detector_.observe_census(census);
  }

 private:
  RateDetector detector_;
  double time_s_ = 0;
};

TEST(RateContention, LittleStarvationIsNoFindingMuchIsOne) {
  Census census(RateMetric::kStarved);
  for (int i = 0; i < 400; ++i) ASSERT_FALSE(census.tick(1.5, 0.1));
  for (int i = 0; i < 400; ++i) ASSERT_FALSE(census.tick(0.9, 1.0)) << "two busy programs on one CPU";
  std::optional<Finding> finding;
  // Slowly: that waiting may double and halve is part of what was learned.
  for (int i = 0; i < 600 && !finding; ++i) finding = census.tick(0.5, 6);
  ASSERT_TRUE(finding);
  EXPECT_EQ(finding->probe, ProbeKind::kCensus);
  EXPECT_EQ(finding->unit_of_measure, "threads starved of CPU");
  EXPECT_EQ(finding->change_cores, 0);
}

TEST(RateContention, WhoWaitsMoreBecauseItAsksForMoreIsNotStarved) {
  Census census(RateMetric::kStarved);
  for (int i = 0; i < 400; ++i) ASSERT_FALSE(census.tick(0.3, 0.05));
  for (int i = 0; i < 400; ++i) ASSERT_FALSE(census.tick(1.9, 6)) << i;
}

TEST(RateContention, AQueueThatEmptiesIsNoNews) {
  Census census(RateMetric::kStarved);
  for (int i = 0; i < 400; ++i) ASSERT_FALSE(census.tick(0.3, 8));
  for (int i = 0; i < 400; ++i) ASSERT_FALSE(census.tick(0.4, 0)) << i;
}

TEST(Rate, MetricsOfTheCensusAreFollowed) {
  Census io(RateMetric::kIo);
  Census switches(RateMetric::kSwitches);
  for (int i = 0; i < 400; ++i) {
    ASSERT_FALSE(io.tick(0.5, 0, 0, 1e6));
    ASSERT_FALSE(switches.tick(0.5, 0, 2000));
  }
  std::optional<Finding> of_io;
  std::optional<Finding> of_switches;
  for (int i = 0; i < 100; ++i) {
    of_io = io.tick(0.5, 0, 0, 5e7);
    of_switches = switches.tick(0.5, 0, 40000);
  }
  ASSERT_TRUE(of_io);
  EXPECT_NEAR(of_io->after, 5e7, 1e6);
  ASSERT_TRUE(of_switches);
  EXPECT_NEAR(of_switches->before, 2000, 1);
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

TEST(Rate, ADoubledOrHalvedLoadIsADayLikeAnyOther) {
  for (const double factor : {2.0, 0.5}) {
    for (uint64_t seed = 0; seed < kSeeds; ++seed) {
      Load load;
      Bursty noise(seed, 0.5, 0.1, 3);
      ASSERT_FALSE(load.run(600, std::ref(noise)));
      EXPECT_FALSE(load.run(2000, [&](int i) { return factor * noise(i); })) << factor << " " << seed;
    }
  }
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
