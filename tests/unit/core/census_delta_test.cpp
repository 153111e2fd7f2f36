// SPDX-License-Identifier: Apache-2.0
#include "core/census_delta.h"

#include <gtest/gtest.h>

#include <limits>

namespace stackwatch {
namespace {

ProcessSample sample(uint64_t by) {
  ProcessSample out;
  out.key = {4711, 10'000'000};
  out.on_cpu_ns = out.run_queue_ns = 1'000'000'000 * by;
  out.voluntary_switches = out.involuntary_switches = out.minor_faults = out.major_faults = by;
  out.read_bytes = out.write_bytes = by;
  return out;
}

TEST(CensusDelta, ATimeThatDoesNotPassIsNone) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_FALSE(census_delta(sample(1), 5, sample(2), 5));
  EXPECT_FALSE(census_delta(sample(1), 5, sample(2), 4));
  EXPECT_FALSE(census_delta(sample(1), 5, sample(2), kNan));
  EXPECT_FALSE(census_delta(sample(1), kNan, sample(2), 5));
}

TEST(CensusDelta, AnyCounterThatGoesBackIsNone) {
  const auto back = [](auto member) {
    ProcessSample later = sample(3);
    later.*member = 1;
    return census_delta(sample(2), 1, later, 2).has_value();
  };
  EXPECT_FALSE(back(&ProcessSample::on_cpu_ns));
  EXPECT_FALSE(back(&ProcessSample::run_queue_ns));
  EXPECT_FALSE(back(&ProcessSample::voluntary_switches));
  EXPECT_FALSE(back(&ProcessSample::involuntary_switches));
  EXPECT_FALSE(back(&ProcessSample::minor_faults));
  EXPECT_FALSE(back(&ProcessSample::major_faults));
  EXPECT_FALSE(back(&ProcessSample::read_bytes));
  EXPECT_FALSE(back(&ProcessSample::write_bytes));
}

TEST(CensusDelta, AnotherProcessWithTheSamePidIsNone) {
  ProcessSample other = sample(2);
  other.key.start_time_ns += 10'000'000;
  EXPECT_FALSE(census_delta(sample(1), 1, other, 2));
}

TEST(CensusDelta, CountersAreDifferencesAndMemoryIsALevel) {
  ProcessSample before = sample(1);
  ProcessSample after = sample(3);
  before.rss_bytes = 900;
  after.rss_bytes = 700;  // a level may fall
  after.threads = 5;
  const auto delta = census_delta(before, 10, after, 12.5);
  ASSERT_TRUE(delta);
  EXPECT_EQ(delta->process, after.key);
  EXPECT_DOUBLE_EQ(delta->time_s, 12.5);
  EXPECT_DOUBLE_EQ(delta->interval_s, 2.5);
  EXPECT_DOUBLE_EQ(delta->on_cpu_s, 2);
  EXPECT_DOUBLE_EQ(delta->demand_s(), 4);
  EXPECT_DOUBLE_EQ(delta->voluntary_switches, 2);
  EXPECT_DOUBLE_EQ(delta->involuntary_switches, 2);
  EXPECT_DOUBLE_EQ(delta->minor_faults, 2);
  EXPECT_DOUBLE_EQ(delta->major_faults, 2);
  EXPECT_DOUBLE_EQ(delta->read_bytes, 2);
  EXPECT_DOUBLE_EQ(delta->write_bytes, 2);
  EXPECT_DOUBLE_EQ(delta->rss_bytes, 700);
  EXPECT_EQ(delta->threads, 5U);
}

}  // namespace
}  // namespace stackwatch
