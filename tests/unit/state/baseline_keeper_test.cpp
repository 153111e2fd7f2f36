// SPDX-License-Identifier: Apache-2.0
#include "daemon/state/baseline_keeper.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>

#include "daemon/state/baseline_blob.h"
#include "tests/fakes/fake_baseline_store.h"
#include "tests/fakes/fake_clock.h"
#include "tests/fakes/fake_source.h"

namespace stackwatch {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

const FakeSource::Counts kUsual = {{"parse", 80}, {"render", 20}};
const FakeSource::Counts kChanged = {{"parse", 40}, {"render", 60}};
constexpr int kSave = BaselineKeeper::kSaveS;
constexpr ProcessKey kRedis{4711, 10'000'000};
constexpr ProcessKey kRedisToo{4712, 20'000'000};
constexpr ProcessKey kNginx{99, 30'000'000};
const std::string kRedisService = "/usr/bin/redis-server\n\nprogram";
const std::string kNginxService = "/usr/sbin/nginx\n\nprogram";

/// Daemons one after the other, on one store and with the same processes.
class BaselineKeeperTest : public testing::Test {
 protected:
  BaselineKeeperTest() { start(); }
  /// A daemon that begins; the one before it ended as a crash does, unless save_all() was called.
  void start() {
    keeper_.reset();
    detection_.emplace(DetectionPolicy{}, DetectorSettings{});
    keeper_.emplace(*detection_, store_, clock_);
    keeper_->load(store_.newest_first());
    store_.written.clear();
  }
  void runs(const ProcessKey& process, const std::string& exe, const FakeSource::Counts& counts = kUsual) {
    source_.runs(process, exe);
    source_.does(process, counts);
  }
  /// What `composition` says first; nothing where it is silent.
  std::optional<Finding> tick(int ticks = 1) {
    for (int i = 0; i < ticks; ++i) {
      clock_.advance_s(1);
      std::optional<Finding> found;
      for (const Observation& observation : detection_->observe(source_.batch(), &source_)) {
        for (const Finding& finding : observation.findings) {
          if (finding.detector == "composition") found = finding;
        }
      }
      keeper_->tick();
      if (found) return found;
    }
    return std::nullopt;
  }

  FakeClock clock_;
  FakeSource source_;
  FakeBaselineStore store_;
  std::optional<Detection> detection_;
  std::optional<BaselineKeeper> keeper_;
};

TEST_F(BaselineKeeperTest, WhatCannotBeReadCostsOneServiceAndIsToldOnce) {
  runs(kRedis, "/usr/bin/redis-server");
  runs(kNginx, "/usr/sbin/nginx");
  ASSERT_FALSE(tick(200));
  keeper_->save_all();
  ASSERT_THAT(store_.rows, SizeIs(2));
  store_.rows[kNginxService].blob.pop_back();
  start();
  EXPECT_FALSE(detection_->baselines().get({kRedisService, ProbeKind::kOnCpu, "composition"}).empty());
  EXPECT_TRUE(detection_->baselines().get({kNginxService, ProbeKind::kOnCpu, "composition"}).empty());
  const auto event = keeper_->take_event();
  ASSERT_TRUE(event);
  EXPECT_THAT(event->message(), HasSubstr("of 1 services"));
  EXPECT_FALSE(keeper_->take_event());
  tick(20);
  EXPECT_FALSE(keeper_->take_event());
}

TEST_F(BaselineKeeperTest, AnotherVersionsIsLearnedAnew) {
  runs(kRedis, "/usr/bin/redis-server");
  ASSERT_FALSE(tick(200));
  keeper_->save_all();
  store_.rows[kRedisService].version = kBaselineBlobVersion + 1;
  start();
  EXPECT_THAT(detection_->baselines().all(), IsEmpty());
  EXPECT_THAT(keeper_->take_event()->message(), HasSubstr("another version"));
  ASSERT_FALSE(tick(200));
  keeper_->save_all();
  EXPECT_EQ(store_.rows[kRedisService].version, kBaselineBlobVersion) << "and written over";
}

TEST_F(BaselineKeeperTest, WhatADetectorRefusesIsToldOnce) {
  const LearnedPart part{ProbeKind::kOnCpu, "composition", "no baseline"};
  store_.put(Baseline{kRedisService, kBaselineBlobVersion, 1, encode_learned({&part, 1})});
  start();
  EXPECT_FALSE(keeper_->take_event()) << "nobody has looked into it yet";
  runs(kRedis, "/usr/bin/redis-server");
  ASSERT_FALSE(tick(5));
  EXPECT_THAT(keeper_->take_event()->message(), HasSubstr("learned anew"));
  EXPECT_FALSE(keeper_->take_event());
}

TEST_F(BaselineKeeperTest, AStoreThatDoesNotStoreIsLeftAloneAndGetsAllLater) {
  store_.works = false;
  runs(kRedis, "/usr/bin/redis-server");
  runs(kNginx, "/usr/sbin/nginx");
  ASSERT_FALSE(tick(400));
  source_.exits(kNginx);
  ASSERT_FALSE(tick(5));
  EXPECT_THAT(store_.written, IsEmpty());
  keeper_->save_all();
  EXPECT_THAT(store_.written, IsEmpty());
  store_.works = true;
  ASSERT_FALSE(tick(1));
  EXPECT_THAT(store_.written, UnorderedElementsAre(kRedisService, kNginxService));
  store_.rows.clear();
  keeper_->forget_written();  // it had lost what it was given
  ASSERT_FALSE(tick(1));
  EXPECT_THAT(store_.rows, SizeIs(2));
}

TEST_F(BaselineKeeperTest, WhatAFullQueueWouldNotTakeComesLater) {
  store_.accepts = false;
  runs(kNginx, "/usr/sbin/nginx");
  ASSERT_FALSE(tick(200));
  source_.exits(kNginx);
  ASSERT_FALSE(tick(1));
  store_.accepts = true;
  EXPECT_THAT(store_.rows, IsEmpty());
  ASSERT_FALSE(tick(kSave));
  EXPECT_THAT(store_.written, ElementsAre(kNginxService));
}

TEST_F(BaselineKeeperTest, AfterARestartTheProcessIsComparedWithWhatItDidBefore) {
  runs(kRedis, "/usr/bin/redis-server");
  ASSERT_FALSE(tick(200));
  keeper_->save_all();
  start();
  source_.does(kRedis, kChanged);
  const auto finding = tick(120);
  ASSERT_TRUE(finding);
  EXPECT_NEAR(finding->before, 0.2, 0.02);
  EXPECT_NEAR(finding->after, 0.6, 0.02);
}

TEST_F(BaselineKeeperTest, WithoutTheStoreItIsNot) {
  runs(kRedis, "/usr/bin/redis-server");
  ASSERT_FALSE(tick(200));
  store_.rows.clear();
  start();
  source_.does(kRedis, kChanged);
  EXPECT_FALSE(tick(200));
}

TEST_F(BaselineKeeperTest, AfterARestartWithoutAChangeItIsSilent) {
  runs(kRedis, "/usr/bin/redis-server");
  ASSERT_FALSE(tick(200));
  keeper_->save_all();
  start();
  EXPECT_FALSE(tick(600));
}

TEST_F(BaselineKeeperTest, ACrashCostsWhatWasLearnedInTheLastSeconds) {
  runs(kRedis, "/usr/bin/redis-server");
  ASSERT_FALSE(tick(200));
  store_.written.clear();
  ASSERT_FALSE(tick(kSave - 1));
  EXPECT_THAT(store_.written, SizeIs(testing::Le(1)));
  ASSERT_FALSE(tick(1));
  EXPECT_THAT(store_.written, ElementsAre(kRedisService));
  start();
  source_.does(kRedis, kChanged);
  EXPECT_TRUE(tick(120));
}

TEST_F(BaselineKeeperTest, WhatAProcessLeavesIsWrittenAtOnceAndItsSuccessorOfTheNextDaemonHasIt) {
  runs(kRedis, "/usr/bin/redis-server");
  ASSERT_FALSE(tick(200));
  store_.rows.clear();
  source_.exits(kRedis);
  ASSERT_FALSE(tick(1));
  EXPECT_TRUE(store_.rows.contains(kRedisService));
  start();
  runs(kRedisToo, "/usr/bin/redis-server", kChanged);
  EXPECT_TRUE(tick(120));
}

TEST_F(BaselineKeeperTest, WhatHasNotChangedIsNotWrittenAgain) {
  runs(kRedis, "/usr/bin/redis-server");
  ASSERT_FALSE(tick(200));
  keeper_->save_all();
  ASSERT_THAT(store_.written, Contains(kRedisService));
  store_.written.clear();
  keeper_->save_all();
  EXPECT_THAT(store_.written, IsEmpty());
  start();
  keeper_->save_all();
  EXPECT_THAT(store_.written, IsEmpty()) << "it is as it was read";
}

// Ticks are a second apart: what is on disk of young ones is never older than a pause and a tick.
TEST_F(BaselineKeeperTest, SavingIsSpreadOverTicksAndDoneInTime) {
  for (const int processes : {20, 300}) {
    start();
    for (int32_t i = 0; i < processes; ++i) runs({1000 + i, 10'000'000}, "/usr/bin/program-" + std::to_string(i));
    ASSERT_FALSE(tick(200));
    ASSERT_THAT(store_.rows, SizeIs(processes));
    const uint64_t now = clock_.realtime_ns();
    const size_t at_once = std::max(BaselineKeeper::kPerTick, static_cast<size_t>(processes) / kSave + 1);
    for (int i = 0; i < kSave + 1; ++i) {
      store_.written.clear();
      ASSERT_FALSE(tick());
      EXPECT_LE(store_.written.size(), at_once);
    }
    for (const auto& [service, row] : store_.rows) EXPECT_GE(row.updated_ns, now) << service;
  }
}

TEST_F(BaselineKeeperTest, WhatIsKnownWellIsSavedSeldom) {
  runs(kRedis, "/usr/bin/redis-server");
  ASSERT_FALSE(tick(200));
  const auto saves_in = [&](int ticks) {
    store_.written.clear();
    EXPECT_FALSE(tick(ticks));
    return store_.written.size();
  };
  EXPECT_GE(saves_in(64), 7U);
  ASSERT_FALSE(tick(3200));
  EXPECT_THAT(saves_in(200), testing::AllOf(testing::Ge(1U), testing::Le(2U))) << "a 32nd of an hour";
  ASSERT_FALSE(tick(20'000));
  EXPECT_THAT(saves_in(600), testing::AllOf(testing::Ge(1U), testing::Le(2U))) << "every 5 minutes";
}

TEST_F(BaselineKeeperTest, ASharedServiceIsTakenOutOfTheStoreAndNobodyInherits) {
  runs(kRedis, "/usr/bin/redis-server");
  ASSERT_FALSE(tick(200));
  keeper_->save_all();
  ASSERT_THAT(store_.rows, SizeIs(1));
  runs(kRedisToo, "/usr/bin/redis-server");
  store_.accepts = false;
  ASSERT_FALSE(tick(1));
  EXPECT_THAT(store_.rows, SizeIs(1)) << "its queue is full";
  store_.accepts = true;
  ASSERT_FALSE(tick(400));
  EXPECT_THAT(store_.rows, IsEmpty());
  EXPECT_THAT(store_.removed, ElementsAre(kRedisService)) << "once";
  keeper_->save_all();
  EXPECT_THAT(store_.rows, IsEmpty());
  start();
  source_.does(kRedis, kChanged);
  source_.does(kRedisToo, kChanged);
  EXPECT_FALSE(tick(200));
}

// More than memory has room for: what was written stays in the store when memory forgets it.
TEST_F(BaselineKeeperTest, WhatMemoryHasNoRoomForIsInTheStoreAllTheSame) {
  const std::string large(40'000, 'x');
  for (int i = 0; i < 200; ++i) {
    detection_->baselines().put({"service" + std::to_string(i), ProbeKind::kOnCpu, "composition"}, large);
    keeper_->tick();
  }
  EXPECT_GT(detection_->baselines().forgotten(), 0U);
  EXPECT_THAT(store_.rows, SizeIs(200));
  start();
  EXPECT_LE(detection_->baselines().bytes(), Baselines::kMaxBytes);
  EXPECT_TRUE(detection_->baselines().get({"service0", ProbeKind::kOnCpu, "composition"}).empty());
  EXPECT_FALSE(detection_->baselines().get({"service199", ProbeKind::kOnCpu, "composition"}).empty()) << "the newest";
}

TEST_F(BaselineKeeperTest, ProbesOfAServiceAreKeptTogether) {
  detection_->baselines().put({kRedisService, ProbeKind::kPageFault, "composition"}, "faults");
  runs(kRedis, "/usr/bin/redis-server");
  ASSERT_FALSE(tick(200));
  keeper_->save_all();
  const auto parts = decode_learned(store_.rows[kRedisService].blob);
  ASSERT_TRUE(parts);
  ASSERT_THAT(*parts, SizeIs(3));
  EXPECT_EQ((*parts)[0].detector, "composition");
  EXPECT_EQ((*parts)[1].detector, "rate/cores");
  EXPECT_EQ((*parts)[1].probe, ProbeKind::kOnCpu);
  EXPECT_EQ((*parts)[2], (LearnedPart{ProbeKind::kPageFault, "composition", "faults"}));
}

}  // namespace
}  // namespace stackwatch
