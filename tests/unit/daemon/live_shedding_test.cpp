// SPDX-License-Identifier: Apache-2.0
// What a live source does without when it is told to, and when a process would bear too much.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/daemon/machine_fixture.h"

namespace stackwatch {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Kind = AttachReason::Kind;

class SheddingTest : public MachineTest {
 protected:
  static Shedding shedding(double rate, bool survey, bool suspects, double places) {
    Shedding shedding{rate, survey, suspects, places, "over a limit"};
    return shedding;
  }
  [[nodiscard]] double frequency(int32_t pid) { return attachments_->options(census_.key(pid))->frequency_hz; }
  void burn(int32_t pid, int ticks) {
    for (int i = 0; i < ticks; ++i) {
      census_[pid].on_cpu_ns += 3'000'000'000;
      tick();
    }
  }
};

TEST_F(SheddingTest, RatesGoDownAndComeBackAndCountsStay) {
  config_.watch = {rule("redis", false, 100)};
  census_.start(10, "redis");
  tick();
  work(census_.key(10), 5, 3);
  tick();
  source_->shed(shedding(0.25, true, true, 1));
  tick();
  EXPECT_EQ(frequency(10), 25);
  EXPECT_EQ(engine_.options(census_.key(10)).frequency_hz, 25);
  EXPECT_THAT(source_->note(census_.key(10)), HasSubstr("sampled at 25 % of its rate: over a limit"));
  EXPECT_EQ(attachments_->rows()[0].samples, 3U);
  source_->shed({});
  tick();
  EXPECT_EQ(frequency(10), 100);
  EXPECT_EQ(source_->note(census_.key(10)), "");
}

TEST_F(SheddingTest, ARateNeverFallsBelowOneSampleASecond) {
  config_.watch = {rule("redis", false, 2)};
  census_.start(10, "redis");
  tick();
  source_->shed(shedding(0.25, true, true, 1));
  tick();
  EXPECT_EQ(frequency(10), 1);
}

TEST_F(SheddingTest, TheSurveyGoesBeforeTheRestAndComesBack) {
  config_.watch = {rule("redis")};
  config_.survey.enabled = true;
  census_.start(10, "redis");
  census_.start(11, "other");
  burn(11, 10);
  ASSERT_TRUE(is_attached(11));
  source_->shed(shedding(1, false, true, 1));
  burn(11, 3);
  EXPECT_FALSE(is_attached(11));
  EXPECT_TRUE(is_attached(10));
  source_->shed({});
  burn(11, 3);
  EXPECT_TRUE(is_attached(11));
}

TEST_F(SheddingTest, SuspectsGoBeforeRules) {
  config_.watch = {rule("redis")};
  config_.ranking.max_suspects = 2;
  census_.start(10, "redis");
  census_.start(11, "busy").threads = 8;
  burn(11, 10);
  ASSERT_TRUE(is_attached(11));
  source_->shed(shedding(1, false, false, 1));
  burn(11, 3);
  EXPECT_FALSE(is_attached(11));
  EXPECT_TRUE(is_attached(10));
}

TEST_F(SheddingTest, OfRulesTheLastGoFirstUnlessAnAlertStands) {
  config_.watch = {rule("first"), rule("second"), rule("third"), rule("fourth")};
  config_.limits.attachments = 4;
  int32_t pid = 10;
  for (const char* name : {"first", "second", "third", "fourth"}) census_.start(pid++, name);
  tick();
  source_->set_keep([this](const ProcessKey& process) { return process == census_.key(13); });
  source_->shed(shedding(1, false, false, 0.5));
  run(3);
  EXPECT_TRUE(is_attached(10));
  EXPECT_FALSE(is_attached(11));
  EXPECT_FALSE(is_attached(12));
  EXPECT_TRUE(is_attached(13)) << "an alert stands on it";
  EXPECT_EQ(source_->focused(), 2U);
  EXPECT_THAT(source_->attach_problem(), HasSubstr("the 2 that may be"));
  source_->shed({});
  run(3);
  EXPECT_EQ(source_->focused(), 4U);
}

TEST_F(SheddingTest, WaitsOfWhoSwitchesTooOftenAreLeftOutAndTold) {
  FakeProbeEngine waits(clock_, ProbeKind::kBlocked);
  config_.watch = {rule("redis")};
  config_.watch[0].probes = {ProbeKind::kOnCpu, ProbeKind::kBlocked};
  attachments_.emplace(Attachments::Engines{&engine_, &waits}, namer_, functions_, clock_, AttachmentLimits{});
  source_.emplace(LiveSource::Parts{census_, *attachments_, Procfs("/nonexistent"), Entitlement(4)}, clock_, config_);
  census_.start(10, "redis");
  const auto switching = [&](int ticks, uint64_t switches) {
    for (int i = 0; i < ticks; ++i) {
      census_[10].on_cpu_ns += 900'000'000;
      census_[10].voluntary_switches += switches;
      tick();
    }
  };
  switching(4, 100);
  EXPECT_TRUE(waits.is_attached(census_.key(10)));
  switching(12, 100'000);
  EXPECT_FALSE(waits.is_attached(census_.key(10)));
  EXPECT_TRUE(engine_.is_attached(census_.key(10)));
  EXPECT_THAT(source_->note(census_.key(10)), HasSubstr("off_cpu is left out"));
  switching(80, 100);
  EXPECT_TRUE(waits.is_attached(census_.key(10)));
  EXPECT_EQ(source_->note(census_.key(10)), "");
  source_.reset();  // before the engine that they use
  attachments_.reset();
}

TEST_F(SheddingTest, ARateThatCostsTooMuchIsCappedAndTold) {
  config_.watch = {rule("redis", false, 9999)};
  census_.start(10, "redis");
  tick();
  EXPECT_NEAR(frequency(10), 3623, 1);
  EXPECT_THAT(source_->note(census_.key(10)), HasSubstr("sampled at 3623 Hz"));
  EXPECT_NEAR(source_->overhead_percent(census_.key(10)), 5, 0.01);
}

TEST_F(SheddingTest, WhoseAlertStandsFromAnEarlierRunIsAttachedOrAmongTheExits) {
  census_.start(10, "redis");
  make_source();
  const ProcessKey gone{77, 30'000'000};
  source_->watch_again({census_.key(10), gone});
  source_->set_keep([](const ProcessKey&) { return true; });
  EXPECT_THAT(tick().exits, ElementsAre(gone));
  EXPECT_TRUE(is_attached(10));
  EXPECT_THAT(reason(10).text, HasSubstr("earlier run"));
  EXPECT_THAT(run(5).exits, IsEmpty());
  EXPECT_TRUE(is_attached(10));
}

}  // namespace
}  // namespace stackwatch
