// SPDX-License-Identifier: Apache-2.0
// Children of watched processes, as the kernel side and the census find them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/daemon/machine_fixture.h"

namespace stackwatch {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Kind = AttachReason::Kind;

class ChildrenTest : public MachineTest {};

TEST_F(ChildrenTest, ChildrenFoundByTheCensus) {
  config_.watch = {rule("parent", true, 49)};
  census_.start(10, "parent");
  census_.start(11, "child", 10);
  census_.start(12, "stranger", 1);
  tick();
  EXPECT_TRUE(is_attached(11));
  EXPECT_EQ(reason(11).kind, Kind::kChild);
  EXPECT_EQ(reason(11).rule, "rule-parent");
  EXPECT_THAT(reason(11).text, HasSubstr("10"));
  EXPECT_EQ(engine_.options(census_.key(11)), (ProbeOptions{.frequency_hz = 49, .children = true}));
  EXPECT_FALSE(is_attached(12));
}

TEST_F(ChildrenTest, NoChildrenWhereTheRuleSaysSo) {
  config_.watch = {rule("parent", false)};
  census_.start(10, "parent");
  census_.start(11, "child", 10);
  run(3);
  EXPECT_FALSE(is_attached(11));
}

TEST_F(ChildrenTest, AnAdoptedChildHasItsCountsFromTheBeginning) {
  config_.watch = {rule("parent", true)};
  census_.start(10, "parent");
  tick();
  const ProcessKey child = census_.start(11, "child", 10).key;
  engine_.adopt(child, census_.key(10));
  work(child, 5, 3);
  tick();
  EXPECT_EQ(reason(11).kind, Kind::kChild);
  const auto batch = tick();
  ASSERT_NE(delta_of(batch, child), nullptr);
  EXPECT_THAT(leaves(*delta_of(batch, child)), ElementsAre("f5=3"));
  EXPECT_EQ(attachments_->total_losses(), Losses{});
}

TEST_F(ChildrenTest, AdoptedGrandchildrenOfTheSameTick) {
  config_.watch = {rule("parent", true, 49)};
  census_.start(10, "parent");
  tick();
  const ProcessKey child = census_.start(11, "child", 10).key;
  const ProcessKey grandchild = census_.start(12, "grandchild", 11).key;
  engine_.adopt(child, census_.key(10));
  engine_.adopt(grandchild, child);
  tick();
  EXPECT_EQ(reason(11).rule, "rule-parent");
  EXPECT_EQ(reason(12).kind, Kind::kChild);
  EXPECT_EQ(reason(12).rule, "rule-parent");
  EXPECT_EQ(engine_.options(grandchild), (ProbeOptions{.frequency_hz = 49, .children = true}));
  EXPECT_EQ(attachments_->total_losses()[LossReason::kWatchFull], 0U);
}

TEST_F(ChildrenTest, AdoptedGrandchildrenThatAreToldBeforeTheirParent) {
  config_.watch = {rule("parent", true)};
  census_.start(10, "parent");
  tick();
  const ProcessKey child = census_.start(11, "child", 10).key;
  const ProcessKey grandchild = census_.start(12, "grandchild", 11).key;
  // As the kernel side would: adoption of the child first, but its list has no order.
  engine_.adopt(child, census_.key(10));
  auto first = engine_.take_adopted();
  engine_.adopt(grandchild, child);
  engine_.adopt(child, census_.key(10));
  tick();
  EXPECT_TRUE(is_attached(11));
  EXPECT_TRUE(is_attached(12));
  EXPECT_EQ(attachments_->total_losses()[LossReason::kWatchFull], 0U);
}

TEST_F(ChildrenTest, AnAdoptedChildWhoseParentHasJustEnded) {
  config_.watch = {rule("parent", true)};
  census_.start(10, "parent");
  run(2);
  const ProcessKey parent = census_.key(10);
  const ProcessKey child = census_.start(11, "daemonized", 1).key;
  engine_.adopt(child, parent);
  census_.end(10);
  EXPECT_THAT(tick().exits, ElementsAre(parent));
  EXPECT_TRUE(is_attached(11));
  EXPECT_EQ(reason(11).rule, "rule-parent");
  run(3);
  EXPECT_TRUE(is_attached(11)) << "and stays";
}

TEST_F(ChildrenTest, AnAdoptedChildThatHasEndedAlreadyHasItsCounts) {
  config_.watch = {rule("parent", true)};
  census_.start(10, "parent");
  tick();
  const ProcessKey child{11, 990'000'000};  // in no census
  engine_.adopt(child, census_.key(10));
  work(child, 5, 3);
  tick();
  EXPECT_EQ(source_->identify(child).comm, "parent") << "until the census tells, it is called like its parent";
  const auto batch = tick();
  ASSERT_NE(delta_of(batch, child), nullptr);
  EXPECT_THAT(leaves(*delta_of(batch, child)), ElementsAre("f5=3"));
  EXPECT_THAT(batch.exits, ElementsAre(child));
  EXPECT_EQ(attachments_->size(), 1U);
}

TEST_F(ChildrenTest, AnAdoptedChildOfNobodyIsRefusedAndCounted) {
  tick();
  const ProcessKey child = census_.start(11, "child", 10).key;
  engine_.adopt(child, {10, 990'000'000});
  tick();
  EXPECT_FALSE(is_attached(11));
  EXPECT_FALSE(engine_.is_attached(child));
  EXPECT_EQ(attachments_->total_losses()[LossReason::kWatchFull], 1U);
}

TEST_F(ChildrenTest, ARuleOfItsOwnGoesBeforeTheParents) {
  config_.watch = {rule("parent", true, 49), rule("child", false, 199)};
  census_.start(10, "parent");
  census_.start(11, "child", 10);
  tick();
  EXPECT_EQ(reason(11).rule, "rule-child");
  EXPECT_EQ(engine_.options(census_.key(11)).frequency_hz, 199);
}

}  // namespace
}  // namespace stackwatch
