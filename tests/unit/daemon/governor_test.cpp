// SPDX-License-Identifier: Apache-2.0
#include "daemon/governor.h"

#include <gmock/gmock.h>

namespace stackwatch {
namespace {

using ::testing::HasSubstr;

class GovernorTest : public testing::Test {
 protected:
  GovernorTest() { governor_.set_limits(limits_); }
  /// Seconds of a steady load; how often what is shed changed.
  int run(int seconds, double cpu_percent, uint64_t memory_bytes = 0) {
    int changes = 0;
    for (int i = 0; i < seconds; ++i) changes += governor_.observe(time_s_++, {cpu_percent, memory_bytes}) ? 1 : 0;
    return changes;
  }
  void begin() { run(static_cast<int>(Governor::kStartS), 0); }

  LimitsConfig limits_;  // 5 %, 256 MB
  Governor governor_;
  double time_s_ = 1000;
};

TEST_F(GovernorTest, TheCostOfTheStartIsNoReason) {
  EXPECT_EQ(run(static_cast<int>(Governor::kStartS), 80), 0);
  EXPECT_FALSE(governor_.shedding().sheds());
  EXPECT_EQ(governor_.shedding().text(), "");
}

TEST_F(GovernorTest, APeakIsNoReason) {
  begin();
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(run(15, 20), 0);
    EXPECT_EQ(run(5, 1), 0);
  }
}

TEST_F(GovernorTest, OverTheCpuLimitRatesGoFirstThenTheLeastImportant) {
  begin();
  std::vector<Shedding> steps;
  for (int i = 0; i < 400; ++i) {
    if (run(1, 9) > 0) steps.push_back(governor_.shedding());
  }
  ASSERT_EQ(steps.size(), static_cast<size_t>(Governor::kMaxCpuLevel));
  EXPECT_EQ(steps[0].rate_factor, 0.5);
  EXPECT_TRUE(steps[0].survey);
  EXPECT_EQ(steps[1].rate_factor, 0.25);
  EXPECT_TRUE(steps[1].survey);
  EXPECT_FALSE(steps[2].survey);
  EXPECT_TRUE(steps[2].suspects);
  EXPECT_FALSE(steps[3].suspects);
  EXPECT_EQ(steps[3].places, 1);
  EXPECT_EQ(steps[4].places, 0.5);
  EXPECT_EQ(steps.back().places, 1.0 / 16);
  EXPECT_THAT(governor_.shedding().text(), HasSubstr("CPU limit"));
  EXPECT_THAT(governor_.shedding().text(), HasSubstr("no survey, no suspects"));
}

TEST_F(GovernorTest, BetweenLowAndTheLimitNothingChanges) {
  begin();
  run(25, 9);
  ASSERT_EQ(governor_.shedding().rate_factor, 0.5);
  EXPECT_EQ(run(2000, 4), 0);
}

TEST_F(GovernorTest, ItRecoversStepByStep) {
  begin();
  run(100, 9);
  ASSERT_FALSE(governor_.shedding().survey);
  EXPECT_EQ(run(59, 1), 0);
  EXPECT_EQ(run(400, 1), 4);
  EXPECT_FALSE(governor_.shedding().sheds());
}

// A load that is fine with half of the rates and not with all of them.
TEST_F(GovernorTest, ALoadAtTheLimitDoesNotFlap) {
  begin();
  int changes = 0;
  for (int i = 0; i < 3600; ++i) changes += run(1, governor_.shedding().rate_factor < 1 ? 2.9 : 5.8);
  // Each try takes a minute, then two, four, eight, sixteen.
  EXPECT_LE(changes, 14);
  EXPECT_GE(changes, 5);
}

TEST_F(GovernorTest, OverTheMemoryLimitAttachmentsGoAtOnceAndRatesStay) {
  run(1, 0, 300'000'000);
  EXPECT_TRUE(governor_.over_memory());
  EXPECT_EQ(run(90, 0, 300'000'000), 4);
  EXPECT_EQ(governor_.shedding().rate_factor, 1);
  EXPECT_FALSE(governor_.shedding().suspects);
  EXPECT_EQ(governor_.shedding().places, 0.25);
  EXPECT_THAT(governor_.shedding().text(), HasSubstr("memory limit, now 300 MB of 268 MB"));
  run(1000, 0, 100'000'000);
  EXPECT_FALSE(governor_.shedding().sheds());
}

TEST_F(GovernorTest, AReloadedLimitCounts) {
  begin();
  limits_.cpu_percent = 50;
  governor_.set_limits(limits_);
  EXPECT_EQ(run(300, 20), 0);
}

}  // namespace
}  // namespace stackwatch
