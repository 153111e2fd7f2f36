// SPDX-License-Identifier: Apache-2.0
#include "daemon/entitlement.h"

#include <gtest/gtest.h>

#include <utility>

namespace stackwatch {
namespace {

ProcessSample process(int nice = 0, uint32_t threads = 64, SchedulingPolicy policy = SchedulingPolicy::kNormal) {
  ProcessSample sample;
  sample.nice = static_cast<int8_t>(nice);
  sample.threads = threads;
  sample.policy = policy;
  return sample;
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
  entitlement.begin_tick({});
  EXPECT_DOUBLE_EQ(entitlement.cores(process(0, 0)), 1);
}

TEST(Entitlement, WhoIsAloneMayUseAllItHasThreadsFor) {
  Entitlement entitlement(8);
  const ProcessSample many = process(0, 64);
  const ProcessSample few = process(0, 3);
  entitlement.begin_tick({&many});
  EXPECT_DOUBLE_EQ(entitlement.cores(many), 8);
  entitlement.begin_tick({&few});
  EXPECT_DOUBLE_EQ(entitlement.cores(few), 3);
}

TEST(Entitlement, WhoIsNotActiveWouldCompeteAlone) {
  Entitlement entitlement(4);
  entitlement.begin_tick({});
  EXPECT_DOUBLE_EQ(entitlement.cores(process(19)), 4);
}

TEST(Entitlement, EqualsShareEqually) {
  Entitlement entitlement(4);
  const std::vector<ProcessSample> crowd(16, process());
  std::vector<const ProcessSample*> active;
  for (const ProcessSample& one : crowd) active.push_back(&one);
  entitlement.begin_tick(active);
  EXPECT_DOUBLE_EQ(entitlement.cores(crowd[3]), 0.25);
}

TEST(Entitlement, SharesGoByWeightAndAddUpToTheMachine) {
  Entitlement entitlement(2);
  const ProcessSample normal = process();
  const ProcessSample nicer = process(5);
  const ProcessSample idle = process(0, 64, SchedulingPolicy::kIdle);
  entitlement.begin_tick({&normal, &nicer, &idle});
  EXPECT_NEAR(entitlement.cores(normal) / entitlement.cores(nicer), weight_of_nice(0) / weight_of_nice(5), 1e-9);
  EXPECT_NEAR(entitlement.cores(normal) / entitlement.cores(idle), 1024.0 / 3, 1e-9) << "WEIGHT_IDLEPRIO";
  EXPECT_NEAR(entitlement.cores(normal) + entitlement.cores(nicer) + entitlement.cores(idle), 2, 1e-9);
}

TEST(Entitlement, TheNiceValueOfTheIdlePolicyDoesNotMatter) {
  Entitlement entitlement(2);
  const ProcessSample normal = process();
  const ProcessSample greedy_idle = process(-20, 64, SchedulingPolicy::kIdle);
  entitlement.begin_tick({&normal, &greedy_idle});
  EXPECT_LT(entitlement.cores(greedy_idle), 0.01);
}

TEST(Entitlement, RealTimeGoesBeforeEverybodyButOneThreadUsesOneCore) {
  Entitlement entitlement(4);
  const std::vector<ProcessSample> crowd(100, process(-20));
  std::vector<const ProcessSample*> active;
  for (const ProcessSample& one : crowd) active.push_back(&one);
  entitlement.begin_tick(active);
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
  std::vector<const ProcessSample*> active = {&last};
  for (const ProcessSample& one : crowd) active.push_back(&one);
  entitlement.begin_tick(active);
  EXPECT_GT(entitlement.cores(last), 0) << "shares are divided by it";
}

}  // namespace
}  // namespace stackwatch
