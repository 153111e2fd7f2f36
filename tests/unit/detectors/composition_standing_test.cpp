// SPDX-License-Identifier: Apache-2.0
// What composition tells while one of its findings stands already.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "detectors/composition.h"
#include "simulated_process.h"

namespace stackwatch {
namespace {

using Leaf = SimulatedProcess::Leaf;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

constexpr uint64_t kSeeds = 12;
constexpr size_t kHot = 0;
constexpr size_t kOther = 1;
constexpr size_t kBusy = 2;
constexpr size_t kRest = 3;

std::vector<Leaf> server() {
  std::vector<Leaf> leaves{{{"main", "loop", "hot"}, 0.10},
                           {{"main", "loop", "other"}, 0.10},
                           {{"main", "loop", "busy"}, 0.30},
                           {{"main", "loop", "rest"}, 0.30}};
  for (int i = 0; i < 4; ++i) leaves.push_back({{"main", "loop", "work" + std::to_string(i)}, 0.05});
  return leaves;
}

/// A detector, its process, and all that it told.
class Watch {
 public:
  explicit Watch(uint64_t seed, CompositionSettings settings = {}, double dispersion = 1)
      : process(server(), seed), detector({}, settings) {
    process.set_dispersion(dispersion);
  }

  /// The findings of the next tick, all of them.
  std::vector<Finding> tick() {
    std::vector<Finding> out;
    if (auto finding = detector.observe(process.tick())) out.push_back(std::move(*finding));
    for (Finding& other : detector.further()) out.push_back(std::move(other));
    std::set<std::string> now;
    for (const Finding& finding : out) now.insert(process.name(*finding.frame));
    for (const std::string& name : now) told_[name] += standing_.contains(name) ? 0 : 1;
    standing_ = now;
    return out;
  }
  void run(int ticks) {
    for (int i = 0; i < ticks; ++i) (void)tick();
  }
  /// Ticks until just these functions are told; `most` where that never was.
  int until(const std::set<std::string>& names, int most) {
    for (int i = 1; i <= most; ++i) {
      (void)tick();
      if (standing_ == names) return i;
    }
    return most;
  }
  Finding finding(const std::string& name) {
    for (Finding& finding : tick()) {
      if (process.name(*finding.frame) == name) return finding;
    }
    ADD_FAILURE() << name << " is not told";
    return {};
  }
  [[nodiscard]] const std::set<std::string>& standing() const { return standing_; }
  /// How often each function began to be told.
  [[nodiscard]] const std::map<std::string, int>& told() const { return told_; }

  SimulatedProcess process;
  CompositionDetector detector;

 private:
  std::set<std::string> standing_;
  std::map<std::string, int> told_;
};

int median(std::vector<int> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

TEST(CompositionStanding, ASecondChangeIsToldBesideTheFirst) {
  std::vector<int> alone;
  std::vector<int> beside;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Watch plain(seed);
    plain.run(600);
    plain.process.move_share(kRest, kOther, 0.1);
    alone.push_back(plain.until({"other"}, 120));

    Watch watch(seed);
    watch.run(300);
    watch.process.move_share(kBusy, kHot, 0.15);
    ASSERT_LT(watch.until({"hot"}, 60), 60) << seed;
    const Finding before = watch.finding("hot");
    watch.run(300);
    const double onset_s = watch.process.time_s();
    watch.process.move_share(kRest, kOther, 0.1);
    beside.push_back(watch.until({"hot", "other"}, 120));
    const Finding first = watch.finding("hot");
    EXPECT_EQ(first.onset_s, before.onset_s) << seed;
    EXPECT_EQ(first.growths, 0U) << seed;
    EXPECT_NEAR(first.before, 0.1, 0.02) << seed;
    EXPECT_NEAR(first.after, 0.25, 0.03) << seed;
    const Finding second = watch.finding("other");
    EXPECT_NEAR(second.onset_s, onset_s, 8) << seed;
    EXPECT_NEAR(second.before, 0.1, 0.03) << seed;
    EXPECT_NEAR(second.after, 0.2, 0.04) << seed;
    EXPECT_NEAR(second.change_cores, 0.1, 0.05) << seed;
    watch.run(300);
    EXPECT_THAT(watch.told(), UnorderedElementsAre(std::pair("hot", 1), std::pair("other", 1))) << seed;
  }
  EXPECT_LE(median(beside), median(alone) * 3 / 2);
  EXPECT_LT(*std::ranges::max_element(beside), 60);
}

TEST(CompositionStanding, EachGoesBackByItselfInEitherOrder) {
  for (uint64_t seed = 0; seed < 2 * kSeeds; ++seed) {
    Watch watch(seed);
    watch.run(300);
    watch.process.move_share(kBusy, kHot, 0.15);
    watch.run(200);
    watch.process.move_share(kRest, kOther, 0.15);
    ASSERT_LT(watch.until({"hot", "other"}, 120), 120) << seed;
    watch.run(200);
    const bool first_goes_first = seed % 2 == 0;
    if (first_goes_first) {
      watch.process.move_share(kHot, kBusy, 0.15);
      EXPECT_LE(watch.until({"other"}, 60), 30) << seed;
      watch.run(300);
      EXPECT_THAT(watch.standing(), ElementsAre("other")) << seed;
      watch.process.move_share(kOther, kRest, 0.15);
    } else {
      watch.process.move_share(kOther, kRest, 0.15);
      EXPECT_LE(watch.until({"hot"}, 60), 30) << seed;
      watch.run(300);
      EXPECT_THAT(watch.standing(), ElementsAre("hot")) << seed;
      watch.process.move_share(kHot, kBusy, 0.15);
    }
    EXPECT_LE(watch.until({}, 60), 30) << seed;
    watch.run(600);
    EXPECT_THAT(watch.told(), UnorderedElementsAre(std::pair("hot", 1), std::pair("other", 1))) << seed;
    watch.process.move_share(kBusy, kHot, 0.15);
    EXPECT_LE(watch.until({"hot"}, 60), 20) << seed << ": the baseline is what it was";
  }
}

TEST(CompositionStanding, BothAtOnceGoBackTogether) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Watch watch(seed);
    watch.run(300);
    watch.process.move_share(kBusy, kHot, 0.15);
    watch.run(200);
    watch.process.move_share(kRest, kOther, 0.15);
    watch.run(200);
    ASSERT_THAT(watch.standing(), UnorderedElementsAre("hot", "other")) << seed;
    watch.process.move_share(kHot, kBusy, 0.15);
    watch.process.move_share(kOther, kRest, 0.15);
    EXPECT_LE(watch.until({}, 120), 60) << seed;
    watch.run(600);
    EXPECT_THAT(watch.told(), UnorderedElementsAre(std::pair("hot", 1), std::pair("other", 1))) << seed;
  }
}

TEST(CompositionStanding, TheSameFunctionOnceMoreIsAGrowthOfItsFinding) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Watch watch(seed);
    watch.run(900);
    watch.process.move_share(kBusy, kHot, 0.05);
    ASSERT_LT(watch.until({"hot"}, 200), 200) << seed;
    const Finding before = watch.finding("hot");
    EXPECT_EQ(before.growths, 0U);
    watch.run(300);
    watch.process.move_share(kBusy, kHot, 0.2);
    watch.run(90);
    const Finding after = watch.finding("hot");
    EXPECT_EQ(after.growths, 1U) << seed;
    EXPECT_EQ(after.onset_s, before.onset_s) << seed;
    EXPECT_NEAR(after.before, 0.1, 0.01) << seed;
    EXPECT_NEAR(after.after, 0.35, 0.03) << seed;
    watch.run(300);
    watch.process.move_share(kHot, kBusy, 0.25);
    EXPECT_LE(watch.until({}, 60), 30) << seed;
    watch.run(300);
    EXPECT_THAT(watch.told(), ElementsAre(std::pair("hot", 1))) << seed;
  }
}

// What it grew by while another one stood is in the mix since when that one is gone: not to be added once more.
TEST(CompositionStanding, AGrowthBesideAnotherOneCountsOnce) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Watch watch(seed);
    watch.run(300);
    watch.process.move_share(kBusy, kHot, 0.10);
    ASSERT_LT(watch.until({"hot"}, 90), 90) << seed;
    watch.run(120);
    watch.process.move_share(kRest, kOther, 0.10);
    ASSERT_LT(watch.until({"hot", "other"}, 90), 90) << seed;
    watch.run(120);
    watch.process.set_share(kHot, 0.90);  // of 1.7 then
    watch.run(120);
    // As it was measured in the dozen ticks that it took to be found; twice it would be 0.86.
    EXPECT_NEAR(watch.finding("hot").after, 0.53, 0.07) << seed;
    watch.process.move_share(kOther, kRest, 0.10);
    ASSERT_LT(watch.until({"hot"}, 120), 120) << seed;
    for (int i = 0; i < 300; ++i) {
      (void)watch.tick();
      ASSERT_EQ(watch.standing(), std::set<std::string>{"hot"}) << seed << ", tick " << i;
    }
    EXPECT_NEAR(watch.finding("hot").after, 0.53, 0.05) << seed;
    EXPECT_EQ(watch.told().at("hot"), 1) << seed;
  }
}

TEST(CompositionStanding, APartOfTheWayBackIsNoChangeOfOthers) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Watch watch(seed);
    watch.run(300);
    watch.process.move_share(kBusy, kHot, 0.2);
    ASSERT_LT(watch.until({"hot"}, 60), 60) << seed;
    watch.run(300);
    watch.process.move_share(kHot, kBusy, 0.1);
    watch.run(300);
    EXPECT_THAT(watch.told(), ElementsAre(std::pair("hot", 1))) << seed;
    EXPECT_THAT(watch.standing(), ElementsAre("hot")) << seed;
    const Finding finding = watch.finding("hot");
    EXPECT_NEAR(finding.after, 0.2, 0.03) << seed;
    EXPECT_EQ(finding.growths, 0U) << seed;
  }
}

TEST(CompositionStanding, AShareThatAnotherOneTakesAwayHasNotGoneBack) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Watch watch(seed);
    watch.run(600);
    watch.process.move_share(kBusy, kHot, 0.08);
    ASSERT_LT(watch.until({"hot"}, 100), 100) << seed;
    watch.run(300);
    watch.process.set_samples(198);
    watch.process.set_share(kOther, 1.1);  // as much again as all: 18 % of hot become 9
    EXPECT_LT(watch.until({"hot", "other"}, 60), 60) << seed;
    watch.run(200);
    EXPECT_THAT(watch.told(), UnorderedElementsAre(std::pair("hot", 1), std::pair("other", 1))) << seed;
    const Finding first = watch.finding("hot");
    EXPECT_GT(first.after, first.before) << seed;
    watch.process.set_share(kHot, 0.10);
    watch.process.set_share(kBusy, 0.30);
    EXPECT_LT(watch.until({"other"}, 120), 120) << seed;
  }
}

class QuietWhileItStands : public testing::TestWithParam<double> {};

TEST_P(QuietWhileItStands, TenHoursAreQuiet) {
  CompositionSettings settings;
  settings.adopt_after_s = 30 * 86400.0;
  for (uint64_t seed = 0; seed < 5; ++seed) {
    Watch watch(200 + seed, settings, GetParam());
    watch.process.set_poisson(true);
    watch.run(900);
    watch.process.move_share(kBusy, kHot, 0.15);
    watch.run(36000);
    EXPECT_THAT(watch.told(), ElementsAre(std::pair("hot", 1))) << seed;
    EXPECT_EQ(watch.finding("hot").growths, 0U) << seed;
  }
}

INSTANTIATE_TEST_SUITE_P(Dispersions, QuietWhileItStands, testing::Values(1.0, 2.0, 5.0));

TEST(CompositionStanding, ManyYoungMixesAreQuiet) {
  int more = 0;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    Watch watch(2000 + seed, {}, 1 + static_cast<double>(seed % 5));
    watch.run(200 + static_cast<int>(seed));
    watch.process.move_share(kBusy, kHot, 0.1 + 0.1 * static_cast<double>(seed % 2));
    if (watch.until({"hot"}, 200) == 200) continue;
    watch.run(300);
    more += watch.told() == std::map<std::string, int>{{"hot", 1}} && watch.finding("hot").growths == 0 ? 0 : 1;
  }
  EXPECT_EQ(more, 0);
}

TEST(CompositionStanding, StandAtOnceIsBounded) {
  std::vector<Leaf> leaves{{{"main", "rest"}, 1.0}};
  for (int i = 0; i < 7; ++i) leaves.push_back({{"main", "f" + std::to_string(i)}, 0.05});
  SimulatedProcess process(leaves, 3);
  CompositionDetector detector({}, {});
  size_t most = 0;
  std::optional<Finding> finding;
  for (int i = 0; i < 3000; ++i) {
    if (i % 300 == 299 && i < 2100) process.move_share(0, static_cast<size_t>(1 + i / 300), 0.12);
    finding = detector.observe(process.tick());
    most = std::max(most, detector.further().size() + (finding ? 1 : 0));
  }
  EXPECT_EQ(most, CompositionDetector::kMaxStanding);
  EXPECT_TRUE(finding);
}

TEST(CompositionStanding, WhatBecomesNormalLeavesTheOtherOne) {
  CompositionSettings settings;
  settings.adopt_after_s = 900;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Watch watch(seed, settings);
    watch.run(300);
    watch.process.move_share(kBusy, kHot, 0.15);
    watch.run(600);
    watch.process.move_share(kRest, kOther, 0.15);
    watch.run(100);
    ASSERT_THAT(watch.standing(), UnorderedElementsAre("hot", "other")) << seed;
    EXPECT_NEAR(watch.until({"other"}, 400), 200, 20) << seed;
    EXPECT_NEAR(watch.until({}, 1000), 600, 20) << seed;
    watch.run(900);
    EXPECT_THAT(watch.told(), UnorderedElementsAre(std::pair("hot", 1), std::pair("other", 1))) << seed;
    watch.process.move_share(kHot, kBusy, 0.15);
    EXPECT_LE(watch.until({"busy"}, 60), 20) << seed << ": now the old state is the change";
  }
}

/// What was learned goes over to the next detector of the same process, as after a restart of the daemon.
void restart(Watch& watch) {
  const std::string saved = watch.detector.save();
  watch.detector = CompositionDetector({}, {});
  ASSERT_TRUE(watch.detector.restore(saved));
}

TEST(CompositionStanding, BothStandAgainAfterARestart) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Watch watch(seed);
    watch.run(600);
    watch.process.move_share(kBusy, kHot, 0.15);
    watch.run(300);
    watch.process.move_share(kRest, kOther, 0.1);
    watch.run(200);
    ASSERT_THAT(watch.standing(), UnorderedElementsAre("hot", "other")) << seed;
    restart(watch);
    EXPECT_FALSE(watch.detector.remembers_each()) << seed;
    watch.run(45);
    EXPECT_THAT(watch.standing(), IsEmpty()) << seed << ": the start-up";
    EXPECT_TRUE(watch.detector.remembers_each()) << seed;
    EXPECT_LE(watch.until({"hot", "other"}, 120), 60) << seed;
    const Finding first = watch.finding("hot");
    EXPECT_NEAR(first.before, 0.1, 0.02) << seed;
    EXPECT_NEAR(first.after, 0.25, 0.03) << seed;
    EXPECT_EQ(watch.process.stacks()[*first.stack].back(), *first.frame) << seed;
    EXPECT_NEAR(watch.finding("other").after, 0.2, 0.03) << seed;
    watch.run(300);
    watch.process.move_share(kHot, kBusy, 0.15);
    EXPECT_LE(watch.until({"other"}, 60), 40) << seed;
    watch.process.move_share(kOther, kRest, 0.1);
    EXPECT_LE(watch.until({}, 120), 60) << seed;
    watch.run(300);
    EXPECT_THAT(watch.told(), UnorderedElementsAre(std::pair("hot", 2), std::pair("other", 2))) << seed;
  }
}

TEST(CompositionStanding, WhatWasOverAfterARestartIsNotTold) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Watch watch(seed);
    watch.run(600);
    watch.process.move_share(kBusy, kHot, 0.15);
    watch.run(300);
    watch.process.move_share(kRest, kOther, 0.1);
    watch.run(200);
    ASSERT_THAT(watch.standing(), UnorderedElementsAre("hot", "other")) << seed;
    watch.process.move_share(kHot, kBusy, 0.15);
    restart(watch);
    EXPECT_LT(watch.until({"other"}, 200), 150) << seed;
    watch.run(300);
    EXPECT_THAT(watch.standing(), ElementsAre("other")) << seed;
    EXPECT_EQ(watch.told().at("hot"), 1) << seed;
  }
}

// The C library's clock_gettime and the kernel's, say.
TEST(CompositionStanding, TwoFunctionsOfOneNameKeepTheirSharesOverARestart) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    SimulatedProcess process({{{"main", "a", "clock"}, 0.2, "program"},
                              {{"main", "b", "clock"}, 0.05, "library"},
                              {{"main", "c", "rest"}, 0.75, "program"}},
                             seed);
    CompositionDetector before({}, {});
    for (int i = 0; i < 600; ++i) ASSERT_FALSE(before.observe(process.tick())) << seed;
    process.move_share(2, 1, 0.3);
    for (int i = 0; i < 200; ++i) static_cast<void>(before.observe(process.tick()));
    ASSERT_EQ(before.standing(), 1U) << seed;
    CompositionDetector after({}, {});
    ASSERT_TRUE(after.restore(before.save()));
    std::optional<Finding> finding;
    for (int i = 0; i < 200; ++i) {
      finding = after.observe(process.tick());
      EXPECT_TRUE(after.further().empty()) << seed << ", tick " << i;
    }
    ASSERT_TRUE(finding) << seed;
    EXPECT_NEAR(finding->before, 0.05, 0.02) << seed << process.name(*finding->frame);
    EXPECT_NEAR(finding->after, 0.35, 0.03) << seed;
  }
}

TEST(CompositionStanding, TruncatingTheInputChangesNoEarlierFinding) {
  const auto run = [](int ticks) {
    Watch watch(5, {}, 2);
    std::vector<double> out;
    for (int i = 0; i < ticks; ++i) {
      if (i == 200) watch.process.move_share(kBusy, kHot, 0.15);
      if (i == 400) watch.process.move_share(kRest, kOther, 0.15);
      if (i == 600) watch.process.move_share(kHot, kBusy, 0.15);
      double sum = watch.detector.strongest_score();
      for (const Finding& finding : watch.tick()) sum += finding.score + finding.after + finding.onset_s;
      out.push_back(sum);
    }
    return out;
  };
  const std::vector<double> whole = run(900);
  for (const int ticks : {150, 215, 300, 420, 470, 610, 640, 899}) {
    const std::vector<double> part = run(ticks);
    EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin())) << ticks;
  }
}

}  // namespace
}  // namespace stackwatch
