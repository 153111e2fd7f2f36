// SPDX-License-Identifier: Apache-2.0
// Alerts that outlive the daemon.
#include <gmock/gmock.h>

#include "daemon/alerting/message.h"
#include "tests/unit/alerting/policy_fixture.h"
#include "tests/unit/alerting/sample_alert.h"

namespace stackwatch {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

class RestoreTest : public PolicyTest {
 protected:
  /// An alert that began to fire some seconds ago: `lookup` takes more.
  Alert stood(const std::string& id, double seconds_ago = 60) {
    Alert alert = sample_alert();
    alert.id = id;
    alert.process.key = kRedis;
    alert.frame = "lookup";
    alert.before = 0.1;
    alert.after = 0.3;
    alert.stack = {"main", "serve", "lookup"};
    alert.onset_ns = alert.opened_ns = alert.updated_ns =
        clock_.realtime_ns() - static_cast<uint64_t>(seconds_ago * 1e9);
    return alert;
  }
  Alert over(const std::string& id, double seconds_ago) {
    Alert alert = stood(id, seconds_ago);
    alert.state = AlertState::kResolved;
    alert.resolved_ns = alert.updated_ns;
    return alert;
  }
  void restore(const std::vector<Alert>& alerts, bool lives = true) {
    policy_->restore(
        alerts, [lives](const Alert&) { return lives; }, now_s(),
        static_cast<int64_t>(clock_.realtime_ns() - clock_.monotonic_ns()));
  }
};

TEST_F(RestoreTest, PendingOnesAndDoublesAreLeftOut) {
  Alert pending = stood("a");
  pending.state = AlertState::kPending;
  restore({pending, stood("b"), stood("b")});
  EXPECT_THAT(policy_->all(), SizeIs(1));
}

TEST_F(RestoreTest, AFiringOneIsNotToldAgainAndKeepsItsProcessWatched) {
  restore({stood("a")});
  EXPECT_TRUE(policy_->concerns(kRedis));
  EXPECT_EQ(policy_->firing(), 1U);
  EXPECT_THAT(run(30, {}), IsEmpty());
  EXPECT_EQ(policy_->firing(), 1U) << "detectors that have forgotten the past say nothing";
}

TEST_F(RestoreTest, AFindingAboutTheSameFunctionGoesOnWithIt) {
  restore({stood("a")});
  EXPECT_THAT(run(30, {composition({"main", "serve", "lookup"})}), IsEmpty());
  EXPECT_THAT(policy_->all(), SizeIs(1));
  EXPECT_GT(policy_->all()[0].updated_ns, stood("a").updated_ns);
  // From now on it is like any other.
  const auto changed = run(20, {});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].id, "a");
  EXPECT_EQ(changed[0].resolution, kBackToBaseline);
}

TEST_F(RestoreTest, AFindingOfTheOppositeEndsIt) {
  restore({stood("a")});
  const auto changed = run(1, {composition({"main", "serve", "lookup"}, 0.043, 0.011)});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].id, "a");
  EXPECT_EQ(changed[0].resolution, kBackToBaseline);
}

TEST_F(RestoreTest, AFindingAboutAnotherFunctionIsAnotherAlert) {
  restore({stood("a")});
  const auto changed = run(10, {composition({"main", "serve", "encode"})});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].frame, "encode");
  EXPECT_EQ(policy_->firing(), 2U);
}

TEST_F(RestoreTest, WhoseProcessIsGoneIsResolvedAtTheFirstTick) {
  restore({stood("a")}, false);
  const auto changed = tick({});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].resolution, kGoneMeanwhile);
  EXPECT_FALSE(policy_->concerns(kRedis));
}

TEST_F(RestoreTest, WhoExitsLaterHasExited) {
  restore({stood("a")});
  tick_with({});
  const auto changed = tick({}, {kRedis});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].resolution, kProcessExited);
}

TEST_F(RestoreTest, WhoIsNotWatchedAnyMoreEndsAfterAMinute) {
  restore({stood("a")});
  std::vector<Alert> changed;
  int seconds = 0;
  for (; seconds < 100 && changed.empty(); ++seconds) changed = tick({});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].resolution, kNotWatched);
  EXPECT_NEAR(seconds, 60, 2);
}

TEST_F(RestoreTest, OnceItIsOldItCountsAsNormal) {
  restore({stood("a", 3590)});
  const auto changed = run(20, {});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].resolution, kCountsAsNormal);
}

class RememberingTest : public RestoreTest {
 protected:
  RememberingTest() { remembers_ = true; }
};

TEST_F(RememberingTest, SilenceOfADetectorThatRemembersSaysThatItIsOver) {
  restore({stood("a")});
  EXPECT_THAT(run(115, {}), IsEmpty()) << "the evidence must build up anew first";
  const auto changed = run(10, {});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].id, "a");
  EXPECT_EQ(changed[0].resolution, kBackToBaseline);
}

TEST_F(RememberingTest, SilenceCountsFromWhenItRemembers) {
  remembers_ = false;
  restore({stood("a")});
  EXPECT_THAT(run(500, {}), IsEmpty());
  remembers_ = true;
  EXPECT_THAT(run(115, {}), IsEmpty());
  remembers_ = false;  // it began anew
  EXPECT_THAT(run(115, {}), IsEmpty());
  remembers_ = true;
  EXPECT_THAT(run(115, {}), IsEmpty());
  EXPECT_THAT(run(10, {}), SizeIs(1));
}

TEST_F(RememberingTest, WhatTookLongToBeSeenMayTakeTwiceAsLongAgain) {
  Alert slow = stood("a");
  slow.onset_ns = slow.opened_ns - 200'000'000'000;
  restore({slow});
  EXPECT_THAT(run(395, {}), IsEmpty());
  EXPECT_THAT(run(10, {}), SizeIs(1));
}

TEST_F(RememberingTest, WhileItTellsAnotherChangeItIsNotSilent) {
  restore({stood("a")});
  ASSERT_THAT(run(300, {composition({"main", "serve", "encode"})}), SizeIs(1)) << "the other one";
  EXPECT_EQ(policy_->firing(), 2U);
  EXPECT_EQ(policy_->find("a")->state, AlertState::kFiring);
}

TEST_F(RememberingTest, ItIsSilentAboutOneWhileItTellsAnotherWhereItFollowsEach) {
  remembers_each_ = true;
  restore({stood("a")});
  EXPECT_THAT(run(115, {composition({"main", "serve", "encode"})}), SizeIs(1)) << "the other one";
  const auto changed = run(10, {composition({"main", "serve", "encode"})});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].id, "a");
  EXPECT_EQ(changed[0].resolution, kBackToBaseline);
  EXPECT_EQ(policy_->firing(), 1U);
}

TEST_F(RememberingTest, ASeenAgainOneGoesOnAndEndsAsOthersDo) {
  const Alert told = stood("a");
  restore({told});
  EXPECT_THAT(run(60, {}), IsEmpty());
  EXPECT_THAT(run(200, {composition({"main", "serve", "lookup"}, 0.1, 0.3, now_s() - 20)}), IsEmpty());
  EXPECT_NEAR(static_cast<double>(policy_->find("a")->onset_ns), static_cast<double>(told.onset_ns), 1e6)
      << "not when it was seen again";
  const auto changed = run(20, {});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].id, "a");
  EXPECT_EQ(changed[0].resolution, kBackToBaseline);
}

TEST_F(RestoreTest, TheCooldownOutlivesTheDaemon) {
  restore({over("a", 100), over("b", 5000)});
  EXPECT_THAT(policy_->all(), SizeIs(2));
  EXPECT_THAT(run(20, {composition({"main", "serve", "lookup"})}), IsEmpty()) << "it came back during its cooldown";
  const auto changed = run(300, {composition({"main", "serve", "lookup"})});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].id, "a");
}

TEST_F(RestoreTest, TheOrderIsThatOfTheFile) {
  restore({over("newest", 10), over("older", 20), over("oldest", 30)});
  std::vector<std::string> ids;
  for (const Alert& alert : policy_->all()) ids.push_back(alert.id);
  EXPECT_THAT(ids, ElementsAre("newest", "older", "oldest"));
}

}  // namespace
}  // namespace stackwatch
