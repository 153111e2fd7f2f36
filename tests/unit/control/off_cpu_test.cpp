// SPDX-License-Identifier: Apache-2.0
#include "daemon/control/off_cpu.h"

#include <gtest/gtest.h>

namespace stackwatch {
namespace {

using Row = StacksReport::Row;

StacksReport report(std::vector<Row> rows) {
  StacksReport made;
  made.window_s = 60;
  made.rows = std::move(rows);
  for (const Row& row : made.rows) made.total += row.value;
  return made;
}

TEST(OffCpu, NothingAndNothingIsNothing) {
  const StacksReport sum = off_cpu_report(report({}), report({}));
  EXPECT_TRUE(sum.rows.empty());
  EXPECT_EQ(sum.total, 0);
  ASSERT_TRUE(sum.waits);
  EXPECT_EQ(sum.waits->run_queue, 0);
}

TEST(OffCpu, EqualStacksAreSummedOthersKeptAndAllOrderedAnew) {
  StacksReport run_queue = report({{{"main", "spin"}, 50, {20, 30}}, {{"main", "read"}, 7, {0, 7}}});
  run_queue.lost[LossReason::kTruncated] = 2;
  run_queue.window_s = 60.001;
  const StacksReport sum =
      off_cpu_report(report({{{"main", "read"}, 40, {40, 0}}, {{"main", "lock"}, 3, {}}}), std::move(run_queue));
  ASSERT_EQ(sum.rows.size(), 3U);
  EXPECT_EQ(sum.rows[0].frames.back(), "spin");
  EXPECT_EQ(sum.rows[1].value, 47);
  EXPECT_EQ(sum.rows[1].series, (std::vector<int64_t>{40, 7}));
  EXPECT_EQ(sum.rows[2].frames.back(), "lock");
  EXPECT_EQ(sum.total, 100);
  EXPECT_EQ(sum.waits->run_queue, 57);
  EXPECT_EQ(sum.lost[LossReason::kTruncated], 2U);
  EXPECT_DOUBLE_EQ(sum.window_s, 60);
}

}  // namespace
}  // namespace stackwatch
