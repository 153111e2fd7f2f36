// SPDX-License-Identifier: Apache-2.0
// What happens when there is more than there is room for.
#include <gmock/gmock.h>

#include <string>

#include "tests/unit/alerting/policy_fixture.h"

namespace stackwatch {
namespace {

using testing::IsEmpty;
using testing::SizeIs;

TEST_F(PolicyTest, AProcessHasSoManyAlertsAndNoMore) {
  make_policy({.active_per_process = 2});
  const std::vector<Finding> findings = {composition({"main", "a"}), composition({"main", "b"}),
                                         composition({"main", "c"})};
  EXPECT_THAT(run(6, findings), SizeIs(2));
  EXPECT_EQ(policy_->counters().refused, 6U);
  std::vector<Alert> other;
  for (int i = 0; i < 6; ++i) other = tick({observation(kRedis, findings), observation(kNginx, {rate()})});
  EXPECT_THAT(other, SizeIs(1)) << "a noisy process does not silence another";
}

TEST_F(PolicyTest, RoomComesBackWhenAlertsAreOver) {
  make_policy({.active_per_process = 1});
  run(6, {composition({"main", "a"})});
  run(15, {});
  EXPECT_THAT(run(6, {composition({"main", "b"})}), SizeIs(1));
  run(3, {composition({"main", "b"}), composition({"main", "c"})});
  EXPECT_EQ(policy_->counters().refused, 3U);
}

TEST_F(PolicyTest, TheHostHasSoManyAlertsAndNoMore) {
  make_policy({.active_per_host = 3});
  std::vector<Observation> all;
  std::vector<Alert> changed;
  for (int32_t pid = 1; pid <= 10; ++pid) identities_[{pid, 0}] = {{pid, 0}, pid, "kworker", "", "", ""};
  for (int i = 0; i < 6; ++i) {
    all.clear();
    for (int32_t pid = 1; pid <= 10; ++pid) all.push_back(observation({pid, 0}, {rate()}));
    changed = tick(all);
  }
  EXPECT_THAT(changed, SizeIs(3));
  EXPECT_EQ(policy_->counters().refused, 7U * 6);
  EXPECT_TRUE(policy_->concerns({3, 0}));
  EXPECT_FALSE(policy_->concerns({4, 0})) << "refused ones leave nothing behind";
}

TEST_F(PolicyTest, TheHistoryForgetsTheOldest) {
  make_policy({.history = 3});
  for (int i = 0; i < 5; ++i) {
    run(6, {composition({"main", std::string("f" + std::to_string(i)).c_str()})});
    run(15, {});
  }
  const auto all = policy_->all();
  ASSERT_THAT(all, SizeIs(3));
  EXPECT_EQ(all[0].frame, "f4");
  EXPECT_EQ(all[2].frame, "f2");
  EXPECT_EQ(policy_->counters().forgotten, 2U);
  EXPECT_FALSE(policy_->find("000000000001"));
  EXPECT_TRUE(policy_->find("000000000005"));
}

TEST_F(PolicyTest, TheHistoryIsBoundedInBytesToo) {
  make_policy({.history_bytes = 100'000});
  const std::string long_name(30'000, 'x');
  for (int i = 0; i < 6; ++i) {
    run(6, {composition({"main", (long_name + std::to_string(i)).c_str()})});
    run(15, {});
  }
  EXPECT_LE(policy_->all().size(), 3U);
  EXPECT_GE(policy_->all().size(), 1U);
  EXPECT_GT(policy_->counters().forgotten, 0U);
}

TEST_F(PolicyTest, WithoutHistoryAlertsAreStillResolved) {
  make_policy({.history = 0});
  run(6, {rate()});
  EXPECT_THAT(run(15, {}), SizeIs(1));
  EXPECT_THAT(policy_->all(), IsEmpty());
}

TEST_F(PolicyTest, ContributorsAreBounded) {
  Finding f = composition({"main", "lookup"});
  for (int i = 0; i < 100; ++i) f.contributors.push_back({function("c" + std::to_string(i)), 0.1, 0.2});
  run(6, {f, rate()});
  EXPECT_THAT(policy_->all()[0].contributors, SizeIs(16));
  EXPECT_EQ(policy_->all()[0].contributors.back().frame, "[process, cores]") << "mentions find room";
}

TEST_F(PolicyTest, StacksAreBoundedAndEndInTheFunction) {
  std::vector<FunctionId> frames;
  for (int i = 0; i < 1000; ++i) frames.push_back(function("f" + std::to_string(i)));
  Finding f = composition({"main", "lookup"});
  f.frame = frames.back();
  f.stack = stacks_.intern(frames);
  run(6, {f});
  EXPECT_THAT(policy_->all()[0].stack, SizeIs(256));
  EXPECT_EQ(policy_->all()[0].stack.back(), "f999");
}

TEST_F(PolicyTest, AnIdThatIsTakenIsNotGivenTwice) {
  policy_.emplace(
      AlertPolicyOptions{}, clock_, [] { return std::string("always-the-same"); },
      AlertContext{[this](const ProcessKey& p) { return identify(p); },
                   [](const ProcessKey&, ProbeKind) { return Losses{}; }});
  const auto changed = run(6, {composition({"main", "a"}), composition({"main", "b"})});
  ASSERT_THAT(changed, SizeIs(2));
  EXPECT_NE(changed[0].id, changed[1].id);
}

TEST_F(PolicyTest, NewOptionsHoldFromTheNextTick) {
  run(3, {rate()});
  AlertPolicyOptions options;
  options.persistence_s = 3;
  options.false_alarm_budget = "1 per 1d";
  policy_->set_options(options);
  const auto changed = run(1, {rate()});
  ASSERT_THAT(changed, SizeIs(1));
}

}  // namespace
}  // namespace stackwatch
