// SPDX-License-Identifier: Apache-2.0
#include "daemon/survey.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/daemon/machine_fixture.h"

namespace stackwatch {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;
using Kind = AttachReason::Kind;

Ranked row(int32_t pid, double cores, double age_s = 60) {
  Ranked ranked;
  ranked.key = {pid, 10'000'000};
  ranked.past[static_cast<size_t>(Metric::kOnCpu)] = cores;
  ranked.age_s = age_s;
  return ranked;
}
ProcessKey key(int32_t pid) { return {pid, 10'000'000}; }

TEST(Survey, NobodyWhereItIsOff) {
  Survey survey;
  survey.configure({.enabled = false, .frequency_hz = 19}, 10);
  EXPECT_THAT(survey.choose({row(1, 1)}), IsEmpty());
  EXPECT_EQ(survey.size(), 0U);
}

TEST(Survey, NeitherTheIdleNorTheYoung) {
  Survey survey;
  survey.configure({}, 10);
  EXPECT_THAT(survey.choose({row(1, 0), row(2, 1, 1), row(3, 0.1)}), ElementsAre(key(3)));
}

TEST(Survey, TheBusiestWhereThereIsNoRoomForAll) {
  Survey survey;
  survey.configure({}, 2);
  EXPECT_THAT(survey.choose({row(1, 0.1), row(2, 0.3), row(3, 0.2)}), UnorderedElementsAre(key(2), key(3)));
  // A little more is no reason to forget somebody's past; much more is.
  EXPECT_THAT(survey.choose({row(1, 0.25), row(2, 0.3), row(3, 0.2)}), IsEmpty());
  EXPECT_THAT(survey.choose({row(1, 0.4), row(2, 0.3), row(3, 0.2)}), ElementsAre(key(1)));
  EXPECT_FALSE(survey.contains(key(3)));
}

TEST(Survey, WhoWasBusyOnceStaysWhileThereIsRoom) {
  Survey survey;
  survey.configure({}, 2);
  static_cast<void>(survey.choose({row(1, 0.1)}));
  static_cast<void>(survey.choose({row(1, 0)}));
  EXPECT_TRUE(survey.contains(key(1)));
  static_cast<void>(survey.choose({}));
  EXPECT_FALSE(survey.contains(key(1))) << "it has ended";
}

TEST(Survey, FewAtATime) {
  Survey survey;
  survey.configure({}, 1000);
  std::vector<Ranked> all;
  for (int32_t pid = 1; pid <= 100; ++pid) all.push_back(row(pid, 0.1));
  size_t surveyed = 0;
  for (int tick = 0; tick < 7; ++tick) {
    const size_t fresh = survey.choose(all).size();
    EXPECT_LE(fresh, Survey::kMaxNewPerTick);
    surveyed += fresh;
  }
  EXPECT_EQ(surveyed, 100U);
  EXPECT_EQ(survey.size(), 100U);
}

class SurveyedMachineTest : public MachineTest {
 protected:
  SurveyedMachineTest() { config_.survey = {.enabled = true, .frequency_hz = 19}; }
  void burn(int32_t pid, int seconds, double cores) {
    for (int i = 0; i < seconds; ++i) {
      census_[pid].on_cpu_ns += static_cast<uint64_t>(cores * 1e9);
      tick();
    }
  }
};

TEST_F(SurveyedMachineTest, WhoUsesTheCpuIsAttachedAtALowRate) {
  census_.start(10, "busy");
  census_.start(11, "idle");
  burn(10, 8, 0.1);
  ASSERT_TRUE(is_attached(10));
  EXPECT_FALSE(is_attached(11));
  EXPECT_EQ(reason(10).kind, Kind::kSurvey);
  EXPECT_EQ(engine_.options(census_.key(10)).frequency_hz, 19);
}

TEST_F(SurveyedMachineTest, ASuspectIsWatchedMoreCloselyAndKeepsItsPast) {
  config_.ranking.max_suspects = 2;
  census_.start(10, "busy").threads = 8;
  burn(10, 5, 0.01);
  ASSERT_EQ(reason(10).kind, Kind::kSurvey);
  for (int i = 0; i < 10 && reason(10).kind == Kind::kSurvey; ++i) {
    burn(10, 1, 3);
    EXPECT_TRUE(is_attached(10));
  }
  EXPECT_EQ(reason(10).kind, Kind::kSuspect);
  EXPECT_EQ(engine_.options(census_.key(10)).frequency_hz, 99);
  const auto batch = run(200);
  EXPECT_EQ(reason(10).kind, Kind::kSurvey) << "and back";
  EXPECT_EQ(engine_.options(census_.key(10)).frequency_hz, 19);
  EXPECT_THAT(batch.detached, IsEmpty());
}

TEST_F(SurveyedMachineTest, TheSurveyTakesNoPlaceFromRules) {
  config_.limits.attachments = 2;
  for (int32_t pid = 10; pid < 14; ++pid) census_.start(pid, "busy");
  for (int i = 0; i < 8; ++i) {
    for (int32_t pid = 10; pid < 14; ++pid) census_[pid].on_cpu_ns += 100'000'000;
    tick();
  }
  EXPECT_EQ(attachments_->size(), 1U);
  config_.watch = {rule("redis")};
  source_->configure(config_);
  census_.start(20, "redis");
  census_.start(21, "redis");
  tick();
  EXPECT_TRUE(is_attached(20));
  EXPECT_TRUE(is_attached(21));
  EXPECT_EQ(source_->attach_problem(), "");
}

TEST_F(SurveyedMachineTest, SwitchedOffItLetsGo) {
  census_.start(10, "busy");
  burn(10, 8, 0.1);
  config_.survey.enabled = false;
  source_->configure(config_);
  run(3);
  EXPECT_FALSE(is_attached(10));
}

class AddedRuleTest : public MachineTest {};

TEST_F(AddedRuleTest, IsInForceAtOnceAndGoesWhenItIsRemoved) {
  census_.start(10, "redis");
  tick();
  WatchRule added = rule("redis");
  ASSERT_TRUE(source_->add_rule(added));
  EXPECT_TRUE(is_attached(10)) << "without a tick";
  ASSERT_EQ(source_->watches().size(), 1U);
  EXPECT_FALSE(source_->watches()[0].configured);
  EXPECT_EQ(source_->watches()[0].processes, 1U);
  EXPECT_FALSE(source_->add_rule(added)) << "twice the same id";
  source_->configure(config_);
  run(2);
  EXPECT_TRUE(is_attached(10)) << "a reload of the files does not know of it";
  ASSERT_TRUE(source_->remove_rule(added.id));
  run(2);
  EXPECT_FALSE(is_attached(10));
}

TEST_F(AddedRuleTest, ForAPidThatIsNotThereIsRefused) {
  tick();
  WatchRule added = rule("x");
  added.name = std::nullopt;
  added.pid = 77;
  const auto refused = source_->add_rule(added);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, ErrorKind::kUsage);
  EXPECT_THAT(source_->watches(), IsEmpty());
}

TEST_F(AddedRuleTest, ThatTheKernelRefusesIsNotTaken) {
  census_.start(10, "redis");
  tick();
  engine_.refuse_attach({ErrorKind::kFailed, "attach", "the map is full", ""});
  WatchRule added = rule("redis");
  added.pid = 10;
  const auto refused = source_->add_rule(added);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message().find("the map is full"), std::string::npos) << refused.error().message();
}

TEST_F(AddedRuleTest, ThoseOfTheConfigurationCannotBeRemoved) {
  config_.watch = {rule("redis")};
  tick();
  const auto refused = source_->remove_rule("rule-redis");
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().why.find("configuration"), std::string::npos);
  EXPECT_FALSE(source_->remove_rule("nobody"));
}

TEST_F(AddedRuleTest, AProcessThatARuleNamesIsAttachedBetweenTicks) {
  config_.watch = {rule("redis*")};
  tick();
  EXPECT_TRUE(source_->may_want("redis-server"));
  EXPECT_FALSE(source_->may_want("bash"));
  census_.start(10, "redis-server");
  ASSERT_TRUE(source_->attach_new());
  EXPECT_TRUE(is_attached(10));
}

}  // namespace
}  // namespace stackwatch
