// SPDX-License-Identifier: Apache-2.0
#include "detectors/composition.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <string>

#include "simulated_process.h"

namespace stackwatch {
namespace {

using Leaf = SimulatedProcess::Leaf;
using testing::Contains;
using testing::Not;

constexpr uint64_t kSeeds = 12;

/// Ten functions under one loop; "hot" has 10 %, "busy" 30 %.
std::vector<Leaf> ten_functions() {
  std::vector<Leaf> leaves{{{"main", "loop", "hot"}, 0.10}, {{"main", "loop", "busy"}, 0.30}};
  for (int i = 0; i < 8; ++i) leaves.push_back({{"main", "loop", "work" + std::to_string(i)}, 0.075});
  return leaves;
}
constexpr size_t kHot = 0;
constexpr size_t kBusy = 1;

CompositionDetector make(const CompositionSettings& settings = {}, const DetectionPolicy& policy = {}) {
  return CompositionDetector(policy, settings);
}

/// Ticks until the first finding, at most `most`; the finding where there was one.
struct Watched {
  std::optional<Finding> finding;
  int ticks = 0;
};
Watched watch(CompositionDetector& detector, SimulatedProcess& process, int most) {
  Watched out;
  while (out.ticks < most && !out.finding) {
    out.finding = detector.observe(process.tick());
    ++out.ticks;
  }
  return out;
}

std::vector<std::string> contributors(const Finding& finding, const SimulatedProcess& process) {
  std::vector<std::string> out;
  for (const Contributor& c : finding.contributors) out.push_back(process.name(c.frame));
  return out;
}

// ---- bad input

TEST(CompositionBadInput, NoTableNoTimeNoIntervalAreSkipped) {
  SimulatedProcess process(ten_functions(), 1);
  CompositionDetector detector = make();
  for (int i = 0; i < 100; ++i) {
    NamedDelta delta = process.tick();
    NamedDelta broken = delta;
    broken.stacks = nullptr;
    EXPECT_FALSE(detector.observe(broken));
    broken = delta;
    broken.time_s = std::numeric_limits<double>::quiet_NaN();
    EXPECT_FALSE(detector.observe(broken));
    broken = delta;
    broken.interval_s = -1;
    EXPECT_FALSE(detector.observe(broken));
    broken = delta;
    broken.values.front().stack.value = 1000000;
    EXPECT_FALSE(detector.observe(broken));
    broken = delta;
    broken.values.front().value = -5;
    EXPECT_FALSE(detector.observe(broken));
  }
  EXPECT_EQ(detector.baseline().total, 0);
  EXPECT_TRUE(detector.is_learning());
}

TEST(CompositionBadInput, BrokenTicksBetweenGoodOnesChangeNothing) {
  SimulatedProcess process(ten_functions(), 2);
  CompositionDetector clean = make();
  CompositionDetector disturbed = make();
  for (int i = 0; i < 200; ++i) {
    if (i == 100) process.move_share(kBusy, kHot, 0.2);
    const NamedDelta delta = process.tick();
    const auto expected = clean.observe(delta);
    const auto found = disturbed.observe(delta);
    ASSERT_EQ(expected.has_value(), found.has_value()) << i;
    NamedDelta broken = delta;  // the same time again: it goes back, or stands still
    for (auto& value : broken.values) value.value *= 1000;
    EXPECT_EQ(disturbed.observe(broken).has_value(), found.has_value());
    broken.time_s -= 50;
    EXPECT_EQ(disturbed.observe(broken).has_value(), found.has_value());
  }
  EXPECT_EQ(clean.baseline().total, disturbed.baseline().total);
}

TEST(CompositionBadInput, NanExposureIsNoFindingAndNoCrash) {
  SimulatedProcess process(ten_functions(), 3);
  CompositionDetector detector = make();
  for (int i = 0; i < 300; ++i) {
    NamedDelta delta = process.tick();
    delta.exposure_s = i % 2 == 0 ? std::numeric_limits<double>::quiet_NaN() : -1e300;
    delta.frequency_hz = 0;
    EXPECT_FALSE(detector.observe(delta));
  }
  EXPECT_EQ(detector.baseline().cpu_s, 0);
}

TEST(CompositionBadInput, AMillionSamplesPerTickAndHugeNumbersStayFinite) {
  SimulatedProcess process(ten_functions(), 4);
  CompositionDetector detector = make();
  for (int i = 0; i < 600; ++i) {
    NamedDelta delta = process.tick();
    const int64_t factor = i < 300 ? 10'101 : std::numeric_limits<int64_t>::max() / 1000;
    for (auto& value : delta.values) value.value *= factor;
    ASSERT_FALSE(detector.observe(delta)) << i;
    EXPECT_TRUE(std::isfinite(detector.strongest_score()));
  }
  EXPECT_TRUE(std::isfinite(detector.baseline().total));
}

TEST(CompositionBadInput, AWeekAsleepIsNoEvidence) {
  SimulatedProcess process(ten_functions(), 5);
  CompositionDetector detector = make();
  ASSERT_FALSE(watch(detector, process, 200).finding);
  const double learned = detector.baseline().total;
  process.set_samples(0);
  for (int i = 0; i < 7 * 86400 / 10; ++i) {
    process.delta().time_s += 9;
    ASSERT_FALSE(detector.observe(process.tick()));
  }
  EXPECT_EQ(detector.baseline().total, learned);
  process.set_samples(99);
  EXPECT_FALSE(watch(detector, process, 300).finding);
}

TEST(CompositionBadInput, MissedTicksAndLossesAreNoFinding) {
  SimulatedProcess process(ten_functions(), 6);
  CompositionDetector detector = make();
  for (int i = 0; i < 400; ++i) {
    process.set_samples(i % 20 == 0 ? 495 : 99);
    NamedDelta delta = process.tick();
    if (i % 20 == 0) {
      delta.time_s += 4;
      process.delta().time_s += 4;
      delta.interval_s = 5;
      delta.lost[LossReason::kMissedTick] = 4;
    }
    EXPECT_FALSE(detector.observe(delta));
  }
}

TEST(CompositionBadInput, TicksWithManyLossesAreNeitherEvidenceNorBaseline) {
  SimulatedProcess process(ten_functions(), 7);
  CompositionDetector detector = make();
  ASSERT_FALSE(watch(detector, process, 100).finding);
  process.move_share(kBusy, kHot, 0.2);
  for (int i = 0; i < 100; ++i) {
    NamedDelta delta = process.tick();
    delta.lost[i % 2 == 0 ? LossReason::kMapFull : LossReason::kNamesLate] = 30;
    EXPECT_FALSE(detector.observe(delta));
  }
  EXPECT_LE(detector.baseline().total, 100 * 99);
  EXPECT_TRUE(watch(detector, process, 30).finding);  // the same without losses
}

TEST(CompositionBadInput, AnotherStackTableStartsOver) {
  SimulatedProcess first(ten_functions(), 8);
  SimulatedProcess second({{{"other", "program"}, 1.0}}, 9);
  second.delta().time_s = 100;
  CompositionDetector detector = make();
  ASSERT_FALSE(watch(detector, first, 100).finding);
  EXPECT_FALSE(detector.is_learning());
  EXPECT_FALSE(watch(detector, second, 20).finding);
  EXPECT_TRUE(detector.is_learning());
  EXPECT_EQ(detector.baseline().total, 20 * 99);
}

TEST(CompositionBadInput, MoreFunctionsThanPlacesStayBounded) {
  std::vector<Leaf> leaves;
  for (int i = 0; i < 3000; ++i) leaves.push_back({{"main", "f" + std::to_string(i)}, 1.0});
  leaves.push_back({{"main", "late"}, 0.0});
  SimulatedProcess process(leaves, 10);
  CompositionSettings settings;
  settings.max_streams = 64;
  CompositionDetector detector = make(settings);
  ASSERT_FALSE(watch(detector, process, 600).finding);
  EXPECT_LE(detector.streams(), 64U);
  process.set_share(3000, 750);  // a fifth of all, in a function that has no place yet
  const Watched watched = watch(detector, process, 200);
  ASSERT_TRUE(watched.finding);
  EXPECT_EQ(process.name(*watched.finding->frame), "late");
}

// ---- what it must find

TEST(Composition, TenToThirtyPercentIsFoundInFifteenSeconds) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    SimulatedProcess process(ten_functions(), seed);
    CompositionDetector detector = make();
    const int before = 60 + static_cast<int>(seed) * 40;
    ASSERT_FALSE(watch(detector, process, before).finding) << seed;
    process.move_share(kBusy, kHot, 0.2);
    const Watched watched = watch(detector, process, 60);
    ASSERT_TRUE(watched.finding) << seed;
    EXPECT_LE(watched.ticks, 15) << seed;
    const Finding& finding = *watched.finding;
    EXPECT_EQ(process.name(*finding.frame), "hot") << seed;
    EXPECT_NEAR(finding.onset_s, before, 3) << seed;
    EXPECT_NEAR(finding.before, 0.1, 0.02);
    EXPECT_NEAR(finding.after, 0.3, 0.06);
    EXPECT_NEAR(finding.change_cores, 0.2, 0.06);
    EXPECT_GE(finding.score, finding.threshold);
    EXPECT_EQ(finding.detector, "composition");
    EXPECT_EQ(finding.unit_of_measure, "share of samples");
    EXPECT_EQ(process.stacks()[*finding.stack].back(), *finding.frame);
    EXPECT_THAT(contributors(finding, process), Contains("busy"));
    EXPECT_THAT(contributors(finding, process), Not(Contains("loop")));
  }
}

TEST(Composition, IsFoundThroughDispersionToo) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    SimulatedProcess process(ten_functions(), seed);
    process.set_dispersion(5);
    process.set_wandering(0.1, 10);
    CompositionDetector detector = make();
    ASSERT_FALSE(watch(detector, process, 75).finding) << seed;
    process.move_share(kBusy, kHot, 0.2);
    const Watched watched = watch(detector, process, 60);
    ASSERT_TRUE(watched.finding) << seed;
    EXPECT_LE(watched.ticks, 45) << seed;
    EXPECT_EQ(process.name(*watched.finding->frame), "hot") << seed;
  }
}

TEST(Composition, GrowthIsNamedBeforeShrinkage) {
  SimulatedProcess process({{{"main", "a"}, 0.7}, {{"main", "b"}, 0.1}, {{"main", "c"}, 0.2}}, 1);
  CompositionDetector detector = make();
  ASSERT_FALSE(watch(detector, process, 120).finding);
  process.move_share(0, 1, 0.2);
  const Watched watched = watch(detector, process, 30);
  ASSERT_TRUE(watched.finding);
  EXPECT_EQ(process.name(*watched.finding->frame), "b");
  EXPECT_THAT(contributors(*watched.finding, process), testing::ElementsAre("a"));
}

TEST(Composition, DiffuseGrowthNamesTheOneThatShrank) {
  SimulatedProcess process(ten_functions(), 2);
  CompositionDetector detector = make();
  ASSERT_FALSE(watch(detector, process, 120).finding);
  for (size_t i = 2; i < 10; ++i) process.move_share(kBusy, i, 0.025);
  const Watched watched = watch(detector, process, 60);
  ASSERT_TRUE(watched.finding);
  EXPECT_EQ(process.name(*watched.finding->frame), "busy");
  EXPECT_LT(watched.finding->after, watched.finding->before);
  EXPECT_LT(watched.finding->change_cores, 0);
}

TEST(Composition, TheHotFunctionIsNamedAndNotItsCallersOrHelpers) {
  const std::vector<std::string> handler{"main", "serve", "handler", "hot"};
  std::vector<std::string> helper = handler;
  helper.push_back("memcpy");
  SimulatedProcess process({{handler, 0.08},
                            {helper, 0.02},
                            {{"main", "serve", "handler", "parse"}, 0.2},
                            {{"main", "idle_work"}, 0.6},
                            {{"main", "idle_work", "memcpy"}, 0.1}},
                           3);
  CompositionDetector detector = make();
  ASSERT_FALSE(watch(detector, process, 120).finding);
  process.move_share(3, 0, 0.16);
  process.move_share(3, 1, 0.04);
  const Watched watched = watch(detector, process, 30);
  ASSERT_TRUE(watched.finding);
  EXPECT_EQ(process.name(*watched.finding->frame), "hot");
  EXPECT_THAT(contributors(*watched.finding, process), testing::ElementsAre("idle_work"));
}

TEST(Composition, AHelperThatIsNearlyAllOfItIsNamed) {
  SimulatedProcess process({{{"main", "lookup", "compare"}, 0.1}, {{"main", "lookup"}, 0.02}, {{"main", "rest"}, 0.88}},
                           4);
  CompositionDetector detector = make();
  ASSERT_FALSE(watch(detector, process, 120).finding);
  process.move_share(2, 0, 0.2);
  process.move_share(2, 1, 0.01);
  const Watched watched = watch(detector, process, 30);
  ASSERT_TRUE(watched.finding);
  EXPECT_EQ(process.name(*watched.finding->frame), "compare");
}

TEST(Composition, ManySmallCalleesNameTheirCaller) {
  std::vector<Leaf> leaves{{{"main", "rest"}, 0.8}};
  for (int i = 0; i < 10; ++i) leaves.push_back({{"main", "serve", "part" + std::to_string(i)}, 0.02});
  SimulatedProcess process(leaves, 5);
  CompositionDetector detector = make();
  ASSERT_FALSE(watch(detector, process, 120).finding);
  for (size_t i = 1; i <= 10; ++i) process.move_share(0, i, 0.02);
  const Watched watched = watch(detector, process, 60);
  ASSERT_TRUE(watched.finding);
  EXPECT_EQ(process.name(*watched.finding->frame), "serve");
}

TEST(Composition, RecursionCountsOnce) {
  std::vector<Leaf> leaves;
  for (int depth = 1; depth <= 12; ++depth) {
    std::vector<std::string> stack{"main"};
    stack.insert(stack.end(), static_cast<size_t>(depth), "descend");
    leaves.push_back({stack, 0.02});
    stack.push_back("visit");
    leaves.push_back({stack, 0.01});
  }
  leaves.push_back({{"main", "rest"}, 0.64});
  SimulatedProcess process(leaves, 6);
  CompositionDetector detector = make();
  ASSERT_FALSE(watch(detector, process, 300).finding);
  const auto descend = detector.baseline().total;
  EXPECT_GT(descend, 0);
  for (size_t i = 0; i < 24; i += 2) process.move_share(24, i, 0.02);  // descend itself: 36 % -> 60 %
  const Watched watched = watch(detector, process, 60);
  ASSERT_TRUE(watched.finding);
  EXPECT_EQ(process.name(*watched.finding->frame), "descend");
  EXPECT_NEAR(watched.finding->before, 0.36, 0.02);
  EXPECT_LE(watched.finding->after, 0.75);
}

TEST(Composition, AFunctionThatWasNeverThereIsFound) {
  std::vector<Leaf> leaves = ten_functions();
  leaves.push_back({{"main", "loop", "fresh"}, 0.0});
  SimulatedProcess process(leaves, 7);
  CompositionDetector detector = make();
  ASSERT_FALSE(watch(detector, process, 120).finding);
  process.move_share(kBusy, 10, 0.1);
  const Watched watched = watch(detector, process, 60);
  ASSERT_TRUE(watched.finding);
  EXPECT_EQ(process.name(*watched.finding->frame), "fresh");
  EXPECT_EQ(watched.finding->before, 0);
}

TEST(Composition, SameWorkOnAnotherWayIsToldByItsCaller) {
  SimulatedProcess process({{{"main", "old_way", "work"}, 0.5}, {{"main", "new_way", "work"}, 0.1}, {{"main"}, 0.4}},
                           8);
  CompositionDetector detector = make();
  ASSERT_FALSE(watch(detector, process, 120).finding);
  process.move_share(0, 1, 0.3);
  const Watched watched = watch(detector, process, 60);
  ASSERT_TRUE(watched.finding);
  EXPECT_EQ(process.name(*watched.finding->frame), "new_way");
}

TEST(Composition, WhenOneFunctionStopsTheOthersAreNotBlamed) {
  // "a" stops and the process uses less CPU: b and c have larger shares and do nothing more than before.
  SimulatedProcess process({{{"main", "a"}, 0.7}, {{"main", "b"}, 0.1}, {{"main", "c"}, 0.2}}, 9);
  CompositionDetector detector = make();
  ASSERT_FALSE(watch(detector, process, 120).finding);
  process.set_share(0, 0);
  process.set_samples(30);
  const Watched watched = watch(detector, process, 60);
  ASSERT_TRUE(watched.finding);
  EXPECT_EQ(process.name(*watched.finding->frame), "a");
  EXPECT_LT(watched.finding->after, 0.05);
}

TEST(Composition, BlockedTimeWorksInNanoseconds) {
  SimulatedProcess process({{{"main", "read_disk"}, 0.5}, {{"main", "lock"}, 0.1}, {{"main", "poll"}, 0.4}}, 10);
  process.set_dispersion(3);
  CompositionDetector detector = make();
  std::optional<Finding> finding;
  for (int i = 0; i < 200 && !finding; ++i) {
    if (i == 120) process.move_share(2, 1, 0.3);
    NamedDelta delta = process.tick();
    delta.probe = ProbeKind::kBlocked;
    delta.exposure_s = 1;
    for (auto& value : delta.values) value.value *= 10'000'000;
    finding = detector.observe(delta);
    if (i < 120) {
      ASSERT_FALSE(finding) << i;
    }
  }
  ASSERT_TRUE(finding);
  EXPECT_EQ(process.name(*finding->frame), "lock");
  EXPECT_EQ(finding->unit_of_measure, "share of blocked time");
  EXPECT_EQ(finding->change_cores, 0);
}

// ---- what it must not find

TEST(Composition, DoubleLoadWithTheSameMixIsNoFinding) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    SimulatedProcess process(ten_functions(), seed);
    process.set_poisson(true);
    CompositionDetector detector = make();
    for (const double samples : {99.0, 198.0, 40.0, 400.0, 10.0, 99.0}) {
      process.set_samples(samples);
      EXPECT_FALSE(watch(detector, process, 150).finding) << seed << " " << samples;
    }
  }
}

TEST(Composition, FiveSecondTransientsAreNoFinding) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    SimulatedProcess process(ten_functions(), seed);
    CompositionDetector detector = make();
    ASSERT_FALSE(watch(detector, process, 90).finding);
    for (int i = 0; i < 10; ++i) {
      process.move_share(kBusy, kHot, 0.25);
      EXPECT_FALSE(watch(detector, process, 5).finding) << seed;
      process.move_share(kHot, kBusy, 0.25);
      EXPECT_FALSE(watch(detector, process, 55).finding) << seed;
    }
  }
}

TEST(Composition, SmallChangesAreNotWorthTelling) {
  SimulatedProcess process(ten_functions(), 11, 990);
  CompositionDetector detector = make();
  ASSERT_FALSE(watch(detector, process, 300).finding);
  process.move_share(kBusy, kHot, 0.008);
  EXPECT_FALSE(watch(detector, process, 3000).finding);
}

TEST(Composition, TooFewCoresAreNotWorthTelling) {
  SimulatedProcess process(ten_functions(), 12, 6);  // 0.06 cores: 20 points of them are 0.012
  CompositionDetector detector = make();
  ASSERT_FALSE(watch(detector, process, 600).finding);
  process.move_share(kBusy, kHot, 0.2);
  EXPECT_FALSE(watch(detector, process, 150).finding);
  process.set_samples(99);
  EXPECT_TRUE(watch(detector, process, 60).finding);
}

class QuietHours : public testing::TestWithParam<std::tuple<double, double>> {};

TEST_P(QuietHours, TenHoursWithoutAChangeAreQuiet) {
  const auto [dispersion, wandering] = GetParam();
  for (uint64_t seed = 0; seed < 3; ++seed) {
    SimulatedProcess process(ten_functions(), 100 + seed);
    process.set_dispersion(dispersion);
    process.set_poisson(true);
    if (wandering > 0) process.set_wandering(wandering, 10);
    CompositionDetector detector = make();
    const Watched watched = watch(detector, process, 36000);
    EXPECT_FALSE(watched.finding) << "seed " << seed << " after " << watched.ticks;
  }
}

INSTANTIATE_TEST_SUITE_P(Dispersions, QuietHours,
                         testing::Combine(testing::Values(1.0, 2.0, 5.0), testing::Values(0.0, 0.05, 0.2)));

TEST(Composition, ManyYoungBaselinesAreQuiet) {
  int findings = 0;
  int wild_findings = 0;
  for (uint64_t seed = 0; seed < 600; ++seed) {
    SimulatedProcess process(ten_functions(), 1000 + seed);
    process.set_dispersion(1 + static_cast<double>(seed % 5));
    process.set_wandering(0.1 * static_cast<double>(seed % 3), 10);
    CompositionDetector detector = make();
    if (watch(detector, process, 300).finding) ++(seed % 3 == 2 ? wild_findings : findings);
  }
  EXPECT_EQ(findings, 0);
  // Every share swings by a fifth for ten seconds at a time: 45 s cannot tell that well from a change.
  EXPECT_LE(wild_findings, 1);
}

// ---- the life of a finding

TEST(Composition, RepeatsAndThenEndsWhenTheShareReturns) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    SimulatedProcess process(ten_functions(), seed);
    CompositionDetector detector = make();
    ASSERT_FALSE(watch(detector, process, 120).finding);
    process.move_share(kBusy, kHot, 0.2);
    const Watched watched = watch(detector, process, 30);
    ASSERT_TRUE(watched.finding);
    for (int i = 0; i < 120; ++i) {
      const auto again = detector.observe(process.tick());
      ASSERT_TRUE(again) << seed << " " << i;
      EXPECT_EQ(again->frame, watched.finding->frame);
      EXPECT_EQ(again->onset_s, watched.finding->onset_s);
    }
    process.move_share(kHot, kBusy, 0.2);
    int ticks = 0;
    while (ticks < 60 && detector.observe(process.tick())) ++ticks;
    EXPECT_GE(ticks, 9) << seed;
    EXPECT_LE(ticks, 30) << seed;
    EXPECT_FALSE(watch(detector, process, 600).finding) << seed;
    process.move_share(kBusy, kHot, 0.2);
    EXPECT_TRUE(watch(detector, process, 30).finding) << "the next one is found as well";
  }
}

TEST(Composition, AFindingStandsThroughIdleTime) {
  SimulatedProcess process(ten_functions(), 3);
  CompositionDetector detector = make();
  ASSERT_FALSE(watch(detector, process, 120).finding);
  process.move_share(kBusy, kHot, 0.2);
  ASSERT_TRUE(watch(detector, process, 30).finding);
  process.set_samples(0);
  for (int i = 0; i < 60; ++i) EXPECT_TRUE(detector.observe(process.tick()));
}

TEST(Composition, AnHourOfChangeIsTheNewBaseline) {
  CompositionSettings settings;
  settings.adopt_after_s = 600;
  SimulatedProcess process(ten_functions(), 4);
  CompositionDetector detector = make(settings);
  ASSERT_FALSE(watch(detector, process, 120).finding);
  process.move_share(kBusy, kHot, 0.2);
  ASSERT_TRUE(watch(detector, process, 30).finding);
  int ticks = 0;
  while (ticks < 1000 && detector.observe(process.tick())) ++ticks;
  EXPECT_NEAR(ticks, 590, 15);
  EXPECT_FALSE(watch(detector, process, 1000).finding);
  process.move_share(kHot, kBusy, 0.2);  // now the old state is the change
  const Watched watched = watch(detector, process, 30);
  ASSERT_TRUE(watched.finding);
  EXPECT_EQ(process.name(*watched.finding->frame), "busy");
}

TEST(Composition, TruncatingTheInputChangesNoEarlierFinding) {
  const auto run = [](int ticks) {
    SimulatedProcess process(ten_functions(), 5);
    process.set_dispersion(2);
    CompositionDetector detector = make();
    std::vector<double> out;
    for (int i = 0; i < ticks; ++i) {
      if (i == 150 || i == 300) process.move_share(i == 150 ? kBusy : kHot, i == 150 ? kHot : kBusy, 0.2);
      const auto finding = detector.observe(process.tick());
      out.push_back(finding ? finding->score + finding->after + finding->onset_s : 0);
      out.push_back(detector.strongest_score());
    }
    return out;
  };
  const std::vector<double> whole = run(500);
  EXPECT_GT(*std::max_element(whole.begin(), whole.end()), 100);  // there is a finding in it
  for (const int ticks : {10, 46, 120, 155, 163, 200, 310, 499}) {
    const std::vector<double> part = run(ticks);
    EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin())) << ticks;
  }
}

TEST(Composition, ANewPolicyIsInForceAtOnce) {
  SimulatedProcess process(ten_functions(), 6);
  CompositionDetector detector = make();
  ASSERT_FALSE(watch(detector, process, 120).finding);
  DetectionPolicy strict;
  strict.min_change_share = 0.5;
  detector.set_policy(strict);
  process.move_share(kBusy, kHot, 0.2);
  EXPECT_FALSE(watch(detector, process, 25).finding);
  detector.set_policy({});
  EXPECT_TRUE(watch(detector, process, 30).finding);
}

}  // namespace
}  // namespace stackwatch
