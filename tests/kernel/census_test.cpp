// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>

#include "bpf/bpf_census.h"
#include "daemon/procfs.h"
#include "tests/kernel/support/child.h"
#include "tests/kernel/support/require.h"
#include "tests/kernel/support/sampling.h"

namespace stackwatch {
namespace {

std::optional<ProcessSample> find(const std::vector<ProcessSample>& samples, const ProcessKey& key) {
  const auto found = std::ranges::find(samples, key, &ProcessSample::key);
  if (found == samples.end()) return std::nullopt;
  return *found;
}

// Threads that end take their time from the living to the dead: the sum must not dip in between.
TEST(BpfCensus, TotalsNeverGoBackWhileThreadsEnd) {
  STACKWATCH_REQUIRE_BPF();
  auto census = make_bpf_census([](int32_t pid) { return Procfs().cgroup(pid); });
  ASSERT_TRUE(census) << census.error().message();
  Child threads(
      {test_program("threads"), "--count", "50", "--churn", "--life-ms", "20", "--cores", "1", "--seconds", "4"});
  const ProcessKey key = threads.key();
  ProcessSample before;
  int seen = 0;
  for (int i = 0; i < 300 && threads.running(); ++i) {
    const auto samples = (*census)->take();
    ASSERT_TRUE(samples) << samples.error().message();
    const auto sample = find(*samples, key);
    if (!sample) break;
    ++seen;
    EXPECT_GE(sample->on_cpu_ns, before.on_cpu_ns);
    EXPECT_GE(sample->run_queue_ns, before.run_queue_ns);
    EXPECT_GE(sample->voluntary_switches, before.voluntary_switches);
    EXPECT_GE(sample->minor_faults, before.minor_faults);
    before = *sample;
    pass(0.01);
  }
  EXPECT_GT(seen, 50);
  EXPECT_GT(before.on_cpu_ns, 200'000'000U);
}

TEST(BpfCensus, SeesEveryProcessThatProcSees) {
  STACKWATCH_REQUIRE_BPF();
  auto census = make_bpf_census([](int32_t pid) { return Procfs().cgroup(pid); });
  ASSERT_TRUE(census) << census.error().message();
  Child sleepers({test_program("sleeper"), "--count", "300", "--seconds", "60"});
  pass(1);
  const auto samples = (*census)->take();
  ASSERT_TRUE(samples) << samples.error().message();
  const auto ours = std::ranges::count_if(*samples, [&](const ProcessSample& sample) {
    return sample.parent_pid == sleepers.pid() && sample.comm == "sleeper";
  });
  EXPECT_EQ(ours, 300);
}

}  // namespace
}  // namespace stackwatch
