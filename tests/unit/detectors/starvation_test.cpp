// SPDX-License-Identifier: Apache-2.0
#include "detectors/starvation.h"

#include <gtest/gtest.h>

#include <limits>

namespace stackwatch {
namespace {

class StarvationTest : public testing::Test {
 protected:
  /// Seconds in which it runs, and waits, so much of each.
  void live(int seconds, double ran, double waited) {
    for (int i = 0; i < seconds; ++i) {
      CensusDelta census;
      census.time_s = now_s_ += 1;
      census.interval_s = 1;
      census.on_cpu_s = ran;
      census.run_queue_s = waited;
      starvation_.observe(census);
    }
  }
  [[nodiscard]] bool explains(double age_s) const { return starvation_.explains(now_s_ - age_s, now_s_); }

  Starvation starvation_;
  double now_s_ = 1000;
};

TEST_F(StarvationTest, GarbageIsNoWaiting) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  live(120, 0.5, 0.1);
  live(60, kNan, 9);
  live(60, 0.5, kNan);
  live(60, -1, 9);
  live(60, 0.5, std::numeric_limits<double>::infinity());
  live(1, 0.5, 0.1);
  EXPECT_FALSE(explains(0));
  EXPECT_FALSE(explains(60));
}

TEST_F(StarvationTest, NothingIsExplainedWhereNothingIsUsualYet) {
  live(30, 0.5, 0.1);
  live(20, 0.1, 5);
  EXPECT_FALSE(explains(0));
}

TEST_F(StarvationTest, WhatBeganWithIt) {
  live(300, 0.5, 0.1);
  EXPECT_FALSE(explains(0));
  live(40, 0.1, 0.9);
  EXPECT_TRUE(explains(40)) << "a quota";
  EXPECT_TRUE(explains(5));
  EXPECT_FALSE(explains(120)) << "this was before";
}

// As when a new release makes all its threads want one lock of the kernel.
TEST_F(StarvationTest, WhoRunsMoreThanBeforeDoesNotStarve) {
  live(300, 2, 0.1);
  live(30, 8, 24);
  EXPECT_FALSE(explains(10));
}

TEST_F(StarvationTest, TwiceTheUsualIsNotMuch) {
  live(300, 0.5, 0.8);
  live(100, 0.5, 1.9);
  EXPECT_FALSE(explains(50));
}

TEST_F(StarvationTest, ManyTimesNothingIsNotMuchEither) {
  live(300, 0.5, 0.001);
  live(100, 0.5, 0.3);
  EXPECT_FALSE(explains(50));
}

TEST_F(StarvationTest, WhoIsIdleDoesNotStarve) {
  live(300, 0.0001, 0.0001);
  live(100, 0.0001, 0.0009);
  EXPECT_FALSE(explains(50));
}

TEST_F(StarvationTest, WhatEndsWithIt) {
  live(300, 0.5, 0.1);
  live(100, 0.1, 0.9);
  live(40, 0.5, 0.1);
  EXPECT_TRUE(explains(100)) << "a finding ends later";
  live(80, 0.5, 0.1);
  EXPECT_FALSE(explains(200)) << "this one did not";
  EXPECT_FALSE(explains(10));
}

TEST_F(StarvationTest, WhoStarvedAlwaysAndNoLonger) {
  live(300, 0.1, 0.9);
  live(40, 0.5, 0.1);
  EXPECT_TRUE(explains(30));
}

TEST_F(StarvationTest, AfterAnHourItIsUsual) {
  live(300, 0.5, 0.1);
  live(3500, 0.1, 0.9);
  EXPECT_TRUE(explains(10));
  live(400, 0.1, 0.9);
  EXPECT_FALSE(explains(10));
  live(100, 0.5, 0.1);
  EXPECT_TRUE(explains(60)) << "and its end is a change again";
}

// ---- successors

TEST_F(StarvationTest, DamageIsRefusedAndChangesNothing) {
  EXPECT_TRUE(starvation_.save().empty()) << "nothing is usual yet";
  live(300, 0.5, 0.1);
  const std::string saved = starvation_.save();
  live(40, 0.1, 0.9);
  ASSERT_TRUE(explains(30));
  for (size_t length = 0; length < saved.size(); ++length) {
    EXPECT_FALSE(starvation_.restore(saved.substr(0, length), now_s_)) << length;
  }
  EXPECT_FALSE(starvation_.restore(saved + "x", now_s_));
  std::string damaged = saved;
  damaged[0] = 'x';
  EXPECT_FALSE(starvation_.restore(damaged, now_s_));
  EXPECT_TRUE(explains(30));
}

TEST_F(StarvationTest, ASuccessorKnowsWhatIsUsual) {
  live(300, 0.5, 0.1);
  const std::string saved = starvation_.save();
  starvation_ = {};
  now_s_ = 5;
  ASSERT_TRUE(starvation_.restore(saved, now_s_));
  live(20, 0.5, 0.1);
  EXPECT_FALSE(explains(0));
  live(20, 0.1, 0.9);
  EXPECT_TRUE(explains(5)) << "without a minute to learn it";
}

TEST_F(StarvationTest, AnEpisodeGoesOnWithTheSuccessorAndAsLong) {
  live(300, 0.5, 0.1);
  live(1800, 0.1, 0.9);
  const std::string saved = starvation_.save();
  starvation_ = {};
  now_s_ = 5;
  ASSERT_TRUE(starvation_.restore(saved, now_s_));
  live(1, 0.1, 0.9);
  EXPECT_TRUE(explains(0));
  live(1700, 0.1, 0.9);
  EXPECT_TRUE(explains(1700));
  live(200, 0.1, 0.9);
  EXPECT_FALSE(explains(10)) << "an hour in all";
}

}  // namespace
}  // namespace stackwatch
