// SPDX-License-Identifier: Apache-2.0
// One alert per cause: what is told together, and what is told apart.
#include <gmock/gmock.h>

#include "tests/unit/alerting/policy_fixture.h"

namespace stackwatch {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::Field;
using testing::IsEmpty;
using testing::SizeIs;

auto contributor(const std::string& frame) { return Field(&Alert::Contributor::frame, frame); }

TEST_F(PolicyTest, RateAndCompositionOfOneEventAreOneAlertThatNamesTheFunction) {
  const auto changed = run(30, {rate(0.31, 0.93, onset_s_ + 8), composition({"main", "serve", "lookup"})});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].detector, "composition");
  EXPECT_EQ(changed[0].frame, "lookup");
  EXPECT_THAT(changed[0].contributors, ElementsAre(contributor("[process, cores]")));
  EXPECT_DOUBLE_EQ(changed[0].contributors[0].after, 0.93);
}

TEST_F(PolicyTest, NoveltyAndCompositionOfOneEventAreOneAlert) {
  Finding fresh = composition({"main", "serve", "lookup"}, 0, 0.2);
  fresh.detector = "novelty";
  ASSERT_THAT(run(8, {composition({"main", "serve", "lookup", "compare"}), fresh}), SizeIs(1));
  Finding spread = rate(0.001, 0.2);
  spread.detector = "novelty";
  spread.unit_of_measure = "share of samples in new stacks";
  EXPECT_THAT(run(8, {composition({"main", "serve", "lookup", "compare"}), spread}), SizeIs(0));
  EXPECT_THAT(policy_->all(), SizeIs(1));
}

TEST_F(PolicyTest, RateThatBeganAtAnotherTimeIsAnAlertOfItsOwn) {
  EXPECT_THAT(run(30, {rate(0.31, 0.93, onset_s_ - 31), composition({"main", "lookup"})}), SizeIs(2));
}

TEST_F(PolicyTest, WhilePendingTheFunctionIsTakenOverWhenItIsFound) {
  run(4, {rate()});
  const auto changed = run(2, {rate(), composition({"main", "lookup"})});
  ASSERT_THAT(changed, SizeIs(1)) << "and need not persist anew";
  EXPECT_EQ(changed[0].frame, "lookup");
}

TEST_F(PolicyTest, AFunctionThatVanishedWhilePendingIsNotTold) {
  run(2, {rate(), composition({"main", "lookup"})});
  const auto changed = run(4, {rate()});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].frame, "");
  EXPECT_EQ(changed[0].detector, "rate");
  EXPECT_THAT(changed[0].stack, IsEmpty());
}

TEST_F(PolicyTest, AnAlertThatFiredWithoutFunctionTellsItOnceItIsFound) {
  ASSERT_THAT(run(6, {rate()}), SizeIs(1));
  const auto named = run(10, {rate(), composition({"main", "lookup"})});
  ASSERT_THAT(named, SizeIs(1));
  EXPECT_TRUE(named[0].is_named_later());
  EXPECT_EQ(named[0].frame, "lookup");
  ASSERT_THAT(policy_->all(), SizeIs(1));
  EXPECT_EQ(policy_->all()[0].frame, "lookup");
  EXPECT_EQ(policy_->all()[0].id, "000000000001");
  EXPECT_THAT(policy_->all()[0].contributors, Contains(contributor("[process, cores]")));
}

TEST_F(PolicyTest, WhilePendingABetterAttributionOnTheSameStackReplacesTheOld) {
  run(3, {composition({"main", "serve"})});
  const auto changed = run(3, {composition({"main", "serve", "lookup", "compare"})});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].frame, "compare");
  EXPECT_THAT(changed[0].stack, ElementsAre("main", "serve", "lookup", "compare"));
}

TEST_F(PolicyTest, WhileFiringTheFunctionIsKept) {
  ASSERT_THAT(run(6, {composition({"main", "serve", "lookup"})}), SizeIs(1));
  EXPECT_THAT(run(30, {composition({"main", "serve", "lookup", "compare"})}), IsEmpty());
  EXPECT_THAT(run(30, {composition({"main", "serve"})}), IsEmpty());
  ASSERT_THAT(policy_->all(), SizeIs(1));
  EXPECT_EQ(policy_->all()[0].frame, "lookup");
  EXPECT_EQ(policy_->firing(), 1U) << "what is on its stack keeps it alive";
}

TEST_F(PolicyTest, WhileFiringItsValuesFollowTheFinding) {
  run(6, {composition({"main", "lookup"})});
  run(1, {composition({"main", "lookup"}, 0.1, 0.45)});
  EXPECT_DOUBLE_EQ(policy_->all()[0].after, 0.45);
}

TEST_F(PolicyTest, AStackIsToldDownToTheFunctionOnly) {
  Finding f = composition({"main", "serve", "lookup", "compare"});
  f.frame = function("serve");
  run(6, {f});
  EXPECT_THAT(policy_->all()[0].stack, ElementsAre("main", "serve"));
}

TEST_F(PolicyTest, ARecursionIsToldDownToItsLastCall) {
  Finding f = composition({"main", "walk", "walk", "compare"});
  f.frame = function("walk");
  run(6, {f});
  EXPECT_THAT(policy_->all()[0].stack, ElementsAre("main", "walk", "walk"));
}

TEST_F(PolicyTest, AnotherFunctionIsAnotherAlert) {
  const auto changed = run(6, {composition({"main", "lookup"}), composition({"main", "encode"})});
  ASSERT_THAT(changed, SizeIs(2));
  EXPECT_NE(changed[0].id, changed[1].id);
}

TEST_F(PolicyTest, ADetectorThatTellsOneOfTwoCausesAtATimeKeepsBothAlive) {
  ASSERT_THAT(run(6, {composition({"main", "lookup"}, 0.1, 0.2, onset_s_ - 500)}), SizeIs(1));
  Finding second = composition({"main", "encode"}, 0.1, 0.3);
  second.contributors = {{function("lookup"), 0.1, 0.2}};
  const auto changed = run(60, {second});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].frame, "encode");
  EXPECT_EQ(policy_->firing(), 2U);
  second.contributors = {{function("lookup"), 0.1, 0.05}};
  const auto over = run(60, {second});
  ASSERT_THAT(over, SizeIs(1)) << "a contributor that shrank does not say that the growth stands";
  EXPECT_EQ(over[0].frame, "lookup");
}

TEST_F(PolicyTest, TheFunctionThatLostTheShareIsNoSecondAlert) {
  const Finding grew = composition({"main", "lookup"}, 0.1, 0.3);
  const Finding shrank = composition({"main", "encode"}, 0.5, 0.3);
  const auto changed = run(30, {grew, shrank});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].frame, "lookup");
  EXPECT_THAT(changed[0].contributors, ElementsAre(contributor("encode")));
}

TEST_F(PolicyTest, TheOneThatGrewTakesOverFromItsMirrorImageWhilePending) {
  run(3, {composition({"main", "encode"}, 0.5, 0.3)});
  const auto changed = run(3, {composition({"main", "lookup"}, 0.1, 0.3)});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].frame, "lookup");
}

TEST_F(PolicyTest, AFunctionThatFellFarMoreThanAnyOtherGrewIsTold) {
  const auto changed = run(30, {composition({"main", "lookup"}, 0.1, 0.2), composition({"main", "encode"}, 0.5, 0.1)});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].frame, "encode");
}

TEST_F(PolicyTest, AFunctionThatShrankAtAnotherTimeIsAnAlertOfItsOwn) {
  EXPECT_THAT(
      run(6, {composition({"main", "lookup"}, 0.1, 0.3), composition({"main", "encode"}, 0.5, 0.3, onset_s_ - 100)}),
      SizeIs(2));
}

TEST_F(PolicyTest, TwoFunctionsThatKnowEachOtherAsContributorsAreOneEvent) {
  Finding a = composition({"main", "lookup"}, 0.1, 0.3);
  Finding b = composition({"main", "encode"}, 0.1, 0.28);
  a.contributors = {{function("encode"), 0.1, 0.28}};
  b.contributors = {{function("lookup"), 0.1, 0.3}};
  std::vector<Alert> changed;
  for (int i = 0; i < 40; ++i) {
    for (Alert& alert : tick_with({i % 2 == 0 ? a : b})) changed.push_back(std::move(alert));
  }
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_THAT(changed[0].contributors, SizeIs(1));
}

TEST_F(PolicyTest, TheAlertsOwnFunctionIsNotItsContributor) {
  Finding f = composition({"main", "lookup"});
  f.contributors = {{function("lookup"), 0.1, 0.3}, {function("main"), 0.9, 1.0}};
  run(6, {f});
  EXPECT_THAT(policy_->all()[0].contributors, ElementsAre(contributor("main")));
}

TEST_F(PolicyTest, TwoChangesThatOneDetectorTellsAtOnceAreTwoAlertsThoughOnOneStack) {
  const Finding first = composition({"main", "serve", "lookup"}, 0.1, 0.3, onset_s_);
  ASSERT_THAT(run(6, {first}), SizeIs(1));
  const Finding second = composition({"main", "serve", "lookup", "compare"}, 0.05, 0.2, onset_s_ + 120);
  const auto changed = run(6, {first, second});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].frame, "compare");
  EXPECT_EQ(policy_->firing(), 2U);
  const auto over = run(20, {second});
  ASSERT_THAT(over, SizeIs(1));
  EXPECT_EQ(over[0].frame, "lookup");
  EXPECT_EQ(over[0].resolution, "back to its baseline");
  EXPECT_EQ(policy_->firing(), 1U);
}

TEST_F(PolicyTest, TwoThatBeganTogetherOnOneStackAreOneAlert) {
  const Finding first = composition({"main", "serve", "lookup"}, 0.1, 0.3, onset_s_);
  const Finding second = composition({"main", "serve", "lookup", "compare"}, 0.05, 0.2, onset_s_ + 20);
  EXPECT_THAT(run(12, {first, second}), SizeIs(1));
}

TEST_F(PolicyTest, AGrowthFiresAgainAtOnceWhereItIsTwiceAsLarge) {
  const auto first = run(6, {composition({"main", "lookup"}, 0.1, 0.15)});
  ASSERT_THAT(first, SizeIs(1));
  Finding grown = composition({"main", "lookup"}, 0.1, 0.35);
  EXPECT_THAT(run(30, {grown}), IsEmpty()) << "an estimate that gets better is no growth";
  grown.growths = 1;
  const auto again = run(30, {grown});
  ASSERT_THAT(again, SizeIs(1)) << "once";
  EXPECT_EQ(again[0].id, first[0].id);
  EXPECT_EQ(again[0].opened_ns, first[0].opened_ns);
  EXPECT_TRUE(again[0].is_firing());
  EXPECT_DOUBLE_EQ(again[0].after, 0.35);
  EXPECT_EQ(policy_->counters().grown, 1U);
  EXPECT_EQ(policy_->counters().fired, 1U);
  EXPECT_THAT(run(20, {}), SizeIs(1)) << "and is resolved once";
}

TEST_F(PolicyTest, ASmallerGrowthFiresAgainWhenTheCooldownHasPassed) {
  run(6, {composition({"main", "lookup"}, 0.1, 0.4)});
  Finding grown = composition({"main", "lookup"}, 0.1, 0.55);
  grown.growths = 1;
  EXPECT_THAT(run(290, {grown}), IsEmpty());
  EXPECT_THAT(run(20, {grown}), SizeIs(1));
  grown.growths = 2;
  EXPECT_THAT(run(270, {grown}), IsEmpty());
  EXPECT_THAT(run(40, {grown}), SizeIs(1));
}

TEST_F(PolicyTest, FunctionsOfDifferentProbesAreToldApart) {
  Finding blocked = composition({"main", "encode"});
  blocked.probe = ProbeKind::kBlocked;
  std::vector<Alert> changed;
  for (int i = 0; i < 6; ++i) {
    Observation o = observation(kRedis, {blocked});
    o.probe = ProbeKind::kBlocked;
    for (Alert& a : tick({observation(kRedis, {composition({"main", "lookup"})}), o})) changed.push_back(std::move(a));
  }
  ASSERT_THAT(changed, SizeIs(2));
  EXPECT_EQ(changed[1].probe, ProbeKind::kBlocked);
}

TEST_F(PolicyTest, ProcessesAreToldApart) {
  identities_[kNginx] = {kNginx, 99, "nginx", "/usr/sbin/nginx", "/system.slice/nginx.service", "nginx.service"};
  std::vector<Alert> changed;
  for (int i = 0; i < 6; ++i) changed = tick({observation(kRedis, {rate()}), observation(kNginx, {rate()})});
  EXPECT_THAT(changed, SizeIs(2));
}

}  // namespace
}  // namespace stackwatch
