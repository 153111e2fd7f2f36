// SPDX-License-Identifier: Apache-2.0
#include "daemon/overhead_guard.h"

#include <gmock/gmock.h>

namespace stackwatch {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr ProcessKey kProcess{10, 10'000'000};

class OverheadGuardTest : public testing::Test {
 protected:
  void run(int seconds, uint64_t switches_per_s, double cores) {
    for (int i = 0; i < seconds; ++i) {
      sample_.voluntary_switches += switches_per_s;
      sample_.on_cpu_ns += static_cast<uint64_t>(cores * 1e9);
      guard_.observe(time_s_++, sample_);
      guard_.end_tick();
    }
  }
  [[nodiscard]] std::vector<ProbeKind> allowed() const {
    return guard_.allowed(kProcess, {ProbeKind::kOnCpu, ProbeKind::kBlocked, ProbeKind::kRunQueue});
  }

  OverheadGuard guard_;
  ProcessSample sample_ = [] {
    ProcessSample sample;
    sample.key = kProcess;
    return sample;
  }();
  double time_s_ = 0;
};

TEST_F(OverheadGuardTest, WhoSwitchesAllTheTimeLosesItsWaitsAndIsTold) {
  run(7, 100'000, 0.9);  // 0.27 cores of 0.9 are ours
  EXPECT_THAT(allowed(), ElementsAre(ProbeKind::kOnCpu));
  EXPECT_THAT(guard_.allowed(kProcess, {ProbeKind::kBlocked}), ElementsAre(ProbeKind::kOnCpu));
  EXPECT_THAT(guard_.note(kProcess), HasSubstr("100000 switches a second would cost 43 % of its CPU time"));
}

TEST_F(OverheadGuardTest, WhoWaitsNowAndThenKeepsThem) {
  run(60, 2000, 0.9);
  EXPECT_EQ(allowed().size(), 3U);
  EXPECT_EQ(guard_.note(kProcess), "");
  EXPECT_NEAR(guard_.overhead_percent(kProcess, allowed(), 99), 0.14 + 0.6, 0.05);
}

TEST_F(OverheadGuardTest, ANearlyIdleProcessIsLeftAlone) {
  run(60, 1000, 0.005);  // half of its CPU time, and a quarter of a hundredth of a core
  EXPECT_EQ(allowed().size(), 3U);
}

TEST_F(OverheadGuardTest, TheyComeBackWhenItIsCalmForLong) {
  run(7, 100'000, 0.9);
  run(50, 100, 0.9);
  EXPECT_EQ(allowed().size(), 1U);
  run(30, 100, 0.9);
  EXPECT_EQ(allowed().size(), 3U);
}

TEST_F(OverheadGuardTest, AHigherLimitAllowsMore) {
  guard_.set_limit(60);
  run(60, 100'000, 0.9);
  EXPECT_EQ(allowed().size(), 3U);
}

TEST_F(OverheadGuardTest, RatesAreCapped) {
  EXPECT_NEAR(guard_.max_frequency_hz(), 3623, 1);
  guard_.set_limit(1);
  EXPECT_NEAR(guard_.max_frequency_hz(), 725, 1);
}

TEST_F(OverheadGuardTest, WhoIsGoneIsForgotten) {
  run(7, 100'000, 0.9);
  guard_.end_tick();
  EXPECT_EQ(allowed().size(), 3U);
}

}  // namespace
}  // namespace stackwatch
