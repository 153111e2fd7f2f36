// SPDX-License-Identifier: Apache-2.0
#include "daemon/ranking.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

namespace stackwatch {
namespace {

/// What a process does per second from now on.
struct Load {
  double cores = 0;
  double waiting = 0;
  double switches = 0;
  double faults = 0;
  double io_bytes = 0;
  uint64_t rss_bytes = 1 << 20;
};

class RankingTest : public testing::Test {
 protected:
  static constexpr unsigned kCpus = 2;

  void make_ranker(const RankingConfig& config) { ranker_ = Ranker(config, kCpus); }

  ProcessSample& start(int32_t pid, Load load = {}) {
    ProcessSample& sample = processes_[pid];
    sample = {};
    sample.key = {pid, ++starts_ * kStartTimeGranularityNs};
    sample.threads = 4;
    sample.rss_bytes = load.rss_bytes;
    loads_[pid] = load;
    return sample;
  }
  void end(int32_t pid) { processes_.erase(pid); }

  void tick(double seconds = 1) {
    time_s_ += seconds;
    samples_.clear();
    for (auto& [pid, sample] : processes_) {
      const Load& load = loads_[pid];
      sample.on_cpu_ns += static_cast<uint64_t>(load.cores * seconds * 1e9);
      sample.run_queue_ns += static_cast<uint64_t>(load.waiting * seconds * 1e9);
      sample.voluntary_switches += static_cast<uint64_t>(load.switches * seconds);
      sample.minor_faults += static_cast<uint64_t>(load.faults * seconds);
      sample.read_bytes += static_cast<uint64_t>(load.io_bytes * seconds);
      sample.rss_bytes = load.rss_bytes;
      samples_.push_back(sample);
    }
    ranker_.observe(time_s_, samples_);
    for (const Ranked& ranked : ranker_.ranking()) {
      ASSERT_TRUE(std::isfinite(ranked.score));
      ASSERT_GE(ranked.score, 0);
    }
    ASSERT_LE(ranker_.suspects().size(), most_suspects_);
  }
  void run(int ticks) {
    for (int i = 0; i < ticks; ++i) tick();
  }

  Ranked of(int32_t pid) {
    const auto found = std::ranges::find(ranker_.ranking(), processes_.at(pid).key, &Ranked::key);
    if (found != ranker_.ranking().end()) return *found;
    ADD_FAILURE() << pid << " is not ranked";
    return {};
  }
  double part(int32_t pid, Metric metric) { return of(pid).parts[static_cast<size_t>(metric)]; }
  bool is_suspect(int32_t pid) {
    const bool listed = std::ranges::find(ranker_.suspects(), processes_.at(pid).key) != ranker_.suspects().end();
    EXPECT_EQ(of(pid).suspect, listed);
    return listed;
  }

  Ranker ranker_{RankingConfig{}, kCpus};
  std::map<int32_t, ProcessSample> processes_;
  std::map<int32_t, Load> loads_;
  std::vector<ProcessSample> samples_;
  double time_s_ = 1000;
  uint64_t starts_ = 0;
  size_t most_suspects_ = 4;
};

TEST_F(RankingTest, AnEmptyMachineHasNoRanking) {
  tick();
  EXPECT_TRUE(ranker_.ranking().empty());
  EXPECT_TRUE(ranker_.suspects().empty());
}

TEST_F(RankingTest, CountersThatGoBackAreNoUse) {
  start(10, {.cores = 0.1, .waiting = 0.1, .switches = 50, .faults = 50, .io_bytes = 1000});
  run(60);
  ProcessSample& sample = processes_[10];
  sample.on_cpu_ns = sample.run_queue_ns = 1;
  sample.voluntary_switches = sample.minor_faults = sample.read_bytes = 0;
  loads_[10] = {};
  tick();
  for (const double now : of(10).now) EXPECT_LT(now, 2 << 20) << "not 2^64 minus something";
  EXPECT_LT(of(10).now[0], 0.1);
  EXPECT_FALSE(is_suspect(10));
}

TEST_F(RankingTest, ATimeThatStandsStillOrGoesBackIsSurvived) {
  start(10, {.cores = 0.5});
  run(10);
  tick(0);
  time_s_ -= 5;
  tick(0);
  run(60);
  EXPECT_NEAR(of(10).now[0], 0.5, 0.01);
}

TEST_F(RankingTest, WhatAProcessDidBeforeItWasSeenDoesNotCount) {
  start(10).on_cpu_ns = 1'000'000'000'000;
  run(5);
  EXPECT_DOUBLE_EQ(of(10).now[0], 0);
  EXPECT_FALSE(is_suspect(10));
}

TEST_F(RankingTest, MeasuresPerSecondWhateverTheTick) {
  start(10, {.cores = 0.4, .switches = 300});
  for (int i = 0; i < 100; ++i) tick(0.5);
  EXPECT_NEAR(of(10).now[static_cast<size_t>(Metric::kOnCpu)], 0.4, 0.01);
  EXPECT_NEAR(of(10).now[static_cast<size_t>(Metric::kSwitches)], 300, 5);
  for (int i = 0; i < 10; ++i) tick(7);
  EXPECT_NEAR(of(10).now[static_cast<size_t>(Metric::kOnCpu)], 0.4, 0.01);
}

TEST_F(RankingTest, TheBusiestScoresMost) {
  start(10, {.cores = 0.1});
  start(11, {.cores = 0.9});
  start(12);
  run(30);
  EXPECT_GT(of(11).score, of(10).score);
  EXPECT_GT(of(10).score, of(12).score);
  EXPECT_TRUE(is_suspect(11));
  EXPECT_FALSE(is_suspect(10)) << "below the floor";
}

TEST_F(RankingTest, EachProcessHasOneRowInTheOrderOfTheCensusWhoeverComesAndGoes) {
  for (int32_t pid = 20; pid > 10; --pid) start(pid, {.cores = 0.01 * pid});
  run(30);
  for (const int32_t gone : {11, 14, 15, 20}) end(gone);
  start(5, {.cores = 0.3});
  start(14);  // its pid comes round
  start(30);
  run(2);
  ASSERT_EQ(ranker_.ranking().size(), samples_.size());
  for (size_t i = 0; i < samples_.size(); ++i) EXPECT_EQ(ranker_.ranking()[i].key, samples_[i].key);
  for (const int32_t stayed : {12, 13, 16, 17, 18, 19}) {
    EXPECT_NEAR(of(stayed).now[0], 0.01 * stayed, 1e-3);
    EXPECT_NEAR(of(stayed).age_s, 31, 1e-9);
  }
  EXPECT_NEAR(of(14).age_s, 1, 1e-9) << "another process";
  EXPECT_EQ(ranker_.find({11, 1}), nullptr);
}

TEST_F(RankingTest, WhatWasOnceDoneIsForgottenToTheEnd) {
  start(10, {.cores = 0.5, .waiting = 0.1, .switches = 50, .faults = 50, .io_bytes = 1000});
  run(10);
  loads_[10] = {};
  for (int i = 0; i < 100; ++i) tick(600);
  for (const Metric metric : {Metric::kOnCpu, Metric::kRunQueue, Metric::kSwitches, Metric::kFaults, Metric::kIo}) {
    EXPECT_EQ(of(10).now[static_cast<size_t>(metric)], 0) << "and not a number that is slow to compute with";
    EXPECT_EQ(of(10).past[static_cast<size_t>(metric)], 0);
  }
}

TEST_F(RankingTest, AChangeAgainstItsOwnPast) {
  start(10, {.cores = 0.05});
  start(11, {.cores = 0.4});
  run(120);
  EXPECT_EQ(part(11, Metric::kOnCpu), 0) << "always so";
  loads_[10].cores = 0.4;
  run(15);
  EXPECT_NEAR(part(10, Metric::kOnCpu), 2.5, 0.5) << "log2 of eight times, the past having learned a little of it";
  EXPECT_EQ(part(11, Metric::kOnCpu), 0);
  EXPECT_GT(of(10).score, of(11).score) << "the same CPU time, but one has changed";
  EXPECT_TRUE(is_suspect(10));
  EXPECT_FALSE(is_suspect(11));
  EXPECT_NE(of(10).reason().find("x its usual CPU"), std::string::npos) << of(10).reason();
}

TEST_F(RankingTest, AChangeThatStaysBecomesThePast) {
  start(10, {.cores = 0.05});
  run(120);
  loads_[10].cores = 0.4;
  run(15);
  EXPECT_GT(part(10, Metric::kOnCpu), 0);
  run(1200);
  EXPECT_EQ(part(10, Metric::kOnCpu), 0);
}

TEST_F(RankingTest, LessThanUsualIsNoChange) {
  start(10, {.cores = 0.5, .switches = 5000});
  run(120);
  loads_[10] = {};
  run(20);
  EXPECT_EQ(part(10, Metric::kOnCpu), 0);
  EXPECT_EQ(part(10, Metric::kSwitches), 0);
}

TEST_F(RankingTest, AYoungProcessHasNoPast) {
  start(10, {.cores = 0.02});
  run(10);
  loads_[10].cores = 0.4;
  run(8);
  for (size_t m = 0; m < kMetrics; ++m) EXPECT_EQ(of(10).parts[m], 0) << m;
  EXPECT_FALSE(is_suspect(10));
}

TEST_F(RankingTest, WhoAlwaysVariesDoesNotStandOut) {
  start(10);
  for (int i = 0; i < 300; ++i) {
    loads_[10].cores = i % 10 < 5 ? 0.1 : 0.3;
    tick();
    if (i <= 60) continue;
    EXPECT_EQ(part(10, Metric::kOnCpu), 0) << "tick " << i;
  }
}

TEST_F(RankingTest, AmountsThatNobodyCaresAboutAreNoChange) {
  start(10, {.cores = 0.0001, .switches = 1, .faults = 1, .io_bytes = 10});
  run(120);
  loads_[10] = {.cores = 0.008, .waiting = 0.008, .switches = 90, .faults = 90, .io_bytes = 1e6, .rss_bytes = 2 << 20};
  run(20);
  for (size_t m = 0; m < kMetrics; ++m) EXPECT_EQ(of(10).parts[m], 0) << m;
}

TEST_F(RankingTest, EveryMetricStandsOutByItselfAndOnlyThat) {
  const std::map<Metric, Load> changed = {{Metric::kOnCpu, {.cores = 1}},           {Metric::kRunQueue, {.waiting = 1}},
                                          {Metric::kSwitches, {.switches = 1e5}},   {Metric::kFaults, {.faults = 1e5}},
                                          {Metric::kRss, {.rss_bytes = 1U << 30U}}, {Metric::kIo, {.io_bytes = 1e9}}};
  ASSERT_EQ(changed.size(), kMetrics);
  for (size_t m = 0; m < kMetrics; ++m) start(static_cast<int32_t>(10 + m));
  run(120);
  for (const auto& [metric, load] : changed) loads_[10 + static_cast<int32_t>(metric)] = load;
  run(15);
  for (const auto& [metric, load] : changed) {
    const auto pid = static_cast<int32_t>(10 + static_cast<size_t>(metric));
    for (size_t m = 0; m < kMetrics; ++m) {
      EXPECT_EQ(of(pid).parts[m] > 0, m == static_cast<size_t>(metric)) << to_string(metric) << ", part " << m;
    }
  }
}

TEST_F(RankingTest, SixteenTimesTheUsualIsEnough) {
  RankingConfig config;
  config.weights = {.on_cpu = 0, .entitlement = 0, .run_queue = 0, .switches = 1, .faults = 0, .rss = 0, .io = 0};
  make_ranker(config);
  start(10);
  run(120);
  loads_[10].switches = 1e9;
  run(2);
  EXPECT_DOUBLE_EQ(of(10).score, 4);
}

TEST_F(RankingTest, AWeightOfNothingLeavesAMetricOut) {
  RankingConfig config;
  config.weights = {.on_cpu = 0, .entitlement = 0, .run_queue = 0, .switches = 0, .faults = 0, .rss = 0, .io = 0};
  make_ranker(config);
  start(10);
  run(60);
  loads_[10] = {.cores = 2, .waiting = 3, .switches = 1e6, .faults = 1e6, .io_bytes = 1e9, .rss_bytes = 1U << 30U};
  run(20);
  EXPECT_EQ(of(10).score, 0);
  EXPECT_EQ(of(10).reason(), "");
  EXPECT_FALSE(is_suspect(10));
}

TEST_F(RankingTest, TheSameTimeIsMoreForWhoIsEntitledToLess) {
  start(10, {.cores = 0.5}).threads = 1;
  start(11, {.cores = 0.5}).threads = 1;
  start(12, {.cores = 1}).threads = 4;
  processes_[11].nice = 19;
  run(60);
  EXPECT_GT(of(11).score, of(10).score);
  EXPECT_LT(of(11).entitled_cores, 0.1);
  EXPECT_GT(of(11).parts[kMetrics], 10 * of(10).parts[kMetrics]);
  EXPECT_NE(of(11).reason().find("of its entitlement"), std::string::npos) << of(11).reason();
}

TEST(RankedReason, NamesTheQuotaThatHoldsAProcessBack) {
  Ranked ranked;
  ranked.entitled_cores = 0.5;
  ranked.now[static_cast<size_t>(Metric::kOnCpu)] = 0.46;
  ranked.parts[kMetrics] = 0.5;
  EXPECT_EQ(ranked.reason(), "uses 92 % of its entitlement");
  ranked.limits.quota_cores = 0.5;
  EXPECT_EQ(ranked.reason(), "uses 92 % of its quota");
  ranked.limits.quota_used = 0.49;  // with others in its group
  EXPECT_EQ(ranked.reason(), "uses 98 % of its quota");
  ranked.limits.throttled = 0.4;
  EXPECT_EQ(ranked.reason(), "throttled 40 %");
  ranked.limits.throttled = 0.01;
  EXPECT_EQ(ranked.reason(), "uses 98 % of its quota");
  ranked.limits.quota_cores = 8;  // far above what it may count on
  EXPECT_EQ(ranked.reason(), "uses 92 % of its entitlement");
}

TEST_F(RankingTest, NobodyIsASuspectWhereNoneAreWanted) {
  RankingConfig config;
  config.max_suspects = most_suspects_ = 0;
  make_ranker(config);
  start(10, {.cores = 2});
  run(30);
  EXPECT_FALSE(is_suspect(10));
}

TEST_F(RankingTest, NoMoreSuspectsThanAllowedAndTheBestOnes) {
  RankingConfig config;
  config.max_suspects = most_suspects_ = 2;
  config.floor = 0.01;
  make_ranker(config);
  for (int32_t i = 0; i < 20; ++i) start(10 + i, {.cores = 0.01 * i});
  run(3);
  EXPECT_TRUE(is_suspect(28));
  EXPECT_TRUE(is_suspect(29));
}

TEST_F(RankingTest, OneBusyTickMakesNobodyASuspect) {
  start(10);
  run(60);
  loads_[10].cores = 2;
  tick();
  EXPECT_FALSE(is_suspect(10));
  loads_[10].cores = 0;
  for (int i = 0; i < 10; ++i) {
    tick();
    ASSERT_FALSE(is_suspect(10)) << "after " << i << " s";
  }
  loads_[10].cores = 2;
  run(2);
  EXPECT_TRUE(is_suspect(10));
}

TEST_F(RankingTest, ASuspectStaysForTheDwellTimeAndGoesAfterIt) {
  RankingConfig config;
  config.min_dwell_s = 60;
  make_ranker(config);
  start(10, {.cores = 1.5});
  int since = 0;
  while (ranker_.suspects().empty() && since < 60) tick(), ++since;
  ASSERT_TRUE(is_suspect(10));
  loads_[10].cores = 0;
  for (int i = 1; i < 60; ++i) {
    tick();
    ASSERT_TRUE(is_suspect(10)) << "after " << i << " s";
  }
  run(2);
  EXPECT_FALSE(is_suspect(10));
}

TEST_F(RankingTest, ASuspectThatGoesOnStays) {
  start(10, {.cores = 1.5});
  run(30);
  for (int i = 0; i < 300; ++i) {
    tick();
    ASSERT_TRUE(is_suspect(10)) << i;
  }
}

TEST_F(RankingTest, TheSetDoesNotFlapBetweenEquals) {
  RankingConfig config;
  config.max_suspects = most_suspects_ = 1;
  config.min_dwell_s = 5;
  config.weights = {.on_cpu = 1, .entitlement = 0, .run_queue = 0, .switches = 0, .faults = 0, .rss = 0, .io = 0};
  config.floor = 0.1;
  make_ranker(config);
  start(10, {.cores = 0.80});
  start(11, {.cores = 0.75});
  run(300);
  ASSERT_TRUE(is_suspect(10));
  int changes = 0;
  bool first = true;
  for (int i = 0; i < 600; ++i) {
    loads_[10].cores = i / 20 % 2 == 0 ? 0.75 : 0.80;
    loads_[11].cores = i / 20 % 2 == 0 ? 0.80 : 0.75;
    tick();
    if (is_suspect(10) != first) ++changes, first = !first;
  }
  EXPECT_EQ(changes, 0);
  loads_[11].cores = 1.6;
  run(30);
  EXPECT_TRUE(is_suspect(11)) << "clearly higher";
}

TEST_F(RankingTest, APlaceThatBecomesFreeIsTaken) {
  RankingConfig config;
  config.max_suspects = most_suspects_ = 1;
  make_ranker(config);
  start(10, {.cores = 1.8});
  start(11, {.cores = 1.2});
  run(30);
  ASSERT_TRUE(is_suspect(10));
  end(10);
  tick();
  EXPECT_TRUE(is_suspect(11));
}

TEST_F(RankingTest, APidThatComesRoundHasNoPast) {
  start(10, {.cores = 1.5});
  run(60);
  ASSERT_TRUE(is_suspect(10));
  start(10);
  tick();
  EXPECT_FALSE(is_suspect(10));
  EXPECT_EQ(of(10).now[0], 0);
}

TEST_F(RankingTest, ANewConfigurationForgetsNothing) {
  start(10, {.cores = 0.05});
  run(120);
  RankingConfig config;
  config.weights.on_cpu = 3;
  ranker_.configure(config);
  loads_[10].cores = 0.4;
  run(15);
  EXPECT_GT(part(10, Metric::kOnCpu), 6) << "three times the weight, against the same past";
}

TEST(Metric, Names) {
  EXPECT_EQ(to_string(Metric::kOnCpu), "on_cpu");
  EXPECT_EQ(to_string(Metric::kRunQueue), "run_queue");
  EXPECT_EQ(to_string(Metric::kIo), "io");
}

}  // namespace
}  // namespace stackwatch
