// SPDX-License-Identifier: Apache-2.0
// Whom a process is attached for, with which options, and until when.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/daemon/attachments_fixture.h"

namespace stackwatch {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST_F(AttachmentsTest, WhatNobodyAttachedIsUnknownEverywhere) {
  attachments_->end(kRedis, true);
  attachments_->set_on_cpu(sample(kRedis));
  attachments_->replace_program(identity(kRedis), ExecId{8});
  EXPECT_FALSE(attachments_->contains(kRedis));
  EXPECT_EQ(attachments_->exec(kRedis), std::nullopt);
  EXPECT_EQ(attachments_->identity(kRedis), nullptr);
  EXPECT_EQ(attachments_->reason(kRedis), nullptr);
  EXPECT_EQ(attachments_->options(kRedis), nullptr);
  EXPECT_EQ(attachments_->losses(kRedis, ProbeKind::kOnCpu), Losses{});
  const auto ready = tick();
  EXPECT_THAT(ready.deltas, IsEmpty());
  EXPECT_THAT(ready.exits, IsEmpty());
  const auto stacks = attachments_->stacks(4711, ProbeKind::kOnCpu, 0, false);
  ASSERT_FALSE(stacks);
  EXPECT_EQ(stacks.error().kind, ErrorKind::kFailed);
}

TEST_F(AttachmentsTest, AProbeWithoutAnEngineIsAnErrorIfItIsTheOnlyOne) {
  const auto none = attach(kRedis, {}, {ProbeKind::kMemory});
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().kind, ErrorKind::kUnsupported);
  EXPECT_FALSE(attachments_->contains(kRedis));
  EXPECT_FALSE(attach(kRedis, {}, {}));
  ASSERT_TRUE(attach(kRedis, {}, {ProbeKind::kMemory, ProbeKind::kOnCpu}));
  EXPECT_THAT(attachments_->rows().at(0).probes, ElementsAre(ProbeKind::kOnCpu));
}

TEST_F(AttachmentsTest, ARefusalLeavesNothing) {
  engine_.refuse_attach({ErrorKind::kFailed, "attach", "no room", ""});
  const auto refused = attach(kRedis);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().why, "no room");
  EXPECT_EQ(attachments_->size(), 0U);
  EXPECT_EQ(engine_.attached(), 0U);
  EXPECT_EQ(namer_.known(), 0U);
  EXPECT_THAT(tick().deltas, IsEmpty());
}

TEST_F(AttachmentsTest, AProbeThatCannotBeAttachedWhenItIsLoadedIsToldAndTheOthersGoOn) {
  attachments_->set_load_beside();
  blocked_.hold_loading(true);
  ASSERT_TRUE(attach(kRedis, {}, {ProbeKind::kOnCpu, ProbeKind::kBlocked}));
  ASSERT_TRUE(attach(kNginx, {}, {ProbeKind::kBlocked})) << "nothing has failed yet";
  EXPECT_EQ(attachments_->problem(), "");
  blocked_.refuse_attach({ErrorKind::kUnsupported, "load the program", "the kernel refuses it", ""});
  blocked_.hold_loading(false);
  tick();
  for (const AttachmentRow& row : attachments_->rows()) {
    EXPECT_THAT(row.problem, testing::HasSubstr("the kernel refuses it"));
    EXPECT_THAT(row.loading, IsEmpty());
  }
  EXPECT_THAT(attachments_->problem(), testing::HasSubstr("the kernel refuses it"));
  EXPECT_EQ(blocked_.refused(), 2U);
  tick();
  EXPECT_EQ(blocked_.refused(), 2U) << "nobody tries again at each tick";
  EXPECT_TRUE(engine_.is_attached(kRedis));
}

TEST_F(AttachmentsTest, WhatIsLoadedBesideIsAttachedWhenItIsThere) {
  attachments_->set_load_beside();
  blocked_.hold_loading(true);
  ASSERT_TRUE(attach(kRedis, {.children = true}, {ProbeKind::kOnCpu, ProbeKind::kBlocked}));
  EXPECT_THAT(attachments_->rows().at(0).probes, ElementsAre(ProbeKind::kOnCpu));
  EXPECT_THAT(attachments_->rows().at(0).loading, ElementsAre(ProbeKind::kBlocked));
  EXPECT_EQ(blocked_.attached(), 0U);
  work(kRedis, 5);
  EXPECT_THAT(leaves(tick().deltas.at(0)), ElementsAre("f5=1")) << "the other one does not wait";
  EXPECT_EQ(blocked_.attached(), 0U);
  blocked_.hold_loading(false);
  attachments_->attach_loaded();
  EXPECT_TRUE(blocked_.is_attached(kRedis));
  EXPECT_TRUE(blocked_.options(kRedis).children);
  EXPECT_THAT(attachments_->rows().at(0).probes, ElementsAre(ProbeKind::kOnCpu, ProbeKind::kBlocked));
  EXPECT_THAT(attachments_->rows().at(0).loading, IsEmpty());
  EXPECT_EQ(tick().deltas.size(), 2U);
}

TEST_F(AttachmentsTest, WhoeverEndsWhileItsProgramIsLoadedIsNotAttached) {
  attachments_->set_load_beside();
  blocked_.hold_loading(true);
  ASSERT_TRUE(attach(kRedis, {}, {ProbeKind::kBlocked}));
  attachments_->end(kRedis, true);
  blocked_.hold_loading(false);
  EXPECT_THAT(tick().exits, ElementsAre(kRedis));
  EXPECT_EQ(blocked_.attached(), 0U);
  EXPECT_FALSE(attachments_->contains(kRedis));
}

TEST_F(AttachmentsTest, AProbeThatNobodyWantsAnyMoreIsNotAttachedWhenItIsLoaded) {
  attachments_->set_load_beside();
  blocked_.hold_loading(true);
  ASSERT_TRUE(attach(kRedis, {}, {ProbeKind::kOnCpu, ProbeKind::kBlocked}));
  ASSERT_TRUE(attach(kRedis, {}, {ProbeKind::kOnCpu}));
  blocked_.hold_loading(false);
  tick();
  EXPECT_EQ(blocked_.attached(), 0U);
}

TEST_F(AttachmentsTest, ACollectThatFailsIsTold) {
  ASSERT_TRUE(attach(kRedis));
  work(kRedis, 5);
  engine_.fail_collect({ErrorKind::kFailed, "read the counts", "the map is gone", ""});
  clock_.advance_s(1);
  const auto collected = attachments_->collect(false);
  ASSERT_FALSE(collected);
  EXPECT_EQ(collected.error().why, "the map is gone");
  attachments_->set_on_cpu(sample(kRedis));
  EXPECT_THAT(attachments_->take().deltas, IsEmpty());
  engine_.stop_failing();
  EXPECT_THAT(leaves(tick().deltas.at(0)), ElementsAre("f5=1")) << "what was not read is not lost";
}

TEST_F(AttachmentsTest, ExposureIsWhatTheCensusSawOrElseTheSamplesSay) {
  on_cpu_ns_ = 5'000'000'000;
  ASSERT_TRUE(attach(kRedis, {.frequency_hz = 10, .children = false}));
  work(kRedis, 5, 5);
  clock_.advance_s(1);
  ASSERT_TRUE(attachments_->collect(false));
  on_cpu_ns_ = 5'400'000'000;
  attachments_->set_on_cpu(sample(kRedis));
  EXPECT_NEAR(attachments_->take().deltas.at(0).exposure_s, 0.4, 1e-9);
  work(kRedis, 5, 5);
  EXPECT_NEAR(tick().deltas.at(0).exposure_s, 0.5, 1e-9) << "it was not in the census";
}

TEST_F(AttachmentsTest, CpuTimeThatGoesBackIsNone) {
  on_cpu_ns_ = 5'000'000'000;
  ASSERT_TRUE(attach(kRedis));
  clock_.advance_s(1);
  ASSERT_TRUE(attachments_->collect(false));
  on_cpu_ns_ = 1;
  attachments_->set_on_cpu(sample(kRedis));
  EXPECT_EQ(attachments_->take().deltas.at(0).exposure_s, 0);
}

TEST_F(AttachmentsTest, LossesTravelWithTheDeltaAndAddUp) {
  ASSERT_TRUE(attach(kRedis));
  engine_.lose(kRedis, LossReason::kMapFull, 3);
  EXPECT_EQ(tick().deltas.at(0).lost[LossReason::kMapFull], 3U);
  EXPECT_EQ(tick().deltas.at(0).lost, Losses{});
  engine_.lose(kRedis, LossReason::kMapFull, 2);
  clock_.advance_s(1);
  ASSERT_TRUE(attachments_->collect(true));
  EXPECT_EQ(attachments_->take().deltas.at(0).lost[LossReason::kMissedTick], 1U);
  EXPECT_EQ(attachments_->losses(kRedis, ProbeKind::kOnCpu)[LossReason::kMapFull], 5U);
  EXPECT_EQ(attachments_->losses(kRedis, ProbeKind::kBlocked), Losses{});
  EXPECT_EQ(attachments_->total_losses()[LossReason::kMapFull], 5U);
  EXPECT_EQ(attachments_->rows().at(0).lost[LossReason::kMissedTick], 1U);
}

TEST_F(AttachmentsTest, TheLastDeltaComesBeforeTheExitIsTold) {
  ASSERT_TRUE(attach(kRedis));
  work(kRedis, 5);
  tick();
  namer_.never_name(StackHash{6});
  work(kRedis, 6, 4);
  attachments_->end(kRedis, true);
  auto ready = tick();
  EXPECT_THAT(ready.deltas, IsEmpty());
  EXPECT_THAT(ready.exits, IsEmpty()) << "its last words have no names yet";
  EXPECT_FALSE(engine_.is_attached(kRedis)) << "but the kernel is done with it";
  namer_.name_after_all(StackHash{6});
  ready = tick();
  ASSERT_EQ(ready.deltas.size(), 1U);
  EXPECT_THAT(leaves(ready.deltas[0]), ElementsAre("f6=4"));
  EXPECT_THAT(ready.exits, ElementsAre(kRedis));
  EXPECT_THAT(ready.detached, IsEmpty());
}

TEST_F(AttachmentsTest, InTheTickOfTheExitEverythingStillAnswers) {
  ASSERT_TRUE(attach(kRedis));
  work(kRedis, 5);
  engine_.lose(kRedis, LossReason::kTruncated, 2);
  attachments_->end(kRedis, true);
  const auto ready = tick();
  ASSERT_THAT(ready.exits, ElementsAre(kRedis));
  ASSERT_EQ(ready.deltas.size(), 1U);
  EXPECT_THAT(leaves(ready.deltas[0]), ElementsAre("f5=1"));
  ASSERT_NE(attachments_->identity(kRedis), nullptr);
  EXPECT_EQ(attachments_->identity(kRedis)->comm, "redis-server");
  EXPECT_EQ(attachments_->losses(kRedis, ProbeKind::kOnCpu)[LossReason::kTruncated], 2U);
  EXPECT_NE(attachments_->reason(kRedis), nullptr);
  EXPECT_FALSE(attachments_->contains(kRedis));
  tick();
  EXPECT_EQ(attachments_->identity(kRedis), nullptr);
  EXPECT_EQ(attachments_->total_losses()[LossReason::kTruncated], 2U) << "the host's are kept";
}

TEST_F(AttachmentsTest, WhoIsWantedAgainBeforeItIsDetachedStays) {
  ASSERT_TRUE(attach(kRedis));
  tick();
  attachments_->end(kRedis, false);
  ASSERT_TRUE(attach(kRedis));
  work(kRedis, 5);
  const auto ready = tick();
  EXPECT_THAT(ready.detached, IsEmpty());
  EXPECT_EQ(ready.deltas.size(), 1U);
  EXPECT_TRUE(attachments_->contains(kRedis));
  EXPECT_TRUE(engine_.is_attached(kRedis));
}

TEST_F(AttachmentsTest, OtherOptionsKeepCountsAndNames) {
  ASSERT_TRUE(attach(kRedis, {.frequency_hz = 99, .children = true}));
  work(kRedis, 5, 7);
  const StackTable* stacks = tick().deltas.at(0).stacks;
  const size_t learned = namer_.calls().size();
  ASSERT_TRUE(attach(kRedis, {.frequency_hz = 49, .children = false}));
  EXPECT_EQ(engine_.options(kRedis), (ProbeOptions{.frequency_hz = 49, .children = false}));
  EXPECT_EQ(*attachments_->options(kRedis), (ProbeOptions{.frequency_hz = 49, .children = false}));
  EXPECT_EQ(namer_.calls().size(), learned);
  work(kRedis, 5, 2);
  const auto ready = tick();
  EXPECT_EQ(ready.deltas.at(0).stacks, stacks) << "detectors go on";
  EXPECT_EQ(ready.deltas[0].frequency_hz, 49);
  EXPECT_THAT(leaves(ready.deltas[0]), ElementsAre("f5=2"));
  EXPECT_EQ(attachments_->rows().at(0).samples, 9U);
}

TEST_F(AttachmentsTest, RefusedOptionsLeaveTheOldOnesInForce) {
  ASSERT_TRUE(attach(kRedis, {.frequency_hz = 49, .children = false}));
  tick();
  engine_.refuse_attach_if({ErrorKind::kFailed, "attach", "too fast", ""},
                           [](const ProcessKey&, const ProbeOptions& options) { return options.frequency_hz > 100; });
  const auto changed = attach(kRedis, {.frequency_hz = 999, .children = false});
  ASSERT_FALSE(changed);
  EXPECT_EQ(changed.error().why, "too fast");
  EXPECT_EQ(attachments_->options(kRedis)->frequency_hz, 49);
  EXPECT_EQ(engine_.options(kRedis).frequency_hz, 49);
  EXPECT_EQ(attachments_->rows().at(0).frequency_hz, 49);
  work(kRedis, 5, 3);
  const auto ready = tick();
  ASSERT_EQ(ready.deltas.size(), 1U);
  EXPECT_EQ(ready.deltas[0].frequency_hz, 49);
  EXPECT_THAT(leaves(ready.deltas[0]), ElementsAre("f5=3"));
}

TEST_F(AttachmentsTest, WhereNoOptionsAreTakenAnyMoreTheAttachmentEnds) {
  ASSERT_TRUE(attach(kRedis, {.frequency_hz = 49, .children = false}));
  work(kRedis, 5);
  tick();
  engine_.refuse_attach({ErrorKind::kFailed, "attach", "the kernel has had enough", ""});
  EXPECT_FALSE(attach(kRedis, {.frequency_hz = 99, .children = false}));
  EXPECT_THAT(tick().detached, ElementsAre(kRedis)) << "never one that is listed and counts nothing";
  EXPECT_EQ(attachments_->size(), 0U);
  EXPECT_EQ(engine_.attached(), 0U);
}

TEST_F(AttachmentsTest, FullIsToldAndStopsNobodyWhoIsIn) {
  make({.attachments = 1, .stacks_per_process = 16});
  EXPECT_FALSE(attachments_->full());
  ASSERT_TRUE(attach(kRedis));
  EXPECT_TRUE(attachments_->full());
  attachments_->set_limits({.attachments = 2, .stacks_per_process = 16});
  EXPECT_FALSE(attachments_->full());
  ASSERT_TRUE(attach(kNginx));
  attachments_->set_limits({.attachments = 1, .stacks_per_process = 16});
  EXPECT_EQ(tick().deltas.size(), 2U) << "a lower limit throws nobody out";
}

TEST_F(AttachmentsTest, WhoHasNoProbeThatCouldBeLoadedNeedsNoPlace) {
  make({.attachments = 1, .stacks_per_process = 16});
  attachments_->set_load_beside();
  blocked_.hold_loading(true);
  ASSERT_TRUE(attach(kRedis, {}, {ProbeKind::kBlocked}));
  EXPECT_TRUE(attachments_->full()) << "it may come to count";
  blocked_.refuse_attach({ErrorKind::kUnsupported, "load the program", "the kernel refuses it", ""});
  blocked_.hold_loading(false);
  tick();
  EXPECT_FALSE(attachments_->full());
  EXPECT_FALSE(attachments_->takes_place(kRedis));
  EXPECT_THAT(attachments_->rows().at(0).problem, testing::HasSubstr("the kernel refuses it")) << "it tells why";
  ASSERT_TRUE(attach(kNginx));
  EXPECT_TRUE(attachments_->full());
}

TEST_F(AttachmentsTest, WhoIsRefusedIsALoss) {
  ASSERT_TRUE(attach(kRedis, {.frequency_hz = 99, .children = true}));
  engine_.adopt(kNginx, kRedis);
  const auto adopted = attachments_->take_adopted();
  ASSERT_EQ(adopted.size(), 1U);
  EXPECT_EQ(adopted[0].process, kNginx);
  EXPECT_EQ(adopted[0].parent, kRedis);
  attachments_->refuse(kNginx);
  EXPECT_FALSE(engine_.is_attached(kNginx));
  EXPECT_EQ(attachments_->total_losses()[LossReason::kWatchFull], 1U);
}

TEST_F(AttachmentsTest, WhatWasCountedBeforeAnAdoptedProcessHasAPlaceIsKept) {
  ASSERT_TRUE(attach(kRedis, {.frequency_hz = 10, .children = true}));
  engine_.adopt(kNginx, kRedis);
  work(kNginx, 5, 4);
  on_cpu_ns_ = 900'000'000;
  ASSERT_TRUE(attachments_->attach(identity(kNginx), sample(kNginx),
                                   {kNginx,
                                    {ProbeKind::kOnCpu},
                                    {.frequency_hz = 10, .children = true},
                                    {AttachReason::Kind::kChild, "redis", ""},
                                    true}));
  clock_.advance_s(1);
  ASSERT_TRUE(attachments_->collect(false));
  attachments_->set_on_cpu(sample(kNginx));
  auto ready = attachments_->take();
  const auto child = std::ranges::find(ready.deltas, kNginx, &NamedDelta::process);
  ASSERT_NE(child, ready.deltas.end());
  EXPECT_THAT(leaves(*child), ElementsAre("f5=4"));
  EXPECT_NEAR(child->exposure_s, 0.4, 1e-9) << "the CPU time before it had a place is not known";
}

TEST_F(AttachmentsTest, DestroyingItLeavesNothingAttached) {
  ASSERT_TRUE(attach(kRedis));
  ASSERT_TRUE(attach(kNginx));
  EXPECT_EQ(engine_.attached(), 2U);
  attachments_.reset();
  EXPECT_EQ(engine_.attached(), 0U);
}

TEST_F(AttachmentsTest, TwoProbesOfOneProcessHaveADeltaEach) {
  ASSERT_TRUE(attach(kRedis, {}, {ProbeKind::kOnCpu, ProbeKind::kBlocked}));
  EXPECT_TRUE(engine_.is_attached(kRedis));
  EXPECT_TRUE(blocked_.is_attached(kRedis));
  EXPECT_EQ(tick().deltas.size(), 2U);
  attachments_->end(kRedis, false);
  const auto ready = tick();
  EXPECT_EQ(ready.deltas.size(), 2U);
  EXPECT_THAT(ready.detached, ElementsAre(kRedis)) << "once";
}

}  // namespace
}  // namespace stackwatch
