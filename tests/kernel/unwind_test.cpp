// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "tests/kernel/support/child.h"
#include "tests/kernel/support/require.h"
#include "tests/kernel/support/unwinding.h"

namespace stackwatch {
namespace {

// libc has no frame pointers: from main to _start only tables lead. Without them each stack would count as incomplete.
TEST(Unwind, StacksReachTheStartOfTheirThread) {
  STACKWATCH_REQUIRE_BPF();
  UnwindingEngines live;
  Child deep({test_program("deep"), "--frames", "20", "--seconds", "8"});
  pass(0.3);  // it is started, and no copy of this program any more
  auto probe = live.engine->make_probe(ProbeKind::kOnCpu);
  ASSERT_TRUE(probe->attach(deep.key(), {.frequency_hz = 499}));
  live.engine->wait_until_counting(20);
  ASSERT_EQ(live.unwinding->pending(), 0U);
  ASSERT_TRUE(live.engine->collect());
  static_cast<void>(probe->read());  // what was counted until the tables were there
  pass(1.5);
  ASSERT_TRUE(live.engine->collect());
  const auto delta = probe->read();
  ASSERT_TRUE(delta);
  int64_t samples = 0;
  for (const auto& value : delta->values) samples += value.value;
  EXPECT_GT(samples, 50);
  EXPECT_LE(static_cast<double>(delta->lost[LossReason::kUnwindIncomplete]), 0.01 * static_cast<double>(samples));
  EXPECT_EQ(delta->lost[LossReason::kTruncated], 0U);
  EXPECT_GT(live.unwinding->maps()->tables(), 1U);
}

TEST(Unwind, NothingIsLeftOfAProcessThatIsDetached) {
  STACKWATCH_REQUIRE_BPF();
  UnwindingEngines live;
  const uint64_t before = live.unwinding->maps()->map_bytes();
  EXPECT_LT(before, 1U << 20) << "nobody is attached";
  Child burn({test_program("burn"), "--seconds", "8"});
  auto probe = live.engine->make_probe(ProbeKind::kOnCpu);
  ASSERT_TRUE(probe->attach(burn.key(), {}));
  live.engine->wait_until_counting(20);
  ASSERT_TRUE(live.engine->collect());
  probe->detach();
  live.unwinding->dispatch();
  EXPECT_EQ(live.unwinding->pending(), 0U);
}

}  // namespace
}  // namespace stackwatch
