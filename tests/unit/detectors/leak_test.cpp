// SPDX-License-Identifier: Apache-2.0
#include "detectors/leak.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <random>

namespace stackwatch {
namespace {

constexpr uint64_t kSeeds = 10;
constexpr double kThreshold = 21.7;
constexpr double kMb = 1e6;

struct Told {
  int at = -1;  ///< tick of the first claim; -1: none
  int ticks = 0;
};
/// Ticks of 1 s of `level(i)`.
Told run(Growth& growth, int ticks, const std::function<double(int)>& level, int from = 0) {
  Told out;
  for (int i = 0; i < ticks; ++i) {
    growth.observe(from + i, level(i));
    if (!growth.claim(kThreshold)) continue;
    if (out.at < 0) out.at = i;
    ++out.ticks;
  }
  return out;
}

TEST(GrowthBadInput, NonsenseIsSkipped) {
  Growth growth({});
  for (int i = 0; i < 5000; ++i) {
    growth.observe(i, 1e8);
    growth.observe(i + 0.5, std::nan(""));
    growth.observe(i + 0.5, std::numeric_limits<double>::infinity());
    growth.observe(std::nan(""), 2e8);
    growth.observe(i - 10, 3e8 + i * 1e6);
    ASSERT_FALSE(growth.claim(kThreshold));
    ASSERT_EQ(growth.level(), 1e8);
  }
}

TEST(GrowthBadInput, WhatGrewWhileNobodyLookedIsNotClaimed) {
  Growth growth({});
  for (int i = 0; i < 2000; ++i) {
    growth.observe(i * 3600.0, 1e6 * i);  // one sample per hour
    ASSERT_FALSE(growth.claim(kThreshold)) << i;
  }
}

TEST(Growth, LeaksOfAllSizesAreFound) {
  for (const double rate : {1e4, 1e5, 1e6, 1e7}) {
    for (uint64_t seed = 0; seed < kSeeds; ++seed) {
      std::mt19937_64 random(seed);
      std::normal_distribution<double> normal;
      Growth growth({});
      const auto noise = [&](int) { return 50 * kMb + 0.02 * kMb * normal(random); };
      ASSERT_EQ(run(growth, 1000, noise).at, -1) << seed;
      const Told told = run(
          growth, 1200, [&](int i) { return noise(i) + rate * i; }, 1000);
      EXPECT_GE(told.at, 100) << rate << " " << seed;
      EXPECT_LE(told.at, 330) << rate << " " << seed;
    }
  }
}

TEST(Growth, SteadyNoiseIsQuietForADay) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    std::mt19937_64 random(seed);
    std::normal_distribution<double> normal;
    Growth growth({});
    EXPECT_EQ(run(growth, 86400, [&](int) { return 50 * kMb + 20 * kMb * normal(random); }).at, -1) << seed;
  }
}

TEST(Growth, SawTeethAreQuietWhateverTheirLength) {
  for (const int period : {7, 20, 60, 150, 240}) {
    for (uint64_t seed = 0; seed < 4; ++seed) {
      std::mt19937_64 random(seed);
      std::normal_distribution<double> normal;
      Growth growth({});
      const auto tooth = [&](int i) { return 20 * kMb + 0.5 * kMb * (i % period) + 0.2 * kMb * normal(random); };
      EXPECT_EQ(run(growth, 20000, tooth).at, -1) << period << " " << seed;
    }
  }
}

TEST(Growth, ALeakUnderSawTeethIsFoundByItsFloors) {
  std::mt19937_64 random(1);
  std::normal_distribution<double> normal;
  Growth growth({});
  const auto tooth = [&](int i) { return 20 * kMb + 0.5 * kMb * (i % 30) + 0.1 * kMb * normal(random); };
  ASSERT_EQ(run(growth, 2000, tooth).at, -1);
  const Told told = run(
      growth, 6000, [&](int i) { return tooth(2000 + i) + 5e4 * i; }, 2000);
  EXPECT_GT(told.at, 0);
  EXPECT_LT(told.at, 2000);
}

TEST(Growth, CachesThatFillAreQuiet) {
  for (const double fill_s : {30.0, 60.0, 120.0, 200.0}) {
    Growth growth({});
    const auto cache = [&](int i) { return 10 * kMb + 400 * kMb * (1 - std::exp(-std::max(0, i - 600) / fill_s)); };
    EXPECT_EQ(run(growth, 10000, cache).at, -1) << fill_s;
  }
}

TEST(Growth, StartUpIsNoLeak) {
  Growth growth({});
  EXPECT_EQ(run(growth, 5000, [](int i) { return 1e6 * std::min(i, 280); }).at, -1);
}

TEST(Growth, EndsWhenItStopsOrFalls) {
  for (const bool falls : {false, true}) {
    Growth growth({});
    run(growth, 400, [](int) { return 10 * kMb; });
    ASSERT_GT(run(
                  growth, 600, [](int i) { return 10 * kMb + 1e6 * i; }, 400)
                  .at,
              0);
    const Told after = run(
        growth, 600, [&](int) { return falls ? 10 * kMb : 610 * kMb; }, 1000);
    EXPECT_LT(after.ticks, 120) << falls;
  }
}

// ---- the detector

class Program {
 public:
  explicit Program(ProbeKind probe = ProbeKind::kMemory, LeakSettings settings = {}) : detector_(probe, {}, settings) {
    delta_.probe = ProbeKind::kMemory;
    delta_.interval_s = 1;
    delta_.stacks = &stacks_;
    delta_.functions = &functions_;
  }
  StackId stack(const std::vector<std::string>& frames) {
    std::vector<FunctionId> ids;
    for (const std::string& frame : frames) ids.push_back(functions_.intern("p", frame));
    return stacks_.intern(ids);
  }
  std::optional<Finding> tick(std::vector<NamedDelta::Value> values) {
    delta_.time_s += 1;
    delta_.values = std::move(values);
    return detector_.observe(delta_);
  }
  std::string name(const Finding& finding) { return finding.frame ? functions_[*finding.frame].name : ""; }
  LeakDetector& detector() { return detector_; }
  NamedDelta& delta() { return delta_; }

 private:
  FunctionTable functions_;
  StackTable stacks_;
  NamedDelta delta_;
  LeakDetector detector_;
};

TEST(LeakBadInput, NonsenseIsSkipped) {
  Program program;
  const StackId leak = program.stack({"main", "handle", "malloc"});
  for (int i = 0; i < 1000; ++i) {
    ASSERT_FALSE(program.tick({{leak, i % 2 == 0 ? 100 : -100}})) << i;
    NamedDelta broken = program.delta();
    broken.values = {{leak, 1'000'000'000}};
    ASSERT_FALSE(program.detector().observe(broken)) << "time stands still";
    broken.time_s = std::nan("");
    ASSERT_FALSE(program.detector().observe(broken));
    broken.time_s = program.delta().time_s + 0.1;
    broken.values = {{StackId{99999}, 1'000'000'000}, {StackTable::kOther, 1'000'000'000}};
    ASSERT_FALSE(program.detector().observe(broken));
    program.delta().time_s += 0.1;
  }
}

TEST(Leak, TheCallerOfTheAllocatorIsNamed) {
  Program program;
  const StackId leak = program.stack({"main", "handle", "remember", "operator new(unsigned long)", "malloc"});
  const StackId churn = program.stack({"main", "handle", "parse", "malloc"});
  std::optional<Finding> finding;
  int ticks = 0;
  for (; ticks < 900 && !finding; ++ticks) {
    const bool leaks = ticks > 400;
    finding = program.tick({{leak, leaks ? 100'000 : 0}, {churn, ticks % 2 == 0 ? 5'000'000 : -5'000'000}});
  }
  ASSERT_TRUE(finding);
  EXPECT_EQ(program.name(*finding), "remember");
  EXPECT_EQ(finding->stack, leak);
  EXPECT_EQ(finding->unit_of_measure, "bytes outstanding");
  EXPECT_GT(finding->after, finding->before + 2e6);
  EXPECT_NEAR(finding->onset_s, 400, 60);
}

TEST(Leak, AProgramsOwnAllocatorIsNotBlamedForItsCallers) {
  Program program;
  const StackId leak = program.stack({"main", "handle", "remember", "new_node", "xmalloc", "malloc"});
  const StackId churn = program.stack({"main", "parse", "xmalloc", "malloc"});
  const StackId nodes = program.stack({"main", "index", "new_node", "xmalloc", "malloc"});
  std::optional<Finding> finding;
  for (int i = 0; i < 900 && !finding; ++i) {
    const int64_t more = i % 2 == 0 ? 5'000'000 : -5'000'000;
    finding = program.tick({{leak, i > 400 ? 100'000 : 0}, {churn, more}, {nodes, more}});
  }
  ASSERT_TRUE(finding);
  EXPECT_EQ(program.name(*finding), "remember");
}

TEST(Leak, MoreStacksThanPlacesKeepTheLargest) {
  LeakSettings settings;
  settings.max_streams = 16;
  Program program(ProbeKind::kMemory, settings);
  std::vector<StackId> many;
  for (int i = 0; i < 200; ++i) many.push_back(program.stack({"main", "f" + std::to_string(i), "malloc"}));
  std::optional<Finding> finding;
  for (int t = 0; t < 1200 && !finding; ++t) {
    std::vector<NamedDelta::Value> values;
    for (int i = 0; i < 199; ++i) values.push_back({many[static_cast<size_t>(i)], (t + i) % 2 == 0 ? 10 : -10});
    values.push_back({many[199], 50'000});
    finding = program.tick(values);
    ASSERT_LE(program.detector().streams(), 16U);
  }
  ASSERT_TRUE(finding);
  EXPECT_EQ(program.name(*finding), "f199");
}

TEST(Leak, ResidentMemoryIsJudgedWithoutAProbe) {
  Program program(ProbeKind::kCensus);
  std::optional<Finding> finding;
  for (int t = 0; t < 2000 && !finding; ++t) {
    CensusDelta census;
    census.time_s = t;
    census.interval_s = 1;
    census.rss_bytes = 1e8 + 3e5 * std::max(0, t - 600);
    finding = program.detector().observe_census(census);
    if (t < 600) {
      ASSERT_FALSE(finding);
    }
  }
  ASSERT_TRUE(finding);
  EXPECT_EQ(finding->probe, ProbeKind::kCensus);
  EXPECT_FALSE(finding->frame);
}

TEST(Leak, TruncatingTheInputChangesNoEarlierFinding) {
  const auto run = [](int ticks) {
    Program program;
    const StackId leak = program.stack({"main", "remember", "malloc"});
    std::vector<double> out;
    for (int i = 0; i < ticks; ++i) {
      const auto finding = program.tick({{leak, i > 400 && i < 800 ? 50'000 : (i % 2 == 0 ? 10 : -10)}});
      out.push_back(finding ? finding->score + finding->after : 0);
    }
    return out;
  };
  const std::vector<double> whole = run(1200);
  EXPECT_GT(*std::max_element(whole.begin(), whole.end()), 0);
  for (const int ticks : {300, 500, 650, 900}) {
    const std::vector<double> part = run(ticks);
    EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin())) << ticks;
  }
}

}  // namespace
}  // namespace stackwatch
