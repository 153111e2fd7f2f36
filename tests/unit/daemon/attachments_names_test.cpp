// SPDX-License-Identifier: Apache-2.0
// The way of a count from stacks of addresses to stacks of functions, and what is kept of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/daemon/attachments_fixture.h"

namespace stackwatch {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST_F(AttachmentsTest, NamedStacksAndEveryTickEmptyOnesToo) {
  ASSERT_TRUE(attach(kRedis, {.frequency_hz = 49, .children = false}));
  work(kRedis, 5, 10);
  work(kRedis, 6, 3);
  const auto ready = tick(2);
  ASSERT_EQ(ready.deltas.size(), 1U);
  const NamedDelta& delta = ready.deltas[0];
  EXPECT_EQ(delta.process, kRedis);
  EXPECT_EQ(delta.probe, ProbeKind::kOnCpu);
  EXPECT_EQ(delta.frequency_hz, 49);
  EXPECT_NEAR(delta.interval_s, 2, 1e-6);
  EXPECT_NEAR(delta.time_s, static_cast<double>(clock_.monotonic_ns()) * 1e-9, 1e-6);
  EXPECT_EQ(delta.functions, &functions_);
  EXPECT_THAT(leaves(delta), ElementsAre("f5=10", "f6=3"));
  const auto quiet = tick();
  ASSERT_EQ(quiet.deltas.size(), 1U);
  EXPECT_THAT(quiet.deltas[0].values, IsEmpty());
}

TEST_F(AttachmentsTest, StacksOfAddressesThatAreOneStackOfFunctionsAreAddedUp) {
  ASSERT_TRUE(attach(kRedis));
  for (const uint64_t hash : {100, 101, 102}) {
    engine_.tell(kRedis, StackHash{hash}, {.exec = ExecId{7}, .user_frames = {5}, .kernel_frames = {}});
    engine_.count(kRedis, StackHash{hash}, 2);
  }
  const auto ready = tick();
  ASSERT_EQ(ready.deltas.at(0).values.size(), 1U);
  EXPECT_THAT(leaves(ready.deltas[0]), ElementsAre("f5=6"));
}

TEST_F(AttachmentsTest, ADeltaWaitsForItsNamesAndLaterOnesBehindIt) {
  ASSERT_TRUE(attach(kRedis));
  work(kRedis, 5);
  tick();
  namer_.never_name(StackHash{6});
  work(kRedis, 6);
  EXPECT_THAT(tick().deltas, IsEmpty());
  work(kRedis, 5);
  EXPECT_THAT(tick().deltas, IsEmpty()) << "deltas of one probe do not overtake";
  namer_.name_after_all(StackHash{6});
  const auto ready = tick();
  ASSERT_EQ(ready.deltas.size(), 3U);
  EXPECT_THAT(leaves(ready.deltas[0]), ElementsAre("f6=1"));
  EXPECT_THAT(leaves(ready.deltas[1]), ElementsAre("f5=1"));
  EXPECT_LT(ready.deltas[0].time_s, ready.deltas[1].time_s);
  EXPECT_LT(ready.deltas[1].time_s, ready.deltas[2].time_s);
  EXPECT_EQ(attachments_->total_losses(), Losses{}) << "late, but not lost";
}

TEST_F(AttachmentsTest, OneProcessDoesNotWaitForAnother) {
  ASSERT_TRUE(attach(kRedis));
  ASSERT_TRUE(attach(kNginx));
  namer_.never_name(StackHash{6});
  work(kRedis, 6);
  work(kNginx, 5);
  const auto ready = tick();
  ASSERT_EQ(ready.deltas.size(), 1U);
  EXPECT_EQ(ready.deltas[0].process, kNginx);
}

TEST_F(AttachmentsTest, AStackThatNeverGetsANameDelaysOnce) {
  ASSERT_TRUE(attach(kRedis));
  namer_.never_name(StackHash{6});
  work(kRedis, 6, 2);
  const auto deadline = static_cast<int>(Attachments::kNamesDeadlineS);
  for (int i = 0; i < deadline; ++i) ASSERT_THAT(tick().deltas, IsEmpty()) << i;
  const auto ready = tick();
  ASSERT_EQ(ready.deltas.size(), static_cast<size_t>(deadline + 1)) << "and what waited behind it";
  EXPECT_THAT(leaves(ready.deltas[0]), ElementsAre("[unnamed]=2"));
  EXPECT_EQ(ready.deltas[0].lost[LossReason::kNamesLate], 2U);
  for (int i = 0; i < 10; ++i) {
    work(kRedis, 6, 3);
    const auto again = tick();
    ASSERT_EQ(again.deltas.size(), 1U) << "it does not wait again";
    EXPECT_EQ(again.deltas[0].lost[LossReason::kNamesLate], 3U) << "but it is told";
  }
  EXPECT_EQ(attachments_->losses(kRedis, ProbeKind::kOnCpu)[LossReason::kNamesLate], 32U);
  namer_.name_after_all(StackHash{6});
  tick();
  work(kRedis, 6, 1);
  const auto named = tick();
  EXPECT_THAT(leaves(named.deltas.at(0)), ElementsAre("f6=1")) << "a name that came after all";
  EXPECT_EQ(named.deltas[0].lost, Losses{});
}

TEST_F(AttachmentsTest, WhatTheNamerHasNoRoomForIsAskedForAgain) {
  ASSERT_TRUE(attach(kRedis));
  namer_.refuse_next(3);
  work(kRedis, 6, 2);
  EXPECT_THAT(tick().deltas, IsEmpty());
  for (int i = 0; i < 3 && namer_.requests(StackHash{6}) < 4; ++i) EXPECT_THAT(tick().deltas.size(), ::testing::Le(3U));
  const auto ready = tick();
  ASSERT_FALSE(ready.deltas.empty());
  EXPECT_GE(namer_.requests(StackHash{6}), 4U);
  work(kRedis, 6, 2);
  EXPECT_THAT(leaves(tick().deltas.at(0)), ElementsAre("f6=2"));
  EXPECT_EQ(attachments_->total_losses(), Losses{}) << "late names that came in time are no loss";
}

TEST_F(AttachmentsTest, ANamerThatNeverHasRoomIsALossAndNothingGrowsWithoutBound) {
  ASSERT_TRUE(attach(kRedis));
  namer_.refuse_next(1'000'000'000);
  for (uint64_t leaf = 10; leaf < 1010; ++leaf) work(kRedis, leaf);
  for (int i = 0; i < 5; ++i) EXPECT_THAT(tick().deltas, IsEmpty());
  const size_t calls = namer_.calls().size();
  const auto ready = tick();
  ASSERT_FALSE(ready.deltas.empty());
  EXPECT_EQ(ready.deltas[0].lost[LossReason::kNamesLate], 1000U);
  EXPECT_LT(namer_.calls().size() - calls, 600U) << "a tick does not ask for all of a thousand again";
}

TEST_F(AttachmentsTest, FullTablesCountUnderOther) {
  make({.attachments = 8, .stacks_per_process = 4});
  ASSERT_TRUE(attach(kRedis));
  for (uint64_t leaf = 10; leaf < 20; ++leaf) work(kRedis, leaf, 2);
  const auto ready = tick();
  ASSERT_EQ(ready.deltas.size(), 1U);
  EXPECT_LE(ready.deltas[0].stacks->size(), 4U);
  EXPECT_EQ(ready.deltas[0].lost[LossReason::kStacksFull], 14U) << "[other] is one of the four";
  int64_t total = 0;
  for (const auto& value : ready.deltas[0].values) total += value.value;
  EXPECT_EQ(total, 20) << "counted all the same";
  EXPECT_EQ(ready.deltas[0].values.at(0).stack, StackTable::kOther);
  EXPECT_EQ(ready.deltas[0].values.at(0).value, 14);
}

TEST_F(AttachmentsTest, AddressesWithoutEndAskForNoMoreNamesAndDoNotWait) {
  make({.attachments = 8, .stacks_per_process = 4});
  ASSERT_TRUE(attach(kRedis));
  for (uint64_t leaf = 1000; leaf < 1064; ++leaf) work(kRedis, leaf);  // 16 per stack
  tick();
  const size_t calls = namer_.calls().size();
  for (uint64_t leaf = 2000; leaf < 2100; ++leaf) work(kRedis, leaf);
  const auto ready = tick();
  EXPECT_EQ(namer_.calls().size(), calls);
  ASSERT_EQ(ready.deltas.size(), 1U);
  EXPECT_EQ(ready.deltas[0].lost[LossReason::kStacksFull], 100U);
  EXPECT_EQ(ready.deltas[0].lost[LossReason::kNamesLate], 0U);
}

TEST_F(AttachmentsTest, WhoExitsInSilenceExits) {
  ASSERT_TRUE(attach(kRedis));
  namer_.never_name(StackHash{6});
  work(kRedis, 6);
  attachments_->end(kRedis, true);
  for (int i = 0; i < 5; ++i) EXPECT_THAT(tick().exits, IsEmpty());
  const auto ready = tick();
  EXPECT_THAT(ready.exits, ElementsAre(kRedis)) << "names are not waited for without end";
  EXPECT_EQ(ready.deltas.size(), 1U);
  EXPECT_EQ(namer_.known(), 0U);
  EXPECT_EQ(namer_.pending(), 0U);
}

TEST_F(AttachmentsTest, WhoIsAttachedAgainAtOnceKeepsItsNames) {
  ASSERT_TRUE(attach(kRedis));
  work(kRedis, 5);
  tick();
  attachments_->end(kRedis, false);
  EXPECT_THAT(tick().detached, ElementsAre(kRedis));
  ASSERT_TRUE(attach(kRedis)) << "in the same tick";
  EXPECT_TRUE(namer_.knows(kRedis));
  told_.clear();
  namer_.hold();
  work(kRedis, 6, 3);
  EXPECT_THAT(tick().deltas, IsEmpty());
  EXPECT_TRUE(namer_.knows(kRedis)) << "the end of the old attachment is not the end of this one";
  namer_.release();
  const auto ready = tick();
  EXPECT_THAT(leaves(ready.deltas.at(0)), ElementsAre("f6=3"));
  EXPECT_EQ(ready.deltas[0].lost, Losses{});
  tick();
  EXPECT_TRUE(namer_.knows(kRedis));
}

TEST_F(AttachmentsTest, AnotherProgramIsLearnedAndCalledByItsName) {
  ASSERT_TRUE(attach(kRedis));
  EXPECT_EQ(attachments_->exec(kRedis), ExecId{7});
  ProcessIdentity other = identity(kRedis);
  other.comm = "sleep";
  attachments_->replace_program(other, ExecId{8});
  EXPECT_EQ(attachments_->exec(kRedis), ExecId{8});
  EXPECT_EQ(attachments_->identity(kRedis)->comm, "sleep");
  EXPECT_EQ(namer_.calls().back(), (FakeNamer::Call{"learn", kRedis}));
}

TEST_F(AttachmentsTest, StacksOfTheLastSeconds) {
  ASSERT_TRUE(attach(kRedis));
  work(kRedis, 5, 10);
  tick();
  for (int i = 0; i < 100; ++i) tick();
  work(kRedis, 6, 3);
  work(kRedis, 5, 1);
  tick();
  const auto recent = attachments_->stacks(4711, ProbeKind::kOnCpu, 30, false);
  ASSERT_TRUE(recent);
  EXPECT_EQ(recent->total, 4);
  ASSERT_EQ(recent->rows.size(), 2U);
  EXPECT_THAT(recent->rows[0].frames, ElementsAre("f1", "f6"));
  EXPECT_EQ(recent->rows[0].value, 3);
  EXPECT_NEAR(recent->window_s, 30, 1e-6);
  EXPECT_THAT(recent->rows[0].series, IsEmpty());
  const auto all = attachments_->stacks(4711, ProbeKind::kOnCpu, 0, true);
  ASSERT_TRUE(all);
  EXPECT_EQ(all->total, 14);
  EXPECT_THAT(all->rows.at(0).frames, ElementsAre("f1", "f5")) << "largest first";
  EXPECT_NEAR(all->window_s, 102, 1e-6) << "since it was attached";
  int64_t in_series = 0;
  for (const int64_t value : all->rows[0].series) in_series += value;
  EXPECT_EQ(in_series, 11);
  EXPECT_EQ(all->rows[0].series.back(), 1);
  EXPECT_FALSE(attachments_->stacks(4711, ProbeKind::kBlocked, 0, false));
  EXPECT_FALSE(attachments_->stacks(1, ProbeKind::kOnCpu, 0, false));
}

TEST_F(AttachmentsTest, APidThatComesRoundShowsTheNewProcess) {
  ASSERT_TRUE(attach(kRedis));
  work(kRedis, 5, 10);
  tick();
  namer_.never_name(StackHash{6});
  work(kRedis, 6);
  attachments_->end(kRedis, true);
  tick();  // its last delta waits for names
  const ProcessKey again{4711, 990'000'000};
  ASSERT_TRUE(attach(again));
  EXPECT_EQ(attachments_->size(), 2U);
  work(again, 5, 1);
  const auto ready = tick();
  ASSERT_EQ(ready.deltas.size(), 1U);
  EXPECT_EQ(ready.deltas[0].process, again);
  EXPECT_EQ(attachments_->stacks(4711, ProbeKind::kOnCpu, 0, false)->total, 1);
}

TEST_F(AttachmentsTest, HistoryIsBoundedInTime) {
  ASSERT_TRUE(attach(kRedis));
  work(kRedis, 5, 10);
  tick();
  clock_.advance_s(Attachments::kHistoryS + 10);
  work(kRedis, 5, 1);
  tick();
  const auto all = attachments_->stacks(4711, ProbeKind::kOnCpu, 0, false);
  EXPECT_EQ(all->total, 1);
  EXPECT_EQ(all->window_s, Attachments::kHistoryS);
  EXPECT_EQ(attachments_->rows().at(0).samples, 11U) << "the count is not forgotten";
}

TEST_F(AttachmentsTest, HistoryIsBoundedInSize) {
  // With so many attached the part of each is the least there is.
  make({.attachments = 2000, .stacks_per_process = 4096});
  for (int32_t pid = 1; pid <= 1200; ++pid) ASSERT_TRUE(attach({pid, 10'000'000}));
  ASSERT_TRUE(attach(kRedis));
  constexpr uint64_t kPerTick = 100;
  constexpr int kTicks = 50;
  for (int i = 0; i < kTicks; ++i) {
    for (uint64_t leaf = 10; leaf < 10 + kPerTick; ++leaf) work(kRedis, leaf);
    tick();
  }
  const auto all = attachments_->stacks(4711, ProbeKind::kOnCpu, 0, false);
  EXPECT_EQ(all->total, static_cast<int64_t>(Attachments::kMinHistoryValues));
  EXPECT_EQ(attachments_->rows().back().samples, kPerTick * kTicks);
}

}  // namespace
}  // namespace stackwatch
