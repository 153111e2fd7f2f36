// SPDX-License-Identifier: Apache-2.0
// One cause in ten workers of a service is one alert that lists ten processes.
#include <gmock/gmock.h>

#include "daemon/alerting/message.h"
#include "tests/unit/alerting/policy_fixture.h"

namespace stackwatch {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class WorkersTest : public PolicyTest {
 protected:
  static ProcessKey worker(int i) { return {5000 + i, 30'000'000}; }

  Finding slow(double onset_s = -1) { return composition({"main", "serve", "lookup"}, 0.1, 0.3, onset_s); }

  /// `seconds` ticks in which the workers first to last - 1 say the same.
  std::vector<Alert> run_workers(int seconds, int first, int last, const std::vector<Finding>& findings,
                                 std::vector<ProcessKey> exits = {}) {
    std::vector<Alert> changed;
    for (int s = 0; s < seconds; ++s) {
      std::vector<Observation> observations;
      for (int i = first; i < last; ++i) observations.push_back(observation(worker(i), findings));
      for (Alert& alert : tick(std::move(observations), s == 0 ? exits : std::vector<ProcessKey>{})) {
        changed.push_back(std::move(alert));
      }
    }
    return changed;
  }

  Alert only() const {
    const auto all = policy_->all();
    EXPECT_THAT(all, SizeIs(1));
    return all.empty() ? Alert{} : all[0];
  }

  [[nodiscard]] int64_t offset_ns() const { return static_cast<int64_t>(clock_.realtime_ns() - clock_.monotonic_ns()); }

  void other_service(const ProcessKey& process, const ProcessIdentity& identity) { identities_[process] = identity; }
};

TEST_F(WorkersTest, TenWorkersAreOneAlertThatListsThem) {
  const auto changed = run_workers(10, 0, 10, {slow()});
  ASSERT_THAT(changed, SizeIs(1));
  ASSERT_THAT(changed[0].processes, SizeIs(10)) << "all that fire in one tick are in what is told";
  for (int i = 0; i < 10; ++i) EXPECT_EQ(changed[0].processes[static_cast<size_t>(i)].process.key, worker(i));
  EXPECT_EQ(changed[0].process.key, worker(0));
  EXPECT_EQ(policy_->firing(), 1U);
  EXPECT_EQ(policy_->pending(), 0U);
  EXPECT_EQ(policy_->counters().joined, 9U);
  EXPECT_THAT(policy_->standing(), SizeIs(1));
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(policy_->concerns(worker(i))) << "each stays watched";
  EXPECT_THAT(message_of(changed[0]), HasSubstr("redis-server[5000] and 9 more: lookup takes"));
}

// Pages take longer to be cleared, say: nothing of the programs.
TEST_F(WorkersTest, OneFunctionOfTheKernelInProgramsThatKnowNothingOfEachOtherIsOneAlert) {
  const Finding clears = composition({"main", "fault_[k]", "handle_[k]", "allocate_[k]", "clear_page_[k]"}, 0.01, 0.1);
  for (int i = 0; i < 3; ++i) {
    const std::string name = "program" + std::to_string(i);
    other_service(worker(i), {worker(i), 5000 + i, name, "/usr/bin/" + name, "/" + name, name + ".service"});
  }
  const auto changed = run_workers(10, 0, 3, {clears});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_THAT(changed[0].processes, SizeIs(3));
  EXPECT_EQ(changed[0].processes[2].process.comm, "program2");
}

// What comes and goes on the machine is seen here and there.
TEST_F(WorkersTest, AFunctionOfTheKernelThatComesBackElsewhereCoolsDownAsOne) {
  const Finding clears = composition({"main", "fault_[k]", "handle_[k]", "allocate_[k]", "clear_page_[k]"}, 0.01, 0.1);
  other_service(worker(1), {worker(1), 5001, "nginx", "/usr/sbin/nginx", "/nginx", "nginx.service"});
  EXPECT_THAT(run_workers(10, 0, 1, {clears}), SizeIs(1));
  EXPECT_THAT(run_workers(30, 0, 1, {}), SizeIs(1)) << "over";
  EXPECT_THAT(run_workers(30, 1, 2, {clears}), IsEmpty());
  EXPECT_EQ(policy_->counters().fired, 1U);
}

TEST_F(WorkersTest, WaitingInOneFunctionOfTheKernelIsWaitingForDifferentThings) {
  other_service(worker(1), {worker(1), 5001, "nginx", "/usr/sbin/nginx", "/nginx", "nginx.service"});
  Finding waits = composition({"main", "enter_[k]", "do_syscall_[k]", "futex_[k]", "do_wait_[k]"}, 0.01, 0.1);
  waits.detector = "wait";
  waits.probe = ProbeKind::kBlocked;
  waits.unit_of_measure = "threads waiting";
  size_t told = 0;
  for (int s = 0; s < 10; ++s) {
    Observation first = observation(worker(0), {waits});
    Observation second = observation(worker(1), {waits});
    first.probe = second.probe = ProbeKind::kBlocked;
    told += tick({first, second}).size();
  }
  EXPECT_EQ(told, 2U);
}

TEST_F(WorkersTest, TwoProgramsThatAskMoreOfTheKernelAreTwoAlerts) {
  const auto asks = [this](std::initializer_list<const char*> stack) { return composition(stack, 0.01, 0.1); };
  const std::vector<Finding> findings{
      asks({"main", "enter_[k]", "do_syscall_[k]"}),
      asks({"main", "entry_SYSCALL_64_after_hwframe_[k]", "do_syscall_64_[k]", "__x64_sys_read_[k]"}),
      asks({"main", "entry_SYSCALL_64_[k]", "do_syscall_64_[k]", "x64_sys_call_[k]", "__x64_sys_write_[k]"}),
      asks({"main", "el0t_64_sync_[k]", "el0t_64_sync_handler_[k]", "el0_svc_[k]", "do_el0_svc_[k]",
            "invoke_syscall.constprop.0_[k]", "__arm64_sys_read_[k]"}),
      asks({"main", "asm_exc_page_fault_[k]", "exc_page_fault_[k]", "do_user_addr_fault_[k]"})};
  for (const Finding& finding : findings) {
    make_policy({});
    other_service(worker(1), {worker(1), 5001, "nginx", "/usr/sbin/nginx", "/nginx", "nginx.service"});
    EXPECT_THAT(run_workers(10, 0, 2, {finding}), SizeIs(2)) << functions_[*finding.frame].name;
  }
}

TEST_F(WorkersTest, WhatIsBehindIsTheMachinesWhereverProgramsEnterTheKernel) {
  const auto does = [this](std::initializer_list<const char*> stack) { return composition(stack, 0.01, 0.1); };
  const std::vector<Finding> findings{
      does({"main", "entry_SYSCALL_64_after_hwframe_[k]", "do_syscall_64_[k]", "__x64_sys_read_[k]", "vfs_read_[k]"}),
      does({"main", "el0t_64_sync_[k]", "el0t_64_sync_handler_[k]", "el0_da_[k]", "do_mem_abort_[k]",
            "do_page_fault_[k]", "handle_mm_fault_[k]"}),
      does({"main", "asm_exc_page_fault_[k]", "exc_page_fault_[k]", "do_user_addr_fault_[k]", "do_fault_[k]"})};
  for (const Finding& finding : findings) {
    make_policy({});
    other_service(worker(1), {worker(1), 5001, "nginx", "/usr/sbin/nginx", "/nginx", "nginx.service"});
    EXPECT_THAT(run_workers(10, 0, 2, {finding}), SizeIs(1)) << functions_[*finding.frame].name;
  }
}

TEST_F(WorkersTest, OneNameInTwoProgramsIsNotOneFunction) {
  other_service(worker(1), {worker(1), 5001, "nginx", "/usr/sbin/nginx", "/nginx", "nginx.service"});
  EXPECT_THAT(run_workers(10, 0, 2, {slow()}), SizeIs(2));
}

TEST_F(WorkersTest, AnotherFunctionOfTheKernelIsAnotherAlert) {
  other_service(worker(1), {worker(1), 5001, "nginx", "/usr/sbin/nginx", "/nginx", "nginx.service"});
  const Finding clears = composition({"main", "fault_[k]", "handle_[k]", "allocate_[k]", "clear_page_[k]"}, 0.01, 0.1);
  const Finding copies = composition({"main", "fault_[k]", "handle_[k]", "allocate_[k]", "copy_page_[k]"}, 0.01, 0.1);
  size_t told = 0;
  for (int s = 0; s < 10; ++s) {
    told += tick({observation(worker(0), {clears}), observation(worker(1), {copies})}).size();
  }
  EXPECT_EQ(told, 2U);
}

TEST_F(WorkersTest, WorkersThatFollowAreAddedAndNothingIsToldAgain) {
  ASSERT_THAT(run_workers(6, 0, 1, {slow()}), SizeIs(1));
  const uint64_t told_ns = only().updated_ns;
  EXPECT_THAT(run_workers(20, 0, 4, {slow(onset_s_ + 40)}), IsEmpty());
  EXPECT_THAT(only().processes, SizeIs(4));
  EXPECT_GT(only().updated_ns, told_ns);
  EXPECT_EQ(only().id, "000000000001");
}

TEST_F(WorkersTest, TheFirstOnesVerdictDoesNotTakeTheAlarmOfOthersAway) {
  ASSERT_THAT(run_workers(6, 0, 3, {slow()}), SizeIs(1));
  Finding moved = slow();
  moved.shift = CostShift{CostShift::Kind::kRenamed, function("find"), function("lookup"), function("serve"), {}};
  for (int s = 0; s < 5; ++s) {
    EXPECT_THAT(
        tick({observation(worker(0), {moved}), observation(worker(1), {slow()}), observation(worker(2), {slow()})}),
        IsEmpty());
  }
  EXPECT_TRUE(only().is_firing());
  EXPECT_FALSE(only().shift);
  EXPECT_THAT(only().processes, SizeIs(3));
}

TEST_F(WorkersTest, AWorkerThatReallyGrowsDoesNotFollowTheVerdictOfTheOthers) {
  Finding moved = slow();
  moved.shift = CostShift{CostShift::Kind::kRenamed, function("find"), function("lookup"), function("serve"), {}};
  const auto told = run_workers(6, 0, 3, {moved});
  ASSERT_THAT(told, SizeIs(1));
  ASSERT_EQ(told[0].state, AlertState::kResolved);
  std::vector<Alert> changed;
  for (int s = 0; s < 20; ++s) {
    for (Alert& alert :
         tick({observation(worker(0), {moved}), observation(worker(1), {slow()}), observation(worker(2), {slow()})})) {
      changed.push_back(std::move(alert));
    }
  }
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_TRUE(changed[0].is_firing());
  EXPECT_FALSE(changed[0].shift);
  EXPECT_NE(changed[0].id, told[0].id);
  EXPECT_EQ(changed[0].process.key, worker(1));
  EXPECT_THAT(changed[0].processes, SizeIs(2)) << "the third grows too";
  const Alert shift = policy_->find(told[0].id).value();
  EXPECT_TRUE(shift.processes[0].stands);
  EXPECT_FALSE(shift.processes[1].stands);
  const auto over = run_workers(30, 0, 3, {});
  ASSERT_THAT(over, SizeIs(1));
  EXPECT_EQ(over[0].id, changed[0].id);
}

TEST_F(WorkersTest, AVerdictThatWaversWithinThePersistenceDoesNotPart) {
  Finding moved = slow();
  moved.shift = CostShift{CostShift::Kind::kRenamed, function("find"), function("lookup"), function("serve"), {}};
  ASSERT_THAT(run_workers(6, 0, 2, {moved}), SizeIs(1));
  for (int s = 0; s < 3; ++s) tick({observation(worker(0), {moved}), observation(worker(1), {slow()})});
  EXPECT_THAT(run_workers(20, 0, 2, {moved}), IsEmpty());
  EXPECT_EQ(policy_->firing(), 0U);
  EXPECT_THAT(policy_->all(), SizeIs(1));
}

TEST_F(WorkersTest, AWorkerWhoseChangeGoesAwayWithinThePersistenceDoesNotJoin) {
  run_workers(6, 0, 1, {slow()});
  run_workers(3, 0, 2, {slow()});
  run_workers(6, 0, 1, {slow()});
  tick({observation(worker(1), {})});
  EXPECT_THAT(only().processes, SizeIs(1));
}

TEST_F(WorkersTest, ResolvedWhenAllHaveEnded) {
  ASSERT_THAT(run_workers(6, 0, 3, {slow()}), SizeIs(1));
  // The first one, whose alert it is, goes back; the others do not.
  std::vector<Alert> changed;
  for (int s = 0; s < 30; ++s) {
    for (Alert& alert :
         tick({observation(worker(0), {}), observation(worker(1), {slow()}), observation(worker(2), {slow()})})) {
      changed.push_back(std::move(alert));
    }
  }
  EXPECT_THAT(changed, IsEmpty());
  EXPECT_EQ(policy_->firing(), 1U);
  EXPECT_FALSE(only().processes[0].stands);
  EXPECT_TRUE(only().processes[1].stands);

  EXPECT_THAT(tick({observation(worker(2), {slow()})}, {worker(1)}), IsEmpty());
  EXPECT_FALSE(only().processes[1].stands);
  for (int s = 0; s < 30; ++s) {
    for (Alert& alert : tick({observation(worker(0), {}), observation(worker(2), {})})) {
      changed.push_back(std::move(alert));
    }
  }
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].state, AlertState::kResolved);
  EXPECT_EQ(changed[0].resolution, kBackToBaseline);
  EXPECT_THAT(changed[0].processes, SizeIs(3)) << "whom it was about stays told";
  EXPECT_EQ(policy_->firing(), 0U);
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(policy_->concerns(worker(i)));
}

TEST_F(WorkersTest, AMemberThatComesBackTakesItsPlaceAgain) {
  run_workers(6, 0, 2, {slow()});
  for (int s = 0; s < 20; ++s) tick({observation(worker(0), {}), observation(worker(1), {slow()})});
  ASSERT_FALSE(only().processes[0].stands);
  run_workers(6, 0, 2, {slow()});
  EXPECT_TRUE(only().processes[0].stands);
  for (int s = 0; s < 20; ++s) tick({observation(worker(0), {slow()}), observation(worker(1), {})});
  EXPECT_FALSE(only().processes[1].stands);
  run_workers(6, 0, 2, {slow()});
  EXPECT_TRUE(only().processes[1].stands);
  EXPECT_THAT(only().processes, SizeIs(2));
}

TEST_F(WorkersTest, AllExitAtOnce) {
  run_workers(6, 0, 3, {slow()});
  const auto changed = tick({}, {worker(0), worker(1), worker(2)});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].resolution, kProcessExited);
  EXPECT_EQ(policy_->firing(), 0U);
  EXPECT_THAT(tick({}), IsEmpty());
}

TEST_F(WorkersTest, AnotherServiceFunctionDirectionOrTimeIsAnotherAlert) {
  const ProcessKey other{77, 1}, script{78, 1}, unknown{79, 1}, down{80, 1}, late{81, 1}, encode{82, 1};
  const ProcessIdentity redis = identify(worker(0));
  ProcessIdentity identity = redis;
  identity.unit = "redis@2.service";
  other_service(other, identity);
  identity = redis;
  identity.comm = "cron";
  other_service(script, identity);
  identity = redis;
  identity.exe.clear();
  other_service(unknown, identity);
  const Finding shrunk = composition({"main", "serve", "lookup"}, 0.3, 0.1);
  std::vector<Alert> changed;
  for (int s = 0; s < 8; ++s) {
    for (Alert& alert :
         tick({observation(worker(0), {slow()}), observation(other, {slow()}), observation(script, {slow()}),
               observation(unknown, {slow()}), observation(down, {shrunk}), observation(late, {slow(onset_s_ - 200)}),
               observation(encode, {composition({"main", "encode"})})})) {
      changed.push_back(std::move(alert));
    }
  }
  EXPECT_THAT(changed, SizeIs(7));
}

TEST_F(WorkersTest, ACallerOrCalleeOnTheSameStackIsTheSameCause) {
  run_workers(6, 0, 1, {slow()});
  EXPECT_THAT(run_workers(8, 1, 2, {composition({"main", "serve"})}), IsEmpty());
  EXPECT_THAT(run_workers(8, 2, 3, {composition({"main", "serve", "lookup", "compare"})}), IsEmpty());
  EXPECT_THAT(only().processes, SizeIs(3));
}

TEST_F(WorkersTest, WholeProcessesThatChangeAlikeAreOneAlert) {
  EXPECT_THAT(run_workers(8, 0, 4, {rate()}), SizeIs(1));
  EXPECT_THAT(only().processes, SizeIs(4));
}

TEST_F(WorkersTest, TheListIsBoundedAndTheRestCounted) {
  EXPECT_THAT(run_workers(8, 0, 50, {slow()}), SizeIs(1));
  EXPECT_THAT(only().processes, SizeIs(32));
  EXPECT_EQ(only().processes_omitted, 18U);
  EXPECT_EQ(only().process_count(), 50U);
  // One without a place that goes and comes back is not counted twice.
  for (int s = 0; s < 20; ++s) {
    tick({observation(worker(49), {}), observation(worker(0), {slow()})});
  }
  run_workers(8, 49, 50, {slow()});
  EXPECT_EQ(only().processes_omitted, 18U);
}

TEST_F(WorkersTest, DuringTheCooldownNoWorkerMakesANewAlert) {
  run_workers(6, 0, 3, {slow()});
  run_workers(20, 0, 3, {});
  ASSERT_EQ(policy_->firing(), 0U);
  onset_s_ = now_s();
  EXPECT_THAT(run_workers(60, 0, 3, {slow()}), IsEmpty()) << "none of the three";
  const auto changed = run_workers(300, 0, 3, {slow()});
  ASSERT_THAT(changed, SizeIs(1)) << "after it they are one alert again, under the old id";
  EXPECT_EQ(changed[0].id, "000000000001");
  EXPECT_THAT(only().processes, SizeIs(3));
}

TEST_F(WorkersTest, AfterARestartMembersStandUntilTheyEnd) {
  run_workers(6, 0, 3, {slow()});
  for (int s = 0; s < 20; ++s) {
    tick({observation(worker(0), {slow()}), observation(worker(1), {slow()}), observation(worker(2), {})});
  }
  const auto standing = policy_->standing();
  ASSERT_THAT(standing, SizeIs(1));

  make_policy({});
  policy_->restore(
      standing, [](const Alert&) { return true; }, now_s(), offset_ns());
  EXPECT_EQ(policy_->firing(), 1U);
  EXPECT_TRUE(policy_->concerns(worker(0)));
  EXPECT_TRUE(policy_->concerns(worker(1)));
  EXPECT_FALSE(policy_->concerns(worker(2))) << "its part was over";
  EXPECT_THAT(run_workers(30, 0, 2, {}), IsEmpty()) << "detectors that have forgotten say nothing by silence";
  EXPECT_THAT(tick({observation(worker(1), {})}, {worker(0)}), IsEmpty());
  EXPECT_FALSE(only().processes[0].stands);
  EXPECT_THAT(run_workers(6, 1, 2, {slow()}), IsEmpty()) << "found again: it is the same";
  EXPECT_THAT(run_workers(6, 2, 3, {slow()}), IsEmpty()) << "the third changes again and joins";
  const auto changed = tick({}, {worker(1), worker(2)});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].id, standing[0].id);
  EXPECT_EQ(changed[0].state, AlertState::kResolved);
}

TEST_F(WorkersTest, AfterARestartTheFirstOneMayBeOverAndComeBack) {
  run_workers(6, 0, 2, {slow()});
  for (int s = 0; s < 20; ++s) tick({observation(worker(0), {}), observation(worker(1), {slow()})});
  const auto standing = policy_->standing();
  make_policy({});
  policy_->restore(
      standing, [](const Alert&) { return true; }, now_s(), offset_ns());
  EXPECT_FALSE(only().processes[0].stands);
  EXPECT_THAT(run_workers(8, 0, 2, {slow()}), IsEmpty());
  EXPECT_TRUE(only().processes[0].stands);
  EXPECT_THAT(tick({}, {worker(0), worker(1)}), SizeIs(1));
}

TEST_F(WorkersTest, OfAnotherBootNobodyIsLeft) {
  run_workers(6, 0, 3, {slow()});
  const auto standing = policy_->standing();
  make_policy({});
  policy_->restore(
      standing, [](const Alert&) { return false; }, now_s(), offset_ns());
  const auto changed = tick({});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].resolution, kGoneMeanwhile);
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(policy_->concerns(worker(i)));
}

TEST_F(WorkersTest, AMemberWithoutAKeyIsOverAfterARestart) {
  run_workers(6, 0, 2, {slow()});
  auto standing = policy_->standing();
  standing[0].processes[1].process.key.pid = 0;  // a namespace's own pid is all that is known of it
  make_policy({});
  policy_->restore(
      standing, [](const Alert&) { return true; }, now_s(), offset_ns());
  EXPECT_FALSE(only().processes[1].stands);
  EXPECT_THAT(tick({}, {worker(0)}), SizeIs(1));
}

TEST(SetKeys, PidsOfTheInitialNamespaceWhereTheyAreTheShownOnes) {
  Alert alert;
  alert.process.key = {0, 7};
  alert.process.pid_in_ns = 12;
  for (const int pid : {12, 13}) {
    Alert::Member member;
    member.process.key = {0, 7};
    member.process.pid_in_ns = pid;
    alert.processes.push_back(member);
  }
  Alert contained = alert;
  alert.set_keys({12, 7});
  EXPECT_EQ(alert.processes[0].process.key, (ProcessKey{12, 7}));
  EXPECT_EQ(alert.processes[1].process.key, (ProcessKey{13, 7}));
  contained.set_keys({4012, 7});
  EXPECT_EQ(contained.processes[0].process.key, (ProcessKey{4012, 7}));
  EXPECT_EQ(contained.processes[1].process.key, (ProcessKey{0, 7}));
}

}  // namespace
}  // namespace stackwatch
