// SPDX-License-Identifier: Apache-2.0
// What every Census must keep: the task iterator and the /proc reader answer alike.
#include <gtest/gtest.h>
#include <rapidjson/document.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <map>

#include "bpf/bpf_census.h"
#include "daemon/proc_census.h"
#include "tests/kernel/support/child.h"
#include "tests/kernel/support/require.h"
#include "tests/kernel/support/sampling.h"

namespace stackwatch {
namespace {

class CensusContract : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::string kind = GetParam();
    if (kind == "iterator") {
      STACKWATCH_REQUIRE_BPF();
      auto made = make_bpf_census([](int32_t pid) { return Procfs().cgroup(pid); });
      ASSERT_TRUE(made) << made.error().message();
      census_ = std::move(*made);
    } else {
      census_ = make_proc_census(Procfs());
    }
  }

  ProcessSample sample_of(const ProcessKey& key) {
    auto samples = census_->take();
    if (!samples) {
      ADD_FAILURE() << samples.error().message();
      return {};
    }
    const auto found = std::ranges::find(*samples, key, &ProcessSample::key);
    if (found == samples->end()) {
      ADD_FAILURE() << "process " << key.pid << " is not in the census";
      return {};
    }
    return *found;
  }

  std::unique_ptr<Census> census_;
};

TEST_P(CensusContract, EachProcessIsThereOnce) {
  const auto samples = census_->take();
  ASSERT_TRUE(samples);
  std::map<int32_t, int> pids;
  for (const ProcessSample& sample : *samples) EXPECT_EQ(++pids[sample.key.pid], 1);
  EXPECT_TRUE(pids.contains(getpid()));
}

TEST_P(CensusContract, KnowsWhoAProcessIs) {
  Child burn({test_program("threads"), "--count", "5", "--cores", "0.2", "--seconds", "60"});
  for (int i = 0; i < 100 && Procfs().threads(burn.pid()).size() < 6; ++i) pass(0.1);
  ASSERT_EQ(setpriority(PRIO_PROCESS, static_cast<id_t>(burn.pid()), 7), 0);
  const ProcessSample sample = sample_of(burn.key());
  EXPECT_EQ(sample.pid_in_ns, burn.pid());
  EXPECT_EQ(sample.parent_pid, getpid());
  EXPECT_EQ(sample.comm, "threads");
  EXPECT_EQ(sample.threads, 6U);
  EXPECT_EQ(sample.nice, 7);
  EXPECT_EQ(sample.policy, SchedulingPolicy::kNormal);
  EXPECT_EQ(sample.uid, geteuid());
  EXPECT_FALSE(sample.kernel_thread);
  EXPECT_EQ(sample.cgroup, Procfs().cgroup(getpid()));
  EXPECT_GT(sample.rss_bytes, 100U * 1024);
  EXPECT_LT(sample.rss_bytes, 100U << 20U);
}

TEST_P(CensusContract, CountsCpuTimeOfAllThreadsDeadOnesIncluded) {
  Child churn(
      {test_program("threads"), "--count", "10", "--churn", "--life-ms", "100", "--cores", "0.8", "--seconds", "60"});
  const ProcessKey key = churn.key();
  const ProcessSample before = sample_of(key);
  pass(3);
  const ProcessSample after = sample_of(key);
  churn.signal(SIGTERM);
  churn.wait();
  rapidjson::Document told;
  told.Parse(churn.output().c_str());
  ASSERT_TRUE(told.IsObject() && told.HasMember("cpu_s")) << churn.output();
  const double census_s = static_cast<double>(after.on_cpu_ns) * 1e-9;
  EXPECT_GT(census_s, 0.2);
  EXPECT_LE(census_s, told["cpu_s"].GetDouble() + 0.02);
  EXPECT_GT(census_s, 0.8 * told["cpu_s"].GetDouble() - 0.1) << "it went on for a moment after the census";
  EXPECT_GT(after.voluntary_switches, before.voluntary_switches);
}

TEST_P(CensusContract, CountsWaitingForACpu) {
  // More busy processes than CPUs, so that each waits for the others.
  const auto cpus = static_cast<size_t>(sysconf(_SC_NPROCESSORS_ONLN));
  std::vector<std::unique_ptr<Child>> crowd;
  for (size_t i = 0; i < 3 * cpus; ++i) {
    crowd.push_back(
        std::make_unique<Child>(std::vector{test_program("burn"), std::string("--seconds"), std::string("20")}));
  }
  const ProcessKey key = crowd[0]->key();
  const ProcessSample before = sample_of(key);
  pass(2);
  const ProcessSample after = sample_of(key);
  EXPECT_GT(after.run_queue_ns - before.run_queue_ns, 300'000'000U);
  EXPECT_GT(after.involuntary_switches, before.involuntary_switches);
}

TEST_P(CensusContract, AnotherProgramInTheSameProcessIsTold) {
  Child shell({"sh", "-c", "sleep 1.5; exec sleep 20"});
  pass(0.5);
  const ProcessKey key = shell.key();
  const ProcessSample before = sample_of(key);
  pass(2);
  const ProcessSample after = sample_of(key);
  EXPECT_EQ(before.comm, "sh");
  EXPECT_EQ(after.comm, "sleep");
  EXPECT_NE(before.exec, after.exec);
  EXPECT_EQ(after.exec, sample_of(key).exec);
}

TEST_P(CensusContract, AProcessThatNobodyReapedHasEnded) {
  Child ended({"true"});
  pass(0.5);
  const auto samples = census_->take();
  ASSERT_TRUE(samples);
  EXPECT_EQ(std::ranges::count(*samples, ended.pid(), &ProcessSample::pid_in_ns), 0);
}

TEST_P(CensusContract, KernelThreadsAreKnownAsSuch) {
  const auto samples = census_->take();
  ASSERT_TRUE(samples);
  const auto kthreadd = std::ranges::find(*samples, "kthreadd", &ProcessSample::comm);
  if (kthreadd == samples->end()) GTEST_SKIP() << "REQUIRES the initial pid namespace";
  EXPECT_TRUE(kthreadd->kernel_thread);
}

INSTANTIATE_TEST_SUITE_P(All, CensusContract, ::testing::Values("iterator", "proc"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace stackwatch
