// SPDX-License-Identifier: Apache-2.0
#include "daemon/live_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/daemon/machine_fixture.h"

namespace stackwatch {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Kind = AttachReason::Kind;

class LiveSourceTest : public MachineTest {};

TEST_F(LiveSourceTest, ACensusThatFailsIsToldAndTheNextOneGoesOn) {
  config_.watch = {rule("redis")};
  census_.start(10, "redis");
  tick();
  tick();
  census_.fail_with(Error{ErrorKind::kFailed, "take a census", "the iterator is gone", ""});
  clock_.advance_s(1);
  const auto failed = source_->next();
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().why, "the iterator is gone");
  EXPECT_TRUE(is_attached(10)) << "who is not seen because nobody looked has not ended";
  census_.fail_with(std::nullopt);
  const auto batch = tick();
  EXPECT_THAT(batch.exits, IsEmpty());
  EXPECT_EQ(batch.deltas.size(), 1U);
}

TEST_F(LiveSourceTest, AKernelSideThatFailsIsToldAndTheNextTickGoesOn) {
  config_.watch = {rule("redis")};
  census_.start(10, "redis");
  tick();
  work(census_.key(10), 5, 3);
  engine_.fail_collect({ErrorKind::kFailed, "read the counts", "no", ""});
  clock_.advance_s(1);
  EXPECT_FALSE(source_->next());
  engine_.stop_failing();
  const auto batch = tick();
  ASSERT_EQ(batch.deltas.size(), 1U);
  EXPECT_THAT(leaves(batch.deltas[0]), ElementsAre("f5=3"));
}

TEST_F(LiveSourceTest, AnEmptyMachineIsATick) {
  const auto batch = tick();
  EXPECT_THAT(batch.samples, IsEmpty());
  EXPECT_THAT(batch.deltas, IsEmpty());
  EXPECT_EQ(source_->attach_problem(), "");
}

TEST_F(LiveSourceTest, WhoIsUnknownIsAPidAndNoMore) {
  tick();
  const ProcessIdentity nobody = source_->identify({77, 10'000'000});
  EXPECT_EQ(nobody.key.pid, 77);
  EXPECT_EQ(nobody.pid_in_ns, 77);
  EXPECT_EQ(nobody.comm, "");
  EXPECT_EQ(source_->losses({77, 10'000'000}, ProbeKind::kOnCpu), Losses{});
}

TEST_F(LiveSourceTest, RulesAttachWhoIsThereAndWhoComesLater) {
  config_.watch = {rule("redis*", false, 49)};
  census_.start(10, "redis-server");
  census_.start(11, "nginx");
  EXPECT_THAT(tick().deltas, IsEmpty());
  EXPECT_TRUE(is_attached(10));
  EXPECT_FALSE(is_attached(11));
  EXPECT_EQ(engine_.options(census_.key(10)), (ProbeOptions{.frequency_hz = 49, .children = false}));
  EXPECT_EQ(reason(10).kind, Kind::kRule);
  EXPECT_EQ(reason(10).rule, "rule-redis*");
  EXPECT_THAT(reason(10).text, HasSubstr("redis*"));
  census_.start(12, "redis-cli");
  work(census_.key(10), 5, 7);
  census_[10].on_cpu_ns += 140'000'000;
  const auto batch = tick();
  EXPECT_TRUE(is_attached(12));
  ASSERT_EQ(batch.deltas.size(), 1U);
  EXPECT_THAT(leaves(batch.deltas[0]), ElementsAre("f5=7"));
  EXPECT_NEAR(batch.deltas[0].exposure_s, 0.14, 1e-9);
  EXPECT_EQ(batch.samples.size(), 3U);
  EXPECT_EQ(source_->processes(), 3U);
  EXPECT_EQ(source_->tasks(), 3U);
  EXPECT_EQ(source_->identify(census_.key(11)).comm, "nginx") << "without being attached";
  EXPECT_TRUE(source_->has_process(11));
  EXPECT_FALSE(source_->has_process(13));
}

TEST_F(LiveSourceTest, AMissedTickTravelsWithTheNextDeltaAlone) {
  config_.watch = {rule("redis")};
  census_.start(10, "redis");
  tick();
  source_->mark_late();
  EXPECT_EQ(tick().deltas.at(0).lost[LossReason::kMissedTick], 1U);
  EXPECT_EQ(tick().deltas.at(0).lost[LossReason::kMissedTick], 0U);
}

TEST_F(LiveSourceTest, AnExitComesWithItsLastDeltaAndEverythingStillAnswers) {
  config_.watch = {rule("redis")};
  census_.start(10, "redis");
  tick();
  tick();
  const ProcessKey key = census_.key(10);
  work(key, 5, 2);
  engine_.lose(key, LossReason::kTruncated, 1);
  census_.end(10);
  const auto batch = tick();
  EXPECT_THAT(batch.exits, ElementsAre(key));
  EXPECT_THAT(batch.detached, IsEmpty());
  ASSERT_EQ(batch.deltas.size(), 1U);
  EXPECT_THAT(leaves(batch.deltas[0]), ElementsAre("f5=2"));
  EXPECT_EQ(source_->identify(key).comm, "redis");
  EXPECT_EQ(source_->losses(key, ProbeKind::kOnCpu)[LossReason::kTruncated], 1U);
  EXPECT_EQ(attachments_->size(), 0U);
  EXPECT_EQ(engine_.attached(), 0U);
  EXPECT_THAT(tick().exits, IsEmpty());
}

TEST_F(LiveSourceTest, AnExitWaitsForItsNames) {
  config_.watch = {rule("redis")};
  census_.start(10, "redis");
  tick();
  const ProcessKey key = census_.key(10);
  namer_.hold();
  work(key, 5, 2);
  census_.end(10);
  EXPECT_THAT(tick().exits, IsEmpty());
  EXPECT_THAT(tick().exits, IsEmpty());
  namer_.release();
  const auto batch = tick();
  EXPECT_EQ(batch.deltas.size(), 1U);
  EXPECT_THAT(batch.exits, ElementsAre(key));
  EXPECT_THAT(batch.detached, IsEmpty()) << "it did end";
}

TEST_F(LiveSourceTest, APidThatComesRoundIsAnotherProcess) {
  config_.watch = {rule("redis")};
  census_.start(10, "redis");
  run(2);
  const ProcessKey old = census_.key(10);
  census_.end(10);
  census_.start(10, "redis");
  const auto batch = tick();
  EXPECT_THAT(batch.exits, ElementsAre(old));
  EXPECT_NE(census_.key(10), old);
  EXPECT_TRUE(is_attached(10));
  EXPECT_EQ(attachments_->size(), 1U);
}

TEST_F(LiveSourceTest, AnotherProgramIsToldAsReplaced) {
  config_.watch = {rule("*")};
  census_.start(10, "sh");
  run(2);
  census_.execute(10, "sleep");
  EXPECT_THAT(tick().replaced, ElementsAre(census_.key(10)));
  EXPECT_EQ(source_->identify(census_.key(10)).comm, "sleep");
  EXPECT_THAT(tick().replaced, IsEmpty());
}

TEST_F(LiveSourceTest, WhoNoLongerMatchesIsDroppedAndChildrenOfTheParentStay) {
  config_.watch = {rule("forker", true)};
  census_.start(10, "forker");
  tick();
  // The child is called like its parent until it executes its own program.
  census_.start(11, "forker", 10);
  tick();
  ASSERT_EQ(reason(11).kind, Kind::kRule);
  engine_.adopt(census_.start(12, "worker", 10).key, census_.key(10));
  tick();
  ASSERT_EQ(reason(12).kind, Kind::kChild);
  census_.execute(12, "compiler");
  run(3);
  EXPECT_TRUE(is_attached(12)) << "a child, whatever it is called";

  config_.watch = {rule("forker", false)};
  source_->configure(config_);
  run(2);
  EXPECT_FALSE(is_attached(12));
  census_.execute(11, "other");
  tick();
  const auto batch = tick();
  EXPECT_THAT(batch.detached, ElementsAre(census_.key(11)));
  EXPECT_FALSE(is_attached(11));
  EXPECT_TRUE(is_attached(10));
}

TEST_F(LiveSourceTest, ARenamedProcessIsDropped) {
  config_.watch = {rule("redis")};
  census_.start(10, "redis");
  run(2);
  census_[10].comm = "other";
  run(2);
  EXPECT_FALSE(is_attached(10));
  census_[10].comm = "redis";
  tick();
  EXPECT_TRUE(is_attached(10));
}

TEST_F(LiveSourceTest, ChangedOptionsReachTheProcessAndItsChildren) {
  config_.watch = {rule("parent", true, 99)};
  census_.start(10, "parent");
  tick();
  engine_.adopt(census_.start(11, "child", 10).key, census_.key(10));
  run(2);
  ASSERT_EQ(reason(11).kind, Kind::kChild);
  config_.watch = {rule("parent", true, 49)};
  source_->configure(config_);
  const auto batch = tick();
  EXPECT_THAT(batch.detached, IsEmpty()) << "what was learned stays";
  EXPECT_EQ(engine_.options(census_.key(10)).frequency_hz, 49);
  EXPECT_EQ(engine_.options(census_.key(11)).frequency_hz, 49);
  EXPECT_EQ(reason(11).kind, Kind::kChild);

  config_.watch = {rule("parent", false, 49)};
  source_->configure(config_);
  tick();
  EXPECT_THAT(tick().detached, ElementsAre(census_.key(11)));
  EXPECT_FALSE(is_attached(11));
  EXPECT_FALSE(engine_.is_attached(census_.key(11)));
  EXPECT_TRUE(is_attached(10));
  EXPECT_FALSE(engine_.options(census_.key(10)).children);
}

TEST_F(LiveSourceTest, AnAlertKeepsWhatNoRuleAsksFor) {
  config_.watch = {rule("redis")};
  census_.start(10, "redis");
  make_source();
  bool alert = true;
  source_->set_keep([&](const ProcessKey& process) { return alert && process == census_.key(10); });
  run(2);
  config_.watch = {};
  source_->configure(config_);
  run(5);
  EXPECT_TRUE(is_attached(10));
  alert = false;
  run(2);
  EXPECT_FALSE(is_attached(10));
}

TEST_F(LiveSourceTest, WhoIsDroppedAndWantedAgainKeepsItsNames) {
  config_.watch = {rule("redis")};
  census_.start(10, "redis");
  run(2);
  const ProcessKey key = census_.key(10);
  config_.watch = {};
  source_->configure(config_);
  tick();
  config_.watch = {rule("redis")};
  source_->configure(config_);
  EXPECT_THAT(tick().detached, ElementsAre(key)) << "and attached again in the same tick";
  ASSERT_TRUE(is_attached(10));
  namer_.hold();
  work(key, 5, 4);
  tick();
  namer_.release();
  const auto batch = tick();
  ASSERT_FALSE(batch.deltas.empty());
  EXPECT_THAT(leaves(batch.deltas[0]), ElementsAre("f5=4"));
  EXPECT_EQ(attachments_->total_losses(), Losses{});
  EXPECT_TRUE(namer_.knows(key));
}

// ---- limits and refusals ----

TEST_F(LiveSourceTest, NoMoreThanTheLimitAndOneLineAboutIt) {
  config_.watch = {rule("*")};
  config_.limits.attachments = 3;
  for (int32_t pid = 10; pid < 20; ++pid) census_.start(pid, "p" + std::to_string(pid));
  run(3);
  EXPECT_EQ(attachments_->size(), 3U);
  EXPECT_EQ(engine_.attached(), 3U);
  EXPECT_THAT(source_->attach_problem(), HasSubstr("attachments"));
  EXPECT_THAT(source_->attach_problem(), ::testing::Not(HasSubstr("\n")));
  const std::string problem = source_->attach_problem();
  tick();
  EXPECT_EQ(source_->attach_problem(), problem) << "the same words, so that it is logged once";
  for (int32_t pid = 10; pid < 17; ++pid) census_.end(pid);
  run(2);
  EXPECT_EQ(attachments_->size(), 3U);
  EXPECT_EQ(source_->attach_problem(), "");
}

TEST_F(LiveSourceTest, WhoHasEndedNeedsNoPlaceThoughItsLastCountsAreToCome) {
  config_.watch = {rule("*")};
  config_.limits.attachments = 3;
  for (int32_t pid = 10; pid < 13; ++pid) census_.start(pid, "old");
  tick();
  work(census_.key(10), 5, 4);
  for (int32_t pid = 10; pid < 13; ++pid) census_.end(pid);
  for (int32_t pid = 20; pid < 24; ++pid) census_.start(pid, "new");
  ASSERT_TRUE(source_->attach_new());
  EXPECT_TRUE(is_attached(20));
  EXPECT_EQ(engine_.attached(), 6U) << "three places, and three that go";
  EXPECT_EQ(tick().exits.size(), 3U);
  EXPECT_EQ(attachments_->size(), 3U);
}

TEST_F(LiveSourceTest, AnAdoptedChildBeyondTheLimitIsRefusedAndCounted) {
  config_.watch = {rule("parent", true)};
  config_.limits.attachments = 1;
  census_.start(10, "parent");
  tick();
  const ProcessKey child = census_.start(11, "child", 10).key;
  engine_.adopt(child, census_.key(10));
  tick();
  EXPECT_FALSE(engine_.is_attached(child));
  EXPECT_EQ(attachments_->total_losses()[LossReason::kWatchFull], 1U);
  EXPECT_NE(source_->attach_problem(), "");
}

TEST_F(LiveSourceTest, WhoIsRefusedIsNotTriedAtEveryTick) {
  config_.watch = {rule("redis"), rule("nginx")};
  census_.start(10, "redis");
  census_.start(11, "nginx");
  engine_.refuse_attach_if(
      {ErrorKind::kFailed, "attach to process 10", "it is made of stone", ""},
      [this](const ProcessKey& process, const ProbeOptions&) { return process == census_.key(10); });
  run(10);
  EXPECT_FALSE(is_attached(10));
  EXPECT_TRUE(is_attached(11));
  EXPECT_EQ(engine_.refused(), 1U);
  EXPECT_THAT(source_->attach_problem(), HasSubstr("made of stone"));
  source_->configure(config_);
  tick();
  EXPECT_EQ(engine_.refused(), 2U) << "a reload tries again";
  census_.end(10);
  census_.start(20, "other");
  engine_.refuse_attach_if({}, [](const auto&, const auto&) { return false; });
  run(2);
  EXPECT_EQ(source_->attach_problem(), "") << "who has ended is no problem";
}

TEST_F(LiveSourceTest, OptionsThatAreRefusedLeaveTheOldOnes) {
  config_.watch = {rule("redis", false, 49)};
  census_.start(10, "redis");
  run(2);
  engine_.refuse_attach_if({ErrorKind::kFailed, "attach", "too fast", ""},
                           [](const ProcessKey&, const ProbeOptions& options) { return options.frequency_hz > 500; });
  config_.watch = {rule("redis", false, 999)};
  source_->configure(config_);
  run(3);
  EXPECT_TRUE(is_attached(10));
  EXPECT_EQ(engine_.options(census_.key(10)).frequency_hz, 49);
  EXPECT_THAT(source_->attach_problem(), HasSubstr("too fast"));
  work(census_.key(10), 5, 2);
  EXPECT_THAT(leaves(tick().deltas.at(0)), ElementsAre("f5=2"));
}

// ---- suspects and the ranking ----

class SuspectTest : public MachineTest {
 protected:
  SuspectTest() { config_.ranking.max_suspects = 2; }
  void burn(int32_t pid, int seconds, double cores = 3) {
    for (int i = 0; i < seconds; ++i) {
      census_[pid].on_cpu_ns += static_cast<uint64_t>(cores * 1e9);
      tick();
    }
  }
};

TEST_F(SuspectTest, ASuspectIsAttachedWithAReasonAndDroppedAfterItsTime) {
  census_.start(10, "busy").threads = 8;
  census_.start(11, "idle");
  burn(10, 10);
  ASSERT_TRUE(is_attached(10));
  EXPECT_FALSE(is_attached(11));
  EXPECT_EQ(reason(10).kind, Kind::kSuspect);
  EXPECT_THAT(reason(10).text, HasSubstr("suspect: "));
  EXPECT_EQ(source_->suspects(), 1U);
  run(200);
  EXPECT_FALSE(is_attached(10));
}

TEST_F(SuspectTest, ARuleTakesASuspectOverAndASuspicionTakesOverFromARule) {
  census_.start(10, "busy").threads = 8;
  burn(10, 10);
  ASSERT_EQ(reason(10).kind, Kind::kSuspect);
  config_.watch = {rule("busy", false, 49)};
  source_->configure(config_);
  burn(10, 1);
  EXPECT_EQ(reason(10).kind, Kind::kRule);
  EXPECT_EQ(engine_.options(census_.key(10)).frequency_hz, 49);
  config_.watch = {};
  source_->configure(config_);
  burn(10, 2);
  ASSERT_TRUE(is_attached(10));
  EXPECT_EQ(reason(10).kind, Kind::kSuspect);
}

TEST_F(SuspectTest, ASuspectsChildrenAreNotAttached) {
  census_.start(10, "busy").threads = 8;
  census_.start(11, "child", 10);
  burn(10, 10);
  ASSERT_TRUE(is_attached(10));
  EXPECT_FALSE(is_attached(11));
}

TEST_F(SuspectTest, RankingByScoreAndByMetric) {
  census_.start(10, "busy").threads = 8;
  census_.start(11, "big").rss_bytes = 1U << 30U;
  census_[11].nice = 5;
  burn(10, 10, 1.5);
  const auto wrong = source_->ranking(10, "beauty");
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().kind, ErrorKind::kUsage);
  EXPECT_THAT(wrong.error().hint, HasSubstr("run_queue"));
  const auto best = source_->ranking(1, "");
  ASSERT_TRUE(best);
  ASSERT_EQ(best->size(), 1U);
  EXPECT_EQ(best->at(0).process.comm, "busy");
  EXPECT_NEAR(best->at(0).on_cpu_cores, 1.5, 0.2);
  EXPECT_TRUE(best->at(0).suspect);
  EXPECT_EQ(best->at(0).threads, 8U);
  const auto by_size = source_->ranking(10, "rss");
  ASSERT_TRUE(by_size);
  ASSERT_EQ(by_size->size(), 2U);
  EXPECT_EQ(by_size->at(0).process.comm, "big");
  EXPECT_EQ(by_size->at(0).rss_bytes, 1U << 30U);
  EXPECT_EQ(by_size->at(0).nice, 5);
  EXPECT_EQ(source_->ranking(10, "score")->at(0).process.comm, "busy");
  EXPECT_THAT(*source_->ranking(0, ""), IsEmpty());
}

}  // namespace
}  // namespace stackwatch
