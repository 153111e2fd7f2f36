// SPDX-License-Identifier: Apache-2.0
#include "daemon/entitlement.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "tests/fakes/proc_tree.h"

namespace stackwatch {
namespace {

ProcessSample process(int nice = 0, uint32_t threads = 64, SchedulingPolicy policy = SchedulingPolicy::kNormal) {
  ProcessSample sample;
  sample.nice = static_cast<int8_t>(nice);
  sample.threads = threads;
  sample.policy = policy;
  return sample;
}

void begin(Entitlement& entitlement, const std::vector<const ProcessSample*>& processes, double time_s = 1) {
  std::vector<Entitlement::Active> active;
  for (const ProcessSample* process : processes) active.push_back({process, 0.5});
  entitlement.begin_tick(time_s, active);
}

TEST(Entitlement, NiceValuesThatDoNotExistAreTheNearestOnes) {
  EXPECT_EQ(weight_of_nice(-100), weight_of_nice(-20));
  EXPECT_EQ(weight_of_nice(100), weight_of_nice(19));
}

TEST(Entitlement, WeightsAreTheKernels) {
  // sched_prio_to_weight, which rounds to whole numbers.
  for (const auto& [nice, weight] : {std::pair{-20, 88761.0},
                                     {-10, 9548.0},
                                     {-5, 3121.0},
                                     {-1, 1277.0},
                                     {0, 1024.0},
                                     {1, 820.0},
                                     {5, 335.0},
                                     {10, 110.0},
                                     {19, 15.0}}) {
    EXPECT_NEAR(weight_of_nice(nice), weight, 0.03 * weight) << nice;
  }
}

TEST(Entitlement, AProcessWithoutThreadsHasOne) {
  Entitlement entitlement(8);
  entitlement.begin_tick(1, {});
  EXPECT_DOUBLE_EQ(entitlement.cores(process(0, 0)), 1);
}

TEST(Entitlement, WhoIsAloneMayUseAllItHasThreadsFor) {
  Entitlement entitlement(8);
  const ProcessSample many = process(0, 64);
  const ProcessSample few = process(0, 3);
  begin(entitlement, {&many});
  EXPECT_DOUBLE_EQ(entitlement.cores(many), 8);
  begin(entitlement, {&few});
  EXPECT_DOUBLE_EQ(entitlement.cores(few), 3);
}

TEST(Entitlement, WhoIsNotActiveWouldCompeteAlone) {
  Entitlement entitlement(4);
  entitlement.begin_tick(1, {});
  EXPECT_DOUBLE_EQ(entitlement.cores(process(19)), 4);
}

TEST(Entitlement, EqualsShareEqually) {
  Entitlement entitlement(4);
  const std::vector<ProcessSample> crowd(16, process());
  std::vector<Entitlement::Active> active;
  for (const ProcessSample& one : crowd) active.push_back({&one, 0.5});
  entitlement.begin_tick(1, active);
  EXPECT_DOUBLE_EQ(entitlement.cores(crowd[3]), 0.25);
}

TEST(Entitlement, SharesGoByWeightAndAddUpToTheMachine) {
  Entitlement entitlement(2);
  const ProcessSample normal = process();
  const ProcessSample nicer = process(5);
  const ProcessSample idle = process(0, 64, SchedulingPolicy::kIdle);
  begin(entitlement, {&normal, &nicer, &idle});
  EXPECT_NEAR(entitlement.cores(normal) / entitlement.cores(nicer), weight_of_nice(0) / weight_of_nice(5), 1e-9);
  EXPECT_NEAR(entitlement.cores(normal) / entitlement.cores(idle), 1024.0 / 3, 1e-9) << "WEIGHT_IDLEPRIO";
  EXPECT_NEAR(entitlement.cores(normal) + entitlement.cores(nicer) + entitlement.cores(idle), 2, 1e-9);
}

TEST(Entitlement, TheNiceValueOfTheIdlePolicyDoesNotMatter) {
  Entitlement entitlement(2);
  const ProcessSample normal = process();
  const ProcessSample greedy_idle = process(-20, 64, SchedulingPolicy::kIdle);
  begin(entitlement, {&normal, &greedy_idle});
  EXPECT_LT(entitlement.cores(greedy_idle), 0.01);
}

TEST(Entitlement, RealTimeGoesBeforeEverybodyButOneThreadUsesOneCore) {
  Entitlement entitlement(4);
  const std::vector<ProcessSample> crowd(100, process(-20));
  std::vector<Entitlement::Active> active;
  for (const ProcessSample& one : crowd) active.push_back({&one, 0.5});
  entitlement.begin_tick(1, active);
  for (const auto policy : {SchedulingPolicy::kFifo, SchedulingPolicy::kRoundRobin, SchedulingPolicy::kDeadline}) {
    EXPECT_DOUBLE_EQ(entitlement.cores(process(19, 1, policy)), 1);
    EXPECT_DOUBLE_EQ(entitlement.cores(process(19, 2, policy)), 2);
    EXPECT_DOUBLE_EQ(entitlement.cores(process(19, 64, policy)), 4);
  }
}

TEST(Entitlement, IsNeverNothing) {
  Entitlement entitlement(1);
  const std::vector<ProcessSample> crowd(2000, process(-20));
  const ProcessSample last = process(19, 1, SchedulingPolicy::kIdle);
  std::vector<Entitlement::Active> active = {{&last, 0}};
  for (const ProcessSample& one : crowd) active.push_back({&one, 0.5});
  entitlement.begin_tick(1, active);
  EXPECT_GT(entitlement.cores(last), 0) << "shares are divided by it";
}

// ---- control groups

ProcessSample in(const std::string& cgroup, int32_t pid, uint32_t threads = 64) {
  ProcessSample sample = process(0, threads);
  sample.cgroup = cgroup;
  sample.key = {pid, 10'000'000};
  sample.pid_in_ns = pid;
  return sample;
}

TEST(CpuList, IsCounted) {
  for (const char* bad : {"", "\n", "x", "3-1", "1-", "-1", "1,,2", "0-99999999", "4294967296"}) {
    EXPECT_FALSE(count_cpu_list(bad)) << bad;
  }
  EXPECT_EQ(count_cpu_list("0\n"), 1U);
  EXPECT_EQ(count_cpu_list("0-3,8\n"), 5U);
}

TEST(CgroupFiles, NonsenseAndMissingFilesAreNothing) {
  EXPECT_FALSE(CgroupFiles("").exist());
  EXPECT_FALSE(CgroupFiles("/nonexistent").exist());
  const ProcTree tree;
  tree.write("cgroup.controllers", "cpuset cpu io memory\n");
  tree.write("a/cpu.weight", "heavy\n");
  tree.write("a/cpu.max", "50000\n");
  tree.write("a/cpu.stat", "nr_periods\nnr_throttled x\n");
  tree.write("a/cpuset.cpus.effective", "0-\n");
  const CgroupFiles files(tree.root());
  const CgroupCpu cpu = files.read("/a");
  EXPECT_EQ(cpu.weight, 1024) << "the default";
  EXPECT_FALSE(cpu.quota_cores);
  EXPECT_FALSE(cpu.allowed_cpus);
  EXPECT_FALSE(files.read("/none").weight);
  EXPECT_FALSE(files.read("/../../etc").weight);
}

class CgroupEntitlement : public testing::Test {
 protected:
  void v2() { tree_.write("cgroup.controllers", "cpuset cpu io memory\n"); }
  Entitlement make(unsigned cpus) { return Entitlement(cpus, {CgroupFiles(tree_.root()), {}}); }
  ProcTree tree_;
};

TEST_F(CgroupEntitlement, GroupsShareByWeightHoweverManyProcessesTheyHave) {
  v2();
  tree_.write("a/cpu.weight", "300\n");
  tree_.write("b/cpu.weight", "100\n");
  Entitlement entitlement = make(4);
  const ProcessSample one = in("/a", 1);
  const ProcessSample two = in("/b", 2);
  const ProcessSample three = in("/b", 3);
  begin(entitlement, {&one, &two, &three});
  EXPECT_NEAR(entitlement.cores(one), 3, 1e-9);
  EXPECT_NEAR(entitlement.cores(two), 0.5, 1e-9);
}

TEST_F(CgroupEntitlement, AGroupWithoutTheControllerCompetesAsItsTasks) {
  v2();
  tree_.write("a/cpu.weight", "100\n");
  Entitlement entitlement = make(2);
  const ProcessSample one = in("/a/inner", 1);
  const ProcessSample two = in("/a", 2);
  begin(entitlement, {&one, &two});
  EXPECT_NEAR(entitlement.cores(one), 1, 1e-9);
}

TEST_F(CgroupEntitlement, TheTightestQuotaAboveCountsAndSoDoesItsThrottling) {
  v2();
  tree_.write("a/cpu.weight", "100\n");
  tree_.write("a/cpu.max", "50000 100000\n");
  tree_.write("a/cpu.stat", "usage_usec 1\nnr_periods 100\nnr_throttled 10\nthrottled_usec 1\n");
  tree_.write("a/b/cpu.weight", "100\n");
  tree_.write("a/b/cpu.max", "max 100000\n");
  Entitlement entitlement = make(4);
  const ProcessSample one = in("/a/b", 1);
  begin(entitlement, {&one}, 100);
  EXPECT_NEAR(entitlement.cores(one), 0.5, 1e-9);
  ASSERT_TRUE(entitlement.limits(one).quota_cores);
  EXPECT_NEAR(*entitlement.limits(one).quota_cores, 0.5, 1e-9);
  EXPECT_NEAR(entitlement.limits(one).quota_used, 0.5, 1e-9);
  EXPECT_EQ(entitlement.limits(one).throttled, 0) << "one reading says nothing about now";
  tree_.write("a/cpu.stat", "nr_periods 150\nnr_throttled 30\n");
  begin(entitlement, {&one}, 102);
  EXPECT_EQ(entitlement.limits(one).throttled, 0) << "not read again yet";
  begin(entitlement, {&one}, 106);
  EXPECT_NEAR(entitlement.limits(one).throttled, 0.4, 1e-9);
  tree_.write("a/cpu.stat", "nr_periods 5\nnr_throttled 0\n");
  begin(entitlement, {&one}, 112);
  EXPECT_EQ(entitlement.limits(one).throttled, 0) << "counters that go back";
}

TEST_F(CgroupEntitlement, VersionOneIsReadToo) {
  tree_.write("cpu/cpu.shares", "1024\n");
  tree_.write("cpu/a/cpu.shares", "2048\n");
  tree_.write("cpu/b/cpu.shares", "1024\n");
  tree_.write("cpu/b/cpu.cfs_quota_us", "20000\n");
  tree_.write("cpu/b/cpu.cfs_period_us", "100000\n");
  tree_.write("cpu/a/cpu.cfs_quota_us", "-1\n");
  tree_.write("cpu/a/cpu.cfs_period_us", "100000\n");
  tree_.write("cpuset/a/cpuset.effective_cpus", "2\n");
  Entitlement entitlement = make(3);
  const ProcessSample one = in("/a", 1);
  const ProcessSample two = in("/b", 2);
  begin(entitlement, {&one, &two});
  EXPECT_NEAR(entitlement.cores(one), 1, 1e-9) << "2 by weight, but one CPU is allowed";
  EXPECT_NEAR(entitlement.cores(two), 0.2, 1e-9);
}

TEST_F(CgroupEntitlement, AffinityBoundsWhatAProcessMayCountOn) {
  Entitlement entitlement(8, {CgroupFiles(), [](int32_t pid) { return std::optional(pid == 1 ? 2U : 8U); }});
  const ProcessSample one = in("/", 1);
  begin(entitlement, {&one});
  EXPECT_NEAR(entitlement.cores(one), 2, 1e-9);
}

TEST_F(CgroupEntitlement, ReadsPerTickAreBoundedAndAllGetTheirTurn) {
  v2();
  std::vector<ProcessSample> many;
  for (int i = 0; i < 100; ++i) {
    const std::string name = "g" + std::to_string(i);
    tree_.write(name + "/cpu.weight", "100\n");
    tree_.write(name + "/cpu.max", "10000 100000\n");
    many.push_back(in("/" + name, 100 + i));
  }
  std::vector<const ProcessSample*> active;
  for (const ProcessSample& one : many) active.push_back(&one);
  Entitlement entitlement = make(64);
  const auto known = [&] {
    return std::ranges::count_if(many, [&](const auto& p) { return entitlement.limits(p).quota_cores.has_value(); });
  };
  begin(entitlement, active, 1);
  EXPECT_EQ(known(), static_cast<std::ptrdiff_t>(Entitlement::kReadsPerTick));
  for (int t = 2; t <= 4; ++t) begin(entitlement, active, t);
  EXPECT_EQ(known(), 100);
}

}  // namespace
}  // namespace stackwatch
