// SPDX-License-Identifier: Apache-2.0
// Cost that moved and did not grow is told once and never fires.
#include <gmock/gmock.h>

#include "daemon/alerting/journal_sink.h"
#include "daemon/alerting/message.h"
#include "systemd/message_ids.h"
#include "tests/unit/alerting/policy_fixture.h"

namespace stackwatch {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class ShiftTest : public PolicyTest {
 protected:
  Finding renamed() {
    Finding f = composition({"main", "serve", "lookup"}, 0, 0.3);
    f.shift = CostShift{CostShift::Kind::kRenamed, function("find"), function("lookup"), function("serve"), {}};
    return f;
  }
};

TEST_F(ShiftTest, IsToldOnceAndNeverFires) {
  const auto changed = run(120, {renamed()});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].state, AlertState::kResolved);
  EXPECT_EQ(changed[0].resolution, kCostMoved);
  ASSERT_TRUE(changed[0].shift);
  EXPECT_EQ(changed[0].shift->kind, "renamed");
  EXPECT_EQ(changed[0].shift->from, "find");
  EXPECT_EQ(changed[0].shift->to, "lookup");
  EXPECT_EQ(policy_->firing(), 0U);
  EXPECT_EQ(policy_->pending(), 0U);
  EXPECT_EQ(policy_->counters().fired, 0U);
  EXPECT_EQ(policy_->counters().shifts, 1U);
  EXPECT_THAT(policy_->standing(), IsEmpty());
  ASSERT_THAT(policy_->all(), SizeIs(1));
  EXPECT_EQ(policy_->all()[0].state, AlertState::kResolved);
  EXPECT_THAT(run(60, {}), IsEmpty()) << "its end is no news";
  EXPECT_THAT(policy_->all(), SizeIs(1));
  EXPECT_FALSE(policy_->concerns(kRedis));
}

TEST_F(ShiftTest, WhatGoesAwayWithinThePersistenceIsNotTold) {
  EXPECT_THAT(run(4, {renamed()}), IsEmpty());
  EXPECT_THAT(run(20, {}), IsEmpty());
  EXPECT_THAT(policy_->all(), IsEmpty());
}

TEST_F(ShiftTest, InTheJournalItIsInformation) {
  const auto changed = run(8, {renamed()});
  ASSERT_THAT(changed, SizeIs(1));
  const auto fields = journal_fields(changed[0], false);
  EXPECT_THAT(fields, Contains("PRIORITY=6"));
  EXPECT_THAT(fields, Contains(std::string("MESSAGE_ID=") + kMessageIdCostShift));
  EXPECT_THAT(fields, Contains("STACKWATCH_SHIFT=renamed"));
  EXPECT_THAT(message_of(changed[0]),
              HasSubstr("lookup has the place of find and takes the same, 30.0 % of its CPU time, since"));
}

TEST_F(ShiftTest, EachKindHasItsWords) {
  Alert alert = run(8, {renamed()}).at(0);
  alert.shift = Alert::Shift{"inlined", "find", "serve", "serve", ""};
  EXPECT_THAT(message_of(alert), HasSubstr("find is a part of serve now, which takes the same, since"));
  alert.shift = Alert::Shift{"outlined", "serve", "find", "serve", ""};
  EXPECT_THAT(message_of(alert), HasSubstr("a part of serve is the function find now and takes the same, since"));
  alert.shift = Alert::Shift{"moved", "get", "put", "", "checksum"};
  EXPECT_THAT(message_of(alert), HasSubstr("checksum is called by put instead of get and takes the same, since"));
  alert.shift = Alert::Shift{"renamed", "", "lookup", "serve", ""};
  EXPECT_THAT(message_of(alert), HasSubstr("lookup has the place of another function and takes the same"))
      << "of a predecessor only a hash of the name is kept";
}

TEST_F(ShiftTest, WhatTurnsOutToBeMoreFires) {
  ASSERT_THAT(run(8, {renamed()}), SizeIs(1));
  Finding grown = renamed();
  grown.shift.reset();
  grown.after = 0.5;
  const auto changed = run(20, {grown});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].state, AlertState::kFiring);
  EXPECT_EQ(changed[0].id, "000000000001");
  EXPECT_FALSE(changed[0].shift);
  EXPECT_FALSE(changed[0].resolved_ns);
  EXPECT_THAT(run(20, {renamed()}), IsEmpty()) << "a verdict that wavers is not told again";
  EXPECT_EQ(policy_->firing(), 1U);
  EXPECT_FALSE(policy_->all()[0].shift);
  const auto over = run(20, {});
  ASSERT_THAT(over, SizeIs(1));
  EXPECT_EQ(over[0].resolution, kBackToBaseline);
}

TEST_F(ShiftTest, AnAlarmThatTurnsOutToBeAShiftIsResolvedAsOne) {
  Finding change = renamed();
  change.shift.reset();
  ASSERT_THAT(run(8, {change}), SizeIs(1));
  const auto changed = run(30, {renamed()});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].state, AlertState::kResolved);
  EXPECT_EQ(changed[0].resolution, kCostMoved);
  EXPECT_THAT(run(30, {}), IsEmpty());
}

TEST_F(ShiftTest, TenWorkersOfANewBuildAreToldOnce) {
  std::vector<Alert> changed;
  for (int s = 0; s < 10; ++s) {
    std::vector<Observation> observations;
    for (int i = 0; i < 10; ++i) observations.push_back(observation({5000 + i, 1}, {renamed()}));
    for (Alert& alert : tick(std::move(observations))) changed.push_back(std::move(alert));
  }
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_THAT(changed[0].processes, SizeIs(10));
  for (int s = 0; s < 30; ++s) {
    std::vector<Observation> observations;
    for (int i = 0; i < 10; ++i) observations.push_back(observation({5000 + i, 1}, {}));
    EXPECT_THAT(tick(std::move(observations)), IsEmpty());
  }
  EXPECT_THAT(policy_->all(), SizeIs(1));
  EXPECT_FALSE(policy_->concerns({5003, 1}));
}

TEST_F(ShiftTest, NoveltyOfTheNewNameIsExplained) {
  Finding fresh = composition({"main", "serve", "lookup"}, 0, 0.3);
  fresh.detector = "novelty";
  fresh.score = 50;
  const auto changed = run(20, {fresh, renamed()});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].state, AlertState::kResolved);
}

TEST_F(ShiftTest, AnotherFunctionOfTheProcessFires) {
  run(8, {renamed()});
  const auto changed = run(8, {renamed(), composition({"main", "encode"})});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].frame, "encode");
}

}  // namespace
}  // namespace stackwatch
