// SPDX-License-Identifier: Apache-2.0
#include "daemon/self_usage.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "tests/fakes/proc_tree.h"

namespace stackwatch {
namespace {

class SelfUsageTest : public testing::Test {
 protected:
  void worker_used(int32_t pid, double seconds) {
    const auto ticks = static_cast<uint64_t>(seconds * static_cast<double>(sysconf(_SC_CLK_TCK)));
    tree_.put({.pid = pid, .comm = "worker", .user_ticks = ticks});
  }

  ProcTree tree_;
  SelfUsage usage_{Procfs(tree_.root())};
};

TEST_F(SelfUsageTest, NothingIsKnownBeforeTwoTicks) {
  EXPECT_EQ(usage_.cpu_share(), 0);
  usage_.observe(10, 0);
  EXPECT_EQ(usage_.cpu_share(), 0);
  usage_.observe(10, 0);
  EXPECT_EQ(usage_.cpu_share(), 0) << "no time has passed";
}

TEST_F(SelfUsageTest, WhatCannotBeReadIsNothing) {
  EXPECT_EQ(usage_.resident_bytes(), 0U);
  EXPECT_EQ(usage_.resident_bytes_of(-1), 0U);
  EXPECT_EQ(usage_.open_fds(), 0U);
  for (const char* text : {"", "100", "a b", "100 ", "100 x"}) {
    tree_.write("7/statm", text);
    EXPECT_EQ(usage_.resident_bytes_of(7), 0U) << text;
  }
}

TEST_F(SelfUsageTest, TheWorkersTimeIsOurs) {
  worker_used(7, 1);
  usage_.observe(100, 7);
  worker_used(7, 6);
  usage_.observe(110, 7);
  EXPECT_NEAR(usage_.cpu_share(), 0.5, 0.05) << "and our own, which is next to nothing here";
}

TEST_F(SelfUsageTest, AWorkerThatIsReplacedTakesNothingBack) {
  worker_used(7, 1);
  usage_.observe(100, 7);
  worker_used(7, 4);
  usage_.observe(110, 7);
  usage_.observe(111, 0);  // it died
  worker_used(8, 2);
  usage_.observe(120, 8);
  EXPECT_NEAR(usage_.cpu_share(), 5.0 / 20, 0.05);
}

TEST_F(SelfUsageTest, AWorkerThatCannotBeReadKeepsWhatItHad) {
  worker_used(7, 1);
  usage_.observe(100, 7);
  worker_used(7, 3);
  usage_.observe(105, 7);
  tree_.remove("7");
  usage_.observe(110, 7);
  EXPECT_NEAR(usage_.cpu_share(), 0.2, 0.05);
}

TEST_F(SelfUsageTest, LooksBackAboutAMinute) {
  worker_used(7, 0);
  usage_.observe(0, 7);
  worker_used(7, 50);
  for (int second = 1; second <= 200; ++second) usage_.observe(second, 7);
  EXPECT_LT(usage_.cpu_share(), 0.02) << "the busy second is three minutes ago";
}

TEST_F(SelfUsageTest, MemoryIsToldInBytes) {
  tree_.write("7/statm", "5000 300 20 1 0 40 0\n");
  EXPECT_EQ(usage_.resident_bytes_of(7), 300U * static_cast<uint64_t>(sysconf(_SC_PAGESIZE)));
  tree_.write(std::to_string(getpid()) + "/statm", "5000 10 20 1 0 40 0\n");
  EXPECT_EQ(usage_.resident_bytes(), 10U * static_cast<uint64_t>(sysconf(_SC_PAGESIZE)));
}

TEST(SelfUsage, CountsItsOwnDescriptors) {
  const SelfUsage usage{Procfs()};
  const uint64_t before = usage.open_fds();
  EXPECT_GE(before, 1U);
  const int one = dup(STDERR_FILENO);
  const int two = dup(STDERR_FILENO);
  EXPECT_EQ(usage.open_fds(), before + 2);
  close(one);
  close(two);
  EXPECT_EQ(usage.open_fds(), before);
}

}  // namespace
}  // namespace stackwatch
