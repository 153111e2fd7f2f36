// SPDX-License-Identifier: Apache-2.0
#include "detectors/novelty.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "detectors/composition.h"
#include "simulated_process.h"

namespace stackwatch {
namespace {

using Leaf = SimulatedProcess::Leaf;

constexpr int kUsual = 100;
constexpr int kLearned = 310;
constexpr size_t kFirstNew = kUsual;

/// Shares like 1/rank^1.2: rare ones show up for the first time again and again.
std::vector<Leaf> with_new(const std::vector<Leaf>& fresh) {
  std::vector<Leaf> leaves;
  for (int i = 1; i <= kUsual; ++i) leaves.push_back({{"main", "f" + std::to_string(i)}, std::pow(i, -1.2)});
  double sum = 0;
  for (const Leaf& leaf : leaves) sum += leaf.share;
  for (Leaf& leaf : leaves) leaf.share /= sum;
  leaves.insert(leaves.end(), fresh.begin(), fresh.end());
  return leaves;
}

std::vector<Leaf> one() { return {{{"main", "entry", "fresh", "f2"}, 0}}; }
std::vector<Leaf> forty() {
  std::vector<Leaf> leaves;
  for (int i = 1; i <= 40; ++i) {
    leaves.push_back({{"main", "f" + std::to_string(i), "fresh" + std::to_string(i)}, 0});
  }
  return leaves;
}
std::vector<Leaf> ways() {
  std::vector<Leaf> leaves;
  for (int i = 1; i <= 40; ++i) {
    leaves.push_back({{"main", "f" + std::to_string(i), "f" + std::to_string(90 - i)}, 0});
  }
  return leaves;
}

NoveltyDetector make(const NoveltySettings& settings = {}, const DetectionPolicy& policy = {}) {
  return NoveltyDetector(policy, settings);
}

std::optional<Finding> watch(Detector& detector, SimulatedProcess& process, int ticks, int* until = nullptr) {
  std::optional<Finding> out;
  for (int i = 1; i <= ticks && !out; ++i) {
    out = detector.observe(process.tick());
    if (until != nullptr) *until = i;
  }
  return out;
}

void give(SimulatedProcess& process, size_t leaves, double share) {
  for (size_t i = 0; i < leaves; ++i) {
    process.set_share(kFirstNew + i, share / (1 - share) / static_cast<double>(leaves));
  }
}

// ---- bad input

TEST(NoveltyBadInput, BrokenTicksAreNeitherLearnedNorTold) {
  SimulatedProcess process(with_new(one()), 1);
  NoveltyDetector detector = make();
  for (int i = 0; i < 400; ++i) {
    const NamedDelta delta = process.tick();
    NamedDelta broken = delta;
    broken.stacks = nullptr;
    EXPECT_FALSE(detector.observe(broken));
    broken = delta;
    broken.time_s = std::numeric_limits<double>::quiet_NaN();
    EXPECT_FALSE(detector.observe(broken));
    broken = delta;
    broken.values.front().stack.value = 1000000;
    EXPECT_FALSE(detector.observe(broken));
    broken = delta;
    broken.values.front().value = -5;
    EXPECT_FALSE(detector.observe(broken));
  }
  EXPECT_TRUE(detector.is_learning());
  EXPECT_EQ(detector.young(), 0U);
}

TEST(NoveltyBadInput, EmptyTicksAndDaysAsleepAreNoEvidence) {
  SimulatedProcess process(with_new(one()), 2);
  NoveltyDetector detector = make();
  ASSERT_FALSE(watch(detector, process, kLearned));
  ASSERT_FALSE(detector.is_learning());
  for (int i = 0; i < 1000; ++i) {
    process.delta().values.clear();
    process.delta().time_s += 1;
    EXPECT_FALSE(detector.observe(process.delta()));
  }
  process.delta().time_s += 3 * 86400;
  EXPECT_FALSE(watch(detector, process, 300));
  give(process, 1, 0.1);
  EXPECT_TRUE(watch(detector, process, 60));
}

TEST(NoveltyBadInput, AMillionSamplesInATickAreNoAlarmAndStayFinite) {
  SimulatedProcess process(with_new(one()), 3);
  NoveltyDetector detector = make();
  ASSERT_FALSE(watch(detector, process, kLearned));
  process.set_samples(1e6);
  EXPECT_FALSE(watch(detector, process, 2));  // every rare stack there is, at once
  process.set_samples(99);
  EXPECT_FALSE(watch(detector, process, 200));
  EXPECT_TRUE(std::isfinite(detector.usual_share()));
}

TEST(NoveltyBadInput, StacksWithoutNamesAreNeverNew) {
  SimulatedProcess process(with_new({}), 4);
  NoveltyDetector detector = make();
  ASSERT_FALSE(watch(detector, process, kLearned));
  const std::vector<FunctionId> unnamed = {process.function("main"), FunctionTable::kUnnamed, process.function("x")};
  const StackId stack = process.stacks().intern(unnamed);
  for (int i = 0; i < 120; ++i) {
    NamedDelta delta = process.tick();
    delta.values.push_back({stack, 9});
    delta.values.push_back({StackTable::kOther, 40});
    EXPECT_FALSE(detector.observe(delta));
  }
}

TEST(NoveltyBadInput, AnotherStackTableStartsOver) {
  SimulatedProcess process(with_new(one()), 5);
  SimulatedProcess other(with_new(one()), 6);
  NoveltyDetector detector = make();
  ASSERT_FALSE(watch(detector, process, kLearned));
  ASSERT_FALSE(detector.is_learning());
  other.delta().time_s = process.time_s();
  EXPECT_FALSE(watch(detector, other, 1));
  EXPECT_TRUE(detector.is_learning());
}

TEST(NoveltyBadInput, ShortTicksStayBounded) {
  SimulatedProcess process(with_new(one()), 7);
  NoveltySettings settings;
  settings.quarantine_s = 240;
  NoveltyDetector detector = make(settings);
  double time_s = 0;
  for (int i = 0; i < 3000; ++i) {
    NamedDelta delta = process.tick();
    delta.time_s = time_s += 0.1;
    delta.interval_s = 0.1;
    EXPECT_FALSE(detector.observe(delta));
    EXPECT_LE(detector.young(), NoveltyDetector::kMaxYoung);
  }
}

// ---- what it must find

TEST(Novelty, ANewFunctionIsNamedBeforeTheHelperItCalls) {
  SimulatedProcess process(with_new(one()), 8);
  NoveltyDetector detector = make();
  ASSERT_FALSE(watch(detector, process, kLearned));
  give(process, 1, 0.05);
  const double changed_s = process.time_s();
  int ticks = 0;
  const auto finding = watch(detector, process, 60, &ticks);
  ASSERT_TRUE(finding);
  EXPECT_GE(ticks, 20);  // persistence
  EXPECT_LE(ticks, 30);
  ASSERT_TRUE(finding->frame);
  EXPECT_EQ(process.name(*finding->frame), "fresh");
  EXPECT_EQ(process.stacks()[*finding->stack].size(), 4U);
  EXPECT_EQ(finding->before, 0);
  EXPECT_NEAR(finding->after, 0.05, 0.02);
  EXPECT_NEAR(finding->onset_s, changed_s, 3);
  EXPECT_EQ(finding->unit_of_measure, "share of samples");
  EXPECT_GE(finding->score, finding->threshold);
}

TEST(Novelty, ManySmallNewFunctionsAreFoundTogether) {
  SimulatedProcess process(with_new(forty()), 9);
  NoveltyDetector detector = make();
  CompositionDetector composition({}, {});
  SimulatedProcess same(with_new(forty()), 9);
  ASSERT_FALSE(watch(detector, process, kLearned));
  ASSERT_FALSE(watch(composition, same, kLearned));
  give(process, 40, 0.1);
  give(same, 40, 0.1);
  const auto finding = watch(detector, process, 60);
  ASSERT_TRUE(finding);
  EXPECT_FALSE(finding->frame);
  EXPECT_NEAR(finding->after, 0.1, 0.03);
  EXPECT_LT(finding->before, 0.01);
  EXPECT_EQ(finding->contributors.size(), NoveltyDetector::kMaxContributors);
  for (const Contributor& c : finding->contributors) {
    EXPECT_THAT(process.name(c.frame), testing::StartsWith("fresh"));
  }
  EXPECT_FALSE(watch(composition, same, 60));  // what it is there for
}

TEST(Novelty, NewWaysToKnownFunctionsAreFound) {
  SimulatedProcess process(with_new(ways()), 10);
  NoveltyDetector detector = make();
  ASSERT_FALSE(watch(detector, process, kLearned));
  give(process, 40, 0.1);
  const auto finding = watch(detector, process, 60);
  ASSERT_TRUE(finding);
  EXPECT_FALSE(finding->frame);
  EXPECT_EQ(finding->unit_of_measure, "share of samples in new stacks");
}

TEST(Novelty, PageFaultsHaveNoCores) {
  SimulatedProcess process(with_new(one()), 11);
  NoveltyDetector detector = make();
  process.delta().probe = ProbeKind::kPageFault;
  ASSERT_FALSE(watch(detector, process, kLearned));
  give(process, 1, 0.2);
  const auto finding = watch(detector, process, 60);
  ASSERT_TRUE(finding);
  EXPECT_EQ(finding->change_cores, 0);
  EXPECT_EQ(finding->unit_of_measure, "share of page faults");
}

// ---- what it must not tell

TEST(Novelty, KnownFunctionsThatGrowAreNotNew) {
  SimulatedProcess process(with_new({}), 12);
  NoveltyDetector detector = make();
  ASSERT_FALSE(watch(detector, process, kLearned));
  process.move_share(0, 3, 0.15);
  EXPECT_FALSE(watch(detector, process, 300));
}

TEST(Novelty, TransientsAndSmallSharesAreNotTold) {
  SimulatedProcess process(with_new(one()), 13);
  NoveltyDetector detector = make();
  ASSERT_FALSE(watch(detector, process, kLearned));
  give(process, 1, 0.5);
  EXPECT_FALSE(watch(detector, process, 15));
  give(process, 1, 0);
  EXPECT_FALSE(watch(detector, process, 120));
  SimulatedProcess another(with_new(one()), 14);
  NoveltyDetector second = make();
  ASSERT_FALSE(watch(second, another, kLearned));
  give(another, 1, 0.008);
  EXPECT_FALSE(watch(second, another, 300));
}

TEST(Novelty, WhatWasSeenOnceIsNotNewAgain) {
  SimulatedProcess process(with_new(one()), 15);
  NoveltyDetector detector = make();
  ASSERT_FALSE(watch(detector, process, kLearned));
  give(process, 1, 0.2);
  ASSERT_TRUE(watch(detector, process, 60));
  give(process, 1, 0);
  int ticks = 0;
  while (detector.observe(process.tick()) && ticks < 300) ++ticks;
  EXPECT_GE(ticks, 9);
  EXPECT_LT(ticks, 120);
  give(process, 1, 0.2);
  EXPECT_FALSE(watch(detector, process, 300));
}

TEST(Novelty, StandsAndIsNormalInTheEnd) {
  SimulatedProcess process(with_new(one()), 16);
  NoveltySettings settings;
  settings.adopt_after_s = 200;
  NoveltyDetector detector = make(settings);
  ASSERT_FALSE(watch(detector, process, kLearned));
  give(process, 1, 0.2);
  const auto first = watch(detector, process, 60);
  ASSERT_TRUE(first);
  int stood = 0;
  for (auto next = first; next; next = detector.observe(process.tick())) {
    ASSERT_EQ(next->onset_s, first->onset_s);
    ASSERT_EQ(next->frame, first->frame);
    ASSERT_LT(++stood, 300);
  }
  EXPECT_GT(stood, 150);
  EXPECT_FALSE(watch(detector, process, 300));
}

/// The budget is 2000 ticks for each process by itself; of 20 that are watched for so long each, at most 20 false
/// alarms are promised. P(more than 30 | 20) = 0.013, and the real number is far smaller: see docs/detection.md.
class NoveltyQuiet : public testing::TestWithParam<double> {};
TEST_P(NoveltyQuiet, RunsAreAsLongAsPromised) {
  constexpr int kPromised = 2000;
  DetectionPolicy policy;
  policy.false_alarm_period_s = kPromised;
  policy.expected_streams = 1;
  policy.min_change_share = 0.005;
  policy.min_change_cores = 0;
  NoveltySettings settings;
  settings.persistence_s = 0;
  settings.min_relative_change = 0;
  int alarms = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    SimulatedProcess process(with_new({}), seed + 100);
    process.set_dispersion(GetParam());
    NoveltyDetector detector(policy, settings);
    while (detector.is_learning()) (void)detector.observe(process.tick());
    alarms += watch(detector, process, kPromised) ? 1 : 0;
  }
  EXPECT_LE(alarms, 30);
}
INSTANTIATE_TEST_SUITE_P(Dispersion, NoveltyQuiet, testing::Values(1.0, 5.0));

TEST(Novelty, CodeThatIsNewAllTheTimeIsUsual) {
  int alarms = 0;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    SimulatedProcess process(with_new({}), seed + 200);
    std::mt19937_64 random(seed);
    std::bernoulli_distribution begins(0.1);
    std::geometric_distribution<int> lasts(0.3);
    NoveltyDetector detector = make();
    int born = 0;
    int left = 0;
    StackId stack;
    for (int i = 0; i < 3000; ++i) {
      if (left == 0 && begins(random)) {
        const std::vector<FunctionId> frames = {process.function("main"),
                                                process.function("made" + std::to_string(born++))};
        stack = process.stacks().intern(frames);
        left = 1 + lasts(random);
      }
      NamedDelta delta = process.tick();
      if (left > 0) delta.values.push_back({stack, 10});
      left = std::max(0, left - 1);
      if (!detector.observe(delta)) continue;
      ++alarms;
      break;
    }
    EXPECT_GT(detector.usual_share(), 0.01);
  }
  EXPECT_EQ(alarms, 0);
}

TEST(Novelty, TruncatingTheInputChangesNoEarlierFinding) {
  const auto run = [](int ticks) {
    SimulatedProcess process(with_new(forty()), 17);
    process.set_dispersion(2);
    NoveltyDetector detector = make();
    std::vector<double> out;
    for (int i = 0; i < ticks; ++i) {
      if (i == 340) give(process, 40, 0.2);
      if (i == 440) give(process, 40, 0);
      const auto finding = detector.observe(process.tick());
      out.push_back(finding ? finding->score + finding->after + finding->onset_s : 0);
      out.push_back(detector.usual_share());
    }
    return out;
  };
  const std::vector<double> whole = run(600);
  EXPECT_GT(*std::max_element(whole.begin(), whole.end()), 300);  // there is a finding in it
  for (const int ticks : {10, 61, 310, 345, 358, 380, 445, 500, 599}) {
    const std::vector<double> part = run(ticks);
    EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin())) << ticks;
  }
}

TEST(Novelty, ANewPolicyIsInForceAtOnce) {
  SimulatedProcess process(with_new(one()), 18);
  NoveltyDetector detector = make();
  ASSERT_FALSE(watch(detector, process, kLearned));
  DetectionPolicy policy;
  policy.min_change_share = 0.5;
  detector.set_policy(policy);
  give(process, 1, 0.2);
  EXPECT_FALSE(watch(detector, process, 100));
}

}  // namespace
}  // namespace stackwatch
