// SPDX-License-Identifier: Apache-2.0
#include "cli/count_session.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "tests/fakes/fake_census.h"
#include "tests/fakes/fake_clock.h"
#include "tests/fakes/fake_namer.h"
#include "tests/fakes/fake_probe.h"

namespace stackwatch {
namespace {

class CountSessionTest : public testing::Test {
 protected:
  void make(bool children = false) {
    attachments_.emplace(Attachments::Engines{&engine_}, namer_, functions_, clock_, limits_);
    session_.emplace(CountSession::Parts{census_, *attachments_, functions_, Procfs("/nonexistent")}, clock_,
                     std::vector{ProbeKind::kOnCpu}, ProbeOptions{.frequency_hz = 100, .children = children});
  }
  Result<void> attach(std::vector<int32_t> pids) { return session_->attach(pids); }
  void work(const ProcessKey& process, uint64_t leaf, int64_t samples) {
    engine_.tell(process, StackHash{leaf}, {.exec = {}, .user_frames = {leaf, 1}, .kernel_frames = {}});
    engine_.count(process, StackHash{leaf}, samples);
  }
  void finish() {
    clock_.advance_s(1);
    EXPECT_TRUE(session_->finish());
    session_->take();
  }
  static int64_t total(const CountReport& report, int32_t pid) {
    for (const auto& process : report.processes) {
      if (process.identity.key.pid == pid) return process.probes.at(0).total;
    }
    return -1;
  }

  FakeClock clock_;
  FunctionTable functions_;
  FakeNamer namer_{functions_};
  FakeProbeEngine engine_{clock_};
  FakeCensus census_;
  AttachmentLimits limits_;
  std::optional<Attachments> attachments_;
  std::optional<CountSession> session_;
};

TEST_F(CountSessionTest, WhoIsNotThereOrTheKernelsIsAnError) {
  make();
  census_.start(2, "kthreadd").kernel_thread = true;
  EXPECT_EQ(attach({99}).error().message(), "process 99: it is not in the census (it may have ended just now)");
  EXPECT_EQ(attach({2}).error().message(), "process 2: it is a thread of the kernel");
  census_.fail_with(Error{ErrorKind::kFailed, "take a census", "no", ""});
  EXPECT_EQ(attach({99}).error().message(), "take a census: no");
}

TEST_F(CountSessionTest, IntervalsAreCutAndTheLastPartIsThere) {
  make();
  census_.start(10, "a");
  ASSERT_TRUE(attach({10}));
  const ProcessKey a = census_.key(10);
  work(a, 7, 3);
  clock_.advance_s(2);
  ASSERT_TRUE(session_->cut());
  work(a, 7, 4);
  clock_.advance_s(1);
  finish();
  const auto first = session_->take_report();
  const auto second = session_->take_report();
  ASSERT_TRUE(first && second);
  EXPECT_FALSE(session_->take_report());
  EXPECT_EQ(total(*first, 10), 3);
  EXPECT_DOUBLE_EQ(first->seconds, 2);
  EXPECT_EQ(total(*second, 10), 4);
  EXPECT_DOUBLE_EQ(second->seconds, 2);
  EXPECT_TRUE(session_->done());
  EXPECT_EQ(engine_.attached(), 0U);
}

TEST_F(CountSessionTest, AnIntervalWaitsForItsNamesAndTheNextOneKeepsItsOwn) {
  make();
  census_.start(10, "a");
  ASSERT_TRUE(attach({10}));
  const ProcessKey a = census_.key(10);
  namer_.hold();
  work(a, 7, 3);
  clock_.advance_s(1);
  ASSERT_TRUE(session_->cut());
  EXPECT_FALSE(session_->take_report()) << "its names are still out";
  work(a, 8, 5);
  clock_.advance_s(1);
  ASSERT_TRUE(session_->collect());
  namer_.release();
  session_->take();
  const auto report = session_->take_report();
  ASSERT_TRUE(report);
  EXPECT_EQ(total(*report, 10), 3);
  finish();
  EXPECT_EQ(total(*session_->take_report(), 10), 5);
}

TEST_F(CountSessionTest, WhoEndsHasItsLastCountsAndIsNotInLaterIntervals) {
  make();
  census_.start(10, "a");
  census_.start(11, "b");
  ASSERT_TRUE(attach({10, 11}));
  work(census_.key(10), 7, 3);
  census_.end(10);
  ASSERT_TRUE(session_->look_around());
  clock_.advance_s(1);
  ASSERT_TRUE(session_->cut());
  finish();
  const auto first = session_->take_report();
  const auto second = session_->take_report();
  EXPECT_EQ(total(*first, 10), 3);
  EXPECT_EQ(second->processes.size(), 1U);
}

TEST_F(CountSessionTest, AnotherProgramInTheSameProcessHasItsName) {
  make();
  census_.start(10, "sh");
  ASSERT_TRUE(attach({10}));
  census_.execute(10, "redis-server");
  ASSERT_TRUE(session_->look_around());
  finish();
  EXPECT_EQ(session_->take_report()->processes.at(0).identity.comm, "redis-server");
}

TEST_F(CountSessionTest, ChildrenComeInByTheCensusAndByTheirFirstSample) {
  make(true);
  census_.start(10, "make");
  ASSERT_TRUE(attach({10}));
  const ProcessKey parent = census_.key(10);
  census_.start(11, "sleeps", 10);
  census_.start(12, "grandchild", 11);
  census_.start(50, "stranger", 1);
  ASSERT_TRUE(session_->look_around());
  EXPECT_EQ(engine_.attached(), 3U);
  const ProcessKey quick{13, 99'000'000};  // lives between two censuses
  engine_.adopt(quick, parent);
  work(quick, 7, 6);
  clock_.advance_s(1);
  ASSERT_TRUE(session_->collect());
  work(quick, 7, 2);
  finish();
  const auto report = session_->take_report();
  ASSERT_TRUE(report);
  EXPECT_EQ(total(*report, 13), 8);
  EXPECT_EQ(total(*report, 12), 0);
  EXPECT_EQ(total(*report, 50), -1);
  EXPECT_EQ(report->processes.at(3).identity.comm, "make") << "until a census tells: what its parent is called";
}

TEST_F(CountSessionTest, ChildrenFoundByTheVeryLastCollectAreCounted) {
  make(true);
  census_.start(10, "make");
  ASSERT_TRUE(attach({10}));
  const ProcessKey quick{13, 99'000'000};
  engine_.adopt(quick, census_.key(10));
  work(quick, 7, 6);
  finish();
  EXPECT_EQ(total(*session_->take_report(), 13), 6);
  EXPECT_EQ(engine_.attached(), 0U);
}

TEST_F(CountSessionTest, ChildrenBeyondTheBoundAreALoss) {
  limits_.attachments = 2;
  make(true);
  census_.start(10, "make");
  ASSERT_TRUE(attach({10}));
  census_.start(11, "a", 10);
  census_.start(12, "b", 10);
  census_.start(13, "c", 10);
  ASSERT_TRUE(session_->look_around());
  ASSERT_TRUE(session_->look_around());  // they are not counted twice
  finish();
  EXPECT_EQ(losses_of(*session_->take_report(), ProbeKind::kOnCpu)[LossReason::kWatchFull], 2U);
}

TEST(CountLedgerTest, PastItsBoundsNothingIsLostSilently) {
  FunctionTable functions;
  StackTable stacks;
  CountLedger ledger(3, 2);
  ledger.begin(0, 0);
  const auto add = [&](int32_t pid, const std::string& name, int64_t value) {
    const std::vector<FunctionId> frames{functions.intern("x", name)};
    NamedDelta delta;
    delta.process = {pid, 1};
    delta.time_s = 0.5;
    delta.stacks = &stacks;
    delta.functions = &functions;
    delta.values = {{stacks.intern(frames), value}};
    ledger.add(delta);
  };
  for (int32_t pid = 1; pid <= 4; ++pid) {
    ProcessIdentity identity;
    identity.key = {pid, 1};
    identity.comm = "p";
    ledger.enter(identity, {ProbeKind::kOnCpu}, 100);
    add(pid, "a" + std::to_string(pid), 10);
    add(pid, "b" + std::to_string(pid), 1);
  }
  ledger.close(1, 1, 1);
  const auto report = ledger.take_complete(1.5);
  ASSERT_TRUE(report);
  ASSERT_EQ(report->processes.size(), 3U);
  EXPECT_EQ(report->processes[2].identity.comm, "[other]");
  int64_t sum = 0;
  for (const auto& process : report->processes) sum += process.probes.at(0).total;
  EXPECT_EQ(sum, 44);
  // Two stacks have names; the other two of the first processes and all four of the others do not.
  EXPECT_EQ(losses_of(*report, ProbeKind::kOnCpu)[LossReason::kStacksFull], 33U);
}

TEST(CountLedgerTest, LossesAreLines) {
  Losses lost;
  EXPECT_EQ(losses_line(lost), "");
  lost[LossReason::kMapFull] = 3;
  lost[LossReason::kTruncated] = 1;
  EXPECT_EQ(losses_line(lost), "3 map_full, 1 truncated");
}

}  // namespace
}  // namespace stackwatch
