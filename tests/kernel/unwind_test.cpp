// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <poll.h>

#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "symbols/maps.h"
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
  RecordProperty("whole_stacks_of_samples",
                 std::to_string(samples - static_cast<int64_t>(delta->lost[LossReason::kUnwindIncomplete])) + " of " +
                     std::to_string(samples));
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

/// Like the daemon's, but the test plays the one who knows mappings.
struct BareEngine {
  BareEngine() {
    maps = *UnwindMaps::create();
    engine = *make_on_cpu_engine(clock, {}, maps);
  }
  /// Whose mappings are wanted after half a second of samples.
  std::vector<UnwindMaps::Wanted> wanted() {
    maps->wait_until_written();
    pass(0.1);
    EXPECT_TRUE(engine->collect());  // what was sampled under the mappings before
    static_cast<void>(maps->take_wanted());
    pass(0.5);
    EXPECT_TRUE(engine->collect());
    return maps->take_wanted();
  }
  SystemClock clock;
  std::shared_ptr<UnwindMaps> maps;
  std::unique_ptr<ProbeEngine> engine;
};

std::vector<MapsEntry> mappings_of(const Child& child) {
  std::ifstream file("/proc/" + std::to_string(child.pid()) + "/maps");
  std::ostringstream text;
  text << file.rdbuf();
  auto all = parse_maps(text.str());
  std::erase_if(all, [](const MapsEntry& entry) { return entry.path == "[vsyscall]"; });
  return all;
}

TEST(Unwind, ADescriptorTellsThatMappingsAreWanted) {
  STACKWATCH_REQUIRE_BPF();
  BareEngine live;
  pollfd wanted{live.maps->wanted_fd(), POLLIN, 0};
  EXPECT_EQ(::poll(&wanted, 1, 0), 0);
  Child burn({test_program("burn"), "--seconds", "8"});
  auto probe = live.engine->make_probe(ProbeKind::kOnCpu);
  ASSERT_TRUE(probe->attach(burn.key(), {}));
  EXPECT_EQ(::poll(&wanted, 1, 0), 1) << "and not at the next tick only";
  EXPECT_EQ(live.maps->take_wanted().size(), 1U);
  EXPECT_EQ(::poll(&wanted, 1, 0), 0);
}

// Code may have come in the place of other code.
TEST(Unwind, MappingsAreReadAgainWhenTheAmountOfCodeChanges) {
  STACKWATCH_REQUIRE_BPF();
  BareEngine live;
  Child burn({test_program("burn"), "--seconds", "20"});
  pass(0.3);  // it is started, and no copy of this program any more
  auto probe = live.engine->make_probe(ProbeKind::kOnCpu);
  ASSERT_TRUE(probe->attach(burn.key(), {.frequency_hz = 499}));
  pass(0.2);
  ASSERT_TRUE(live.engine->collect());
  const auto first = live.maps->take_wanted();
  ASSERT_EQ(first.size(), 1U);
  std::vector<UnwindMapping> mappings;
  uint64_t code_bytes = 0;
  for (const MapsEntry& entry : mappings_of(burn)) {
    mappings.push_back({entry.start, entry.end, 0, 0, UnwindMapping::Kind::kByFrame});
    if (!entry.writable) code_bytes += entry.end - entry.start;
  }
  const auto tell = [&](uint64_t bytes) { return live.maps->set_space(burn.key(), first[0].exec, mappings, bytes); };
  ASSERT_TRUE(tell(code_bytes));
  EXPECT_EQ(live.wanted().size(), 0U) << "nothing has changed";
  static constexpr uint64_t kPage = 4096;
  ASSERT_TRUE(tell(code_bytes + kPage));
  EXPECT_EQ(live.wanted().size(), 1U);
  ASSERT_TRUE(tell(0));
  EXPECT_EQ(live.wanted().size(), 0U) << "not known";
}

}  // namespace
}  // namespace stackwatch
