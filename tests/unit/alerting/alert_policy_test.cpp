// SPDX-License-Identifier: Apache-2.0
// The life of one alert: pending, firing, resolved, cooling down, back again; and the times in it.
#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "daemon/alerting/message.h"
#include "tests/unit/alerting/policy_fixture.h"

namespace stackwatch {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

TEST_F(PolicyTest, IgnoresFindingsThatAreNoNumbers) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_THAT(run(20, {composition({"main", "lookup"}, nan, 0.3), composition({"main", "encode"}, 0.1, infinity),
                       composition({"main", "compress"}, 0.1, 0.3, nan), rate(0.1, nan)}),
              IsEmpty());
  EXPECT_THAT(policy_->all(), IsEmpty());
}

TEST_F(PolicyTest, IgnoresFindingsOfAnotherProbeThanTheObservation) {
  Finding stray = composition({"main", "lookup"});
  stray.probe = ProbeKind::kBlocked;
  EXPECT_THAT(run(20, {stray}), IsEmpty());
  EXPECT_THAT(policy_->all(), IsEmpty());
}

TEST_F(PolicyTest, SurvivesIdsThatItsTablesDoNotHave) {
  Finding f = composition({"main", "lookup"});
  f.frame = FunctionId{123456};
  f.stack = StackId{123456};
  f.contributors = {{FunctionId{654321}, 0.1, 0.2}};
  const auto changed = run(10, {f});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].frame, "");
}

TEST_F(PolicyTest, OnsetsFarOutsideOfTimeDoNotOverflow) {
  const auto changed = run(10, {rate(0.1, 0.5, 1e300)});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_LE(changed[0].onset_ns, changed[0].opened_ns);
}

TEST_F(PolicyTest, FiresAfterThePersistenceAndNotBefore) {
  EXPECT_THAT(run(5, {composition({"main", "serve", "lookup"})}), IsEmpty());  // seen for 4 s
  EXPECT_EQ(policy_->pending(), 1U);
  const auto changed = tick_with({composition({"main", "serve", "lookup"})});
  ASSERT_THAT(changed, SizeIs(1));
  const Alert& alert = changed[0];
  EXPECT_EQ(alert.state, AlertState::kFiring);
  EXPECT_EQ(alert.id, "000000000001");
  EXPECT_EQ(alert.frame, "lookup");
  EXPECT_THAT(alert.stack, ElementsAre("main", "serve", "lookup"));
  EXPECT_EQ(alert.process.comm, "redis-server");
  EXPECT_EQ(alert.process.key, kRedis);
  EXPECT_EQ(alert.detector, "composition");
  EXPECT_DOUBLE_EQ(alert.before, 0.1);
  EXPECT_DOUBLE_EQ(alert.after, 0.3);
  EXPECT_EQ(alert.false_alarm_budget, "1 per 30d");
  EXPECT_EQ(policy_->pending(), 0U);
  EXPECT_EQ(policy_->firing(), 1U);
  EXPECT_TRUE(policy_->concerns(kRedis));
  EXPECT_THAT(run(60, {composition({"main", "serve", "lookup"})}), IsEmpty()) << "fires once";
}

TEST_F(PolicyTest, AFindingThatVanishesEarlyIsDroppedAndCounted) {
  EXPECT_THAT(run(4, {rate()}), IsEmpty());
  EXPECT_THAT(tick_with({}), IsEmpty());
  EXPECT_THAT(policy_->all(), IsEmpty());
  EXPECT_EQ(policy_->counters().vanished, 1U);
  EXPECT_FALSE(policy_->concerns(kRedis));
  EXPECT_THAT(run(5, {rate()}), IsEmpty()) << "begins anew";
}

TEST_F(PolicyTest, NoDeltaIsNotTheSameAsNoFinding) {
  run(3, {rate()});
  EXPECT_THAT(tick({}), IsEmpty());  // names came late: nothing was observed
  EXPECT_EQ(policy_->pending(), 1U);
  EXPECT_THAT(run(2, {rate()}), SizeIs(1));
}

TEST_F(PolicyTest, APendingAlertOfAProcessThatIsNoLongerObservedIsDropped) {
  run(3, {rate()});
  for (int i = 0; i < 15; ++i) EXPECT_THAT(tick({}), IsEmpty());
  EXPECT_EQ(policy_->pending(), 0U);
  EXPECT_EQ(policy_->counters().vanished, 1U);
}

TEST_F(PolicyTest, IsResolvedWhenNoFindingCameForAWhile) {
  run(6, {rate()});
  EXPECT_THAT(run(14, {}), IsEmpty());
  const auto changed = tick_with({});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].state, AlertState::kResolved);
  EXPECT_EQ(changed[0].resolution, kBackToBaseline);
  EXPECT_EQ(changed[0].id, "000000000001");
  ASSERT_TRUE(changed[0].resolved_ns);
  EXPECT_EQ(*changed[0].resolved_ns, clock_.realtime_ns());
  EXPECT_EQ(policy_->firing(), 0U);
  EXPECT_FALSE(policy_->concerns(kRedis));
  EXPECT_THAT(policy_->all(), SizeIs(1)) << "stays in the history";
}

TEST_F(PolicyTest, AnotherProgramInTheProcessEndsWhatWasSaidOfTheOldOne) {
  run(6, {rate()});
  ASSERT_EQ(policy_->firing(), 1U);
  clock_.advance_s(1);
  const double now_s = static_cast<double>(clock_.monotonic_ns()) * 1e-9;
  const auto changed = policy_->tick(now_s, {}, {}, std::vector{kRedis});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].state, AlertState::kResolved);
  EXPECT_EQ(changed[0].resolution, kProgramReplaced);
  EXPECT_THAT(message_of(changed[0]), ::testing::HasSubstr("executes another program now"));
}

TEST_F(PolicyTest, AGapShorterThanThatResolvesNothing) {
  run(6, {rate()});
  for (int i = 0; i < 5; ++i) {
    EXPECT_THAT(run(14, {}), IsEmpty());
    EXPECT_THAT(tick_with({rate()}), IsEmpty());
  }
  EXPECT_EQ(policy_->firing(), 1U);
}

TEST_F(PolicyTest, SaysWhenItIsResolvedForWantOfData) {
  run(6, {rate()});
  std::vector<Alert> changed;
  for (int i = 0; i < 15 && changed.empty(); ++i) changed = tick({});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].resolution, kNotWatched);
}

TEST_F(PolicyTest, AChangeThatTheDetectorsAdoptedIsNotCalledBack) {
  run(3600, {rate()});
  const auto changed = run(15, {});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].resolution, kCountsAsNormal);
}

TEST_F(PolicyTest, ExitResolvesFiringOnesAndDropsPendingOnes) {
  run(6, {rate()});
  tick({observation(kRedis, {rate()}), observation(kNginx, {rate()})});
  const auto changed = tick({observation(kRedis, {rate()})}, {kRedis, kNginx, ProcessKey{1, 1}});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].process.key, kRedis);
  EXPECT_EQ(changed[0].resolution, kProcessExited);
  EXPECT_EQ(policy_->pending(), 0U);
  EXPECT_EQ(policy_->counters().vanished, 1U);
}

TEST_F(PolicyTest, TheLastDeltaOfAnExitedProcessMayStillFire) {
  run(5, {rate()});
  const auto changed = tick({observation(kRedis, {rate()})}, {kRedis});
  ASSERT_THAT(changed, SizeIs(2));
  EXPECT_EQ(changed[0].state, AlertState::kFiring);
  EXPECT_EQ(changed[1].state, AlertState::kResolved);
}

TEST_F(PolicyTest, AReusedPidIsAnotherProcess) {
  run(6, {rate()});
  const ProcessKey reused{kRedis.pid, kRedis.start_time_ns + kStartTimeGranularityNs};
  tick({observation(reused, {})}, {});
  EXPECT_TRUE(policy_->concerns(kRedis));
  EXPECT_FALSE(policy_->concerns(reused));
}

TEST_F(PolicyTest, LossesAreThoseOfTheLastUpdate) {
  run(6, {rate()});
  lost_[LossReason::kMapFull] = 7;
  run(1, {rate()});
  EXPECT_EQ(policy_->all()[0].lost[LossReason::kMapFull], 7U);
}

TEST_F(PolicyTest, AfterAnExecTheNewNameIsTold) {
  run(3, {rate()});
  identities_[kRedis] = {kRedis, 7, "other", "/bin/other", "", ""};
  const auto changed = run(3, {rate()});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].process.comm, "other");
}

class CooldownTest : public PolicyTest {
 protected:
  void fire_and_resolve() {
    ASSERT_THAT(run(6, {composition({"main", "lookup"})}), SizeIs(1));
    ASSERT_THAT(run(15, {}), SizeIs(1));
  }
};

TEST_F(CooldownTest, ACauseThatComesBackAndGoesIsNotTold) {
  fire_and_resolve();
  EXPECT_THAT(run(100, {composition({"main", "lookup"})}), IsEmpty());
  EXPECT_EQ(policy_->pending(), 0U);
  ASSERT_THAT(policy_->all(), SizeIs(1));
  EXPECT_EQ(policy_->all()[0].state, AlertState::kResolved) << "shown as what people were told";
  EXPECT_TRUE(policy_->concerns(kRedis));
  EXPECT_THAT(run(20, {}), IsEmpty());
  EXPECT_EQ(policy_->counters().cooled_down, 1U);
  EXPECT_EQ(policy_->counters().vanished, 0U);
}

TEST_F(CooldownTest, ACauseThatComesBackAndStaysFiresUnderItsOldId) {
  fire_and_resolve();
  const uint64_t opened_ns = policy_->all()[0].opened_ns;
  run(100, {});
  const double again_s = now_s();
  const auto changed = run(201, {composition({"main", "lookup"}, 0.1, 0.3, again_s)});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].state, AlertState::kFiring);
  EXPECT_EQ(changed[0].id, "000000000001");
  EXPECT_EQ(changed[0].opened_ns, opened_ns);
  EXPECT_FALSE(changed[0].resolved_ns);
  EXPECT_GT(changed[0].onset_ns, opened_ns);
  EXPECT_THAT(policy_->all(), SizeIs(1)) << "one alert, not two with one id";
  EXPECT_THAT(run(20, {}), SizeIs(1));
  EXPECT_THAT(policy_->all(), SizeIs(1));
}

TEST_F(CooldownTest, AMuchLargerChangeDoesNotWait) {
  fire_and_resolve();
  EXPECT_THAT(run(10, {composition({"main", "lookup"}, 0.1, 0.49)}), IsEmpty()) << "not twice as large";
  run(1, {});
  const auto changed = run(6, {composition({"main", "lookup"}, 0.1, 0.51)});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].id, "000000000001");
}

TEST_F(CooldownTest, AfterTheCooldownItIsANewAlert) {
  fire_and_resolve();
  run(300, {});
  const auto changed = run(6, {composition({"main", "lookup"})});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].id, "000000000002");
}

TEST_F(CooldownTest, AnotherCauseDoesNotWait) {
  fire_and_resolve();
  EXPECT_THAT(run(6, {composition({"main", "encode"})}), SizeIs(1));
  EXPECT_THAT(run(6, {composition({"main", "encode"}), composition({"main", "lookup"}, 0.3, 0.1, now_s() - 100)}),
              SizeIs(1))
      << "the other direction is another cause";
}

TEST_F(CooldownTest, ARestartedServiceIsTheSameCause) {
  fire_and_resolve();
  const ProcessKey restarted{5000, 500'000'000};
  std::vector<Alert> changed;
  for (int i = 0; i < 10; ++i) changed = tick({observation(restarted, {composition({"main", "lookup"})})});
  EXPECT_THAT(changed, IsEmpty());
  for (int i = 0; i < 300 && changed.empty(); ++i)
    changed = tick({observation(restarted, {composition({"main", "lookup"})})});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].id, "000000000001");
  EXPECT_EQ(changed[0].process.key, restarted);
}

TEST_F(CooldownTest, ProcessesWithoutExeAreNotOneService) {
  identities_[kRedis] = {kRedis, 1, "kworker", "", "", ""};
  identities_[kNginx] = {kNginx, 2, "kworker", "", "", ""};
  fire_and_resolve();
  std::vector<Alert> changed;
  for (int i = 0; i < 6; ++i) changed = tick({observation(kNginx, {composition({"main", "lookup"})})});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].id, "000000000002");
}

// Two processes of the service change again, with onsets too far apart to be one alert.
TEST_F(CooldownTest, OneIdComesBackInOneProcessAlone) {
  fire_and_resolve();
  const ProcessKey worker{5000, 500'000'000};
  std::vector<Alert> changed;
  for (int i = 0; i < 320; ++i) {
    for (Alert& a : tick({observation(kRedis, {composition({"main", "lookup"})}),
                          observation(worker, {composition({"main", "lookup"}, 0.1, 0.3, onset_s_ + 300)})}))
      changed.push_back(std::move(a));
  }
  ASSERT_THAT(changed, SizeIs(2));
  EXPECT_NE(changed[0].id, changed[1].id);
}

TEST_F(PolicyTest, TimesComeFromTheFindingsTimeLine) {
  const uint64_t start_ns = clock_.realtime_ns();
  const auto changed = run(6, {composition({"main", "lookup"})});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_NEAR(static_cast<double>(start_ns) - static_cast<double>(changed[0].onset_ns), 10e9, 1e3);
  EXPECT_NEAR(static_cast<double>(changed[0].opened_ns) - static_cast<double>(start_ns), 1e9, 1e3);
  EXPECT_NEAR(static_cast<double>(changed[0].updated_ns) - static_cast<double>(start_ns), 6e9, 1e3);
}

TEST_F(PolicyTest, AClockThatJumpsBackReordersNothing) {
  run(6, {composition({"main", "lookup"})});
  const Alert before = policy_->all()[0];
  clock_.set_realtime_ns(clock_.realtime_ns() - 3600'000'000'000);
  run(6, {composition({"main", "lookup"}), composition({"main", "encode"})});
  const auto resolved = run(15, {});
  ASSERT_THAT(resolved, SizeIs(2));
  const auto all = policy_->all();
  ASSERT_THAT(all, SizeIs(2));
  EXPECT_EQ(all[0].frame, "encode") << "newest first, although its clock says earlier";
  for (const Alert& alert : all) {
    EXPECT_LE(alert.onset_ns, alert.opened_ns);
    EXPECT_LE(alert.opened_ns, alert.updated_ns);
    EXPECT_LE(alert.updated_ns, *alert.resolved_ns);
  }
  EXPECT_EQ(all[1].onset_ns, before.onset_ns);
}

TEST_F(PolicyTest, AClockThatJumpsForwardDoesNotMoveTheOnset) {
  run(3, {composition({"main", "lookup"})});
  const uint64_t onset_ns = policy_->all()[0].onset_ns;
  clock_.set_realtime_ns(clock_.realtime_ns() + 3600'000'000'000);
  const auto changed = run(3, {composition({"main", "lookup"})});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].onset_ns, onset_ns);
  EXPECT_EQ(changed[0].updated_ns, clock_.realtime_ns());
}

TEST_F(PolicyTest, TheSameInputGivesTheSameAlerts) {
  const auto play = [&] {
    FakeClock clock;
    AlertPolicy policy({}, clock, sequential_alert_ids(),
                       {[](const ProcessKey& p) { return ProcessIdentity{p, p.pid, "x", "/x", "", ""}; },
                        [](const ProcessKey&, ProbeKind) { return Losses{}; }});
    std::string told;
    for (int i = 0; i < 400; ++i) {
      clock.advance_s(1);
      const double t = static_cast<double>(clock.monotonic_ns()) * 1e-9;
      std::vector<Observation> o;
      for (const ProcessKey& p : {kRedis, kNginx}) o.push_back({p, ProbeKind::kOnCpu, t, {}, &stacks_, &functions_});
      if (i % 50 < 20) o[0].findings = {composition({"main", "lookup"}, 0.1, 0.3, t - i % 50), rate(1, 2, t - i % 50)};
      if (i % 70 < 30) o[1].findings = {composition({"main", "encode"}, 0.1, 0.2, t - i % 70)};
      for (const Alert& a : policy.tick(t, o, {})) told += a.id + message_of(a) + "\n";
    }
    return told;
  };
  const std::string told = play();
  EXPECT_EQ(told, play());
  EXPECT_GT(std::ranges::count(told, '\n'), 4);
}

TEST(AlertIds, RandomOnesAreShortHexAndDiffer) {
  const AlertIds ids = random_alert_ids();
  const std::string first = ids();
  EXPECT_THAT(first, testing::MatchesRegex("[0-9a-f]{12}"));
  EXPECT_NE(first, ids());
}

}  // namespace
}  // namespace stackwatch
