// SPDX-License-Identifier: Apache-2.0
#include "daemon/process_list.h"

#include <gtest/gtest.h>

namespace stackwatch {
namespace {

ProcessSample process(int32_t pid, int32_t parent_pid, uint32_t threads = 1) {
  ProcessSample sample;
  sample.key = {pid, 10'000'000};
  sample.pid_in_ns = pid + 1000;
  sample.parent_pid = parent_pid;
  sample.threads = threads;
  return sample;
}

TEST(ProcessList, NobodyBeforeTheFirstCensus) {
  ProcessList processes;
  EXPECT_EQ(processes.size(), 0U);
  EXPECT_EQ(processes.tasks(), 0U);
  EXPECT_EQ(processes.find({1, 10'000'000}), nullptr);
  EXPECT_EQ(processes.find_pid_in_ns(1001), nullptr);
  EXPECT_EQ(processes.parent_of(process(2, 1)), nullptr);
}

TEST(ProcessList, FindsByKeyAndByThePidThatTheDaemonSees) {
  ProcessList processes;
  processes.set({process(1, 0, 3), process(7, 1, 2), process(9, 1)});
  EXPECT_EQ(processes.size(), 3U);
  EXPECT_EQ(processes.tasks(), 6U);
  ASSERT_NE(processes.find({7, 10'000'000}), nullptr);
  EXPECT_EQ(processes.find({7, 10'000'000})->key.pid, 7);
  EXPECT_EQ(processes.find({7, 20'000'000}), nullptr) << "another process had this pid";
  EXPECT_EQ(processes.find({8, 10'000'000}), nullptr);
  EXPECT_EQ(processes.find({10, 10'000'000}), nullptr) << "above all";
  ASSERT_NE(processes.find_pid_in_ns(1009), nullptr);
  EXPECT_EQ(processes.find_pid_in_ns(1009)->key.pid, 9);
  EXPECT_EQ(processes.find_pid_in_ns(9), nullptr) << "a pid of another namespace";
}

TEST(ProcessList, BrothersHaveOneParentAndACensusLaterPerhapsNone) {
  ProcessList processes;
  processes.set({process(1, 0), process(7, 1), process(8, 7), process(9, 7)});
  const ProcessSample* parent = processes.parent_of(processes.samples()[2]);
  ASSERT_NE(parent, nullptr);
  EXPECT_EQ(parent->key.pid, 7);
  EXPECT_EQ(processes.parent_of(processes.samples()[3]), parent);
  EXPECT_EQ(processes.parent_of(processes.samples()[0]), nullptr) << "the first has none";
  processes.set({process(1, 0), process(8, 7), process(9, 7)});
  EXPECT_EQ(processes.tasks(), 3U);
  EXPECT_EQ(processes.parent_of(processes.samples()[1]), nullptr) << "it has ended";
}

}  // namespace
}  // namespace stackwatch
