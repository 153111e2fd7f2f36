// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "bpf/sampling_engine.h"
#include "tests/kernel/support/child.h"
#include "tests/kernel/support/require.h"
#include "tests/kernel/support/sampling.h"

namespace stackwatch {
namespace {

TEST(PageFaultProbe, CountsTheFaultsOfOneProcessAndWhereTheyAre) {
  STACKWATCH_REQUIRE_BPF();
  const SystemClock clock;
  auto engine = make_page_fault_engine(clock, {});
  ASSERT_TRUE(engine) << engine.error().message();
  const auto probe = (*engine)->make_probe(ProbeKind::kPageFault);
  Child toucher({test_program("toucher"), "--mb", "400", "--seconds", "2"}, {.stopped = true, .environment = {}});
  Child other({test_program("toucher"), "--mb", "400", "--seconds", "2"});
  ASSERT_TRUE(probe->attach(toucher.key(), {}));
  toucher.go();
  ASSERT_EQ(toucher.wait(), 0);
  ASSERT_TRUE((*engine)->collect());
  const auto delta = probe->read();
  ASSERT_TRUE(delta);
  Counted counted;
  counted.add(*delta);
  const double faults = std::stod(toucher.output().substr(toucher.output().find(':') + 1));
  ASSERT_GT(faults, 50'000);
  // Every n-th fault of a CPU, whoever else faults there: at worst as uneven as drawing each with chance 1/n.
  const double error = 5 * std::sqrt(faults * kPageFaultPeriod) + kPageFaultPeriod;
  EXPECT_NEAR(static_cast<double>(counted.samples), faults, error);
  // Both functions call nothing in between, so the leaf tells them apart: two, with three quarters and a quarter.
  std::unordered_map<uint64_t, double> by_caller;
  for (const auto& [hash, value] : counted.by_stack) {
    const auto& frames = counted.frames[hash].user_frames;
    if (!frames.empty()) by_caller[frames.front() & ~0x3fULL] += static_cast<double>(value);
  }
  double largest = 0;
  for (const auto& [place, value] : by_caller) largest = std::max(largest, value);
  EXPECT_NEAR(largest / faults, 0.75, 0.05);
  EXPECT_EQ(counted.lost.uncounted(), 0U);
}

}  // namespace
}  // namespace stackwatch
