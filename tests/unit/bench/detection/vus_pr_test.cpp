// SPDX-License-Identifier: Apache-2.0
#include "vus_pr.h"

#include <gtest/gtest.h>

#include <vector>

namespace stackwatch {
namespace {

constexpr size_t kRows = 1000;

std::vector<double> ones_at(size_t from, size_t to) {
  std::vector<double> out(kRows, 0);
  for (size_t row = from; row <= to; ++row) out[row] = 1;
  return out;
}

TEST(VusPr, NothingToFindIsZero) { EXPECT_EQ(vus_pr(ones_at(1, 2), {}, 100), 0); }

TEST(VusPr, ExactlyTheWindowIsPerfectWithoutABuffer) {
  const std::vector<Window> windows{{400, 449}};
  EXPECT_NEAR(vus_pr(ones_at(400, 449), windows, 0), 1, 1e-9);
}

TEST(VusPr, AConstantScoreHasThePartOfAnomalousRows) {
  const std::vector<Window> windows{{400, 449}};
  EXPECT_NEAR(vus_pr(std::vector<double>(kRows, 0.5), windows, 0), 0.05, 1e-9);
}

TEST(VusPr, OneRowOfALongWindowIsNotTheWindow) {
  // Point adjustment would call this perfect.
  const std::vector<Window> windows{{400, 499}};
  EXPECT_LT(vus_pr(ones_at(450, 450), windows, 0), 0.15);
}

TEST(VusPr, OneOfTwoWindowsIsAQuarterAndTheRest) {
  // Half the rows, times half the windows; the second window comes only with all other rows.
  const std::vector<Window> windows{{200, 249}, {700, 749}};
  EXPECT_NEAR(vus_pr(ones_at(200, 249), windows, 0), 0.25 + 0.75 * 0.1, 1e-9);
}

TEST(VusPr, ABufferForgivesRowsBesideTheWindow) {
  const std::vector<Window> windows{{400, 449}};
  const std::vector<double> late = ones_at(420, 469);
  EXPECT_GT(vus_pr(late, windows, 100), vus_pr(late, windows, 0));
  EXPECT_GT(vus_pr(late, windows, 100), vus_pr(ones_at(600, 649), windows, 100));
}

}  // namespace
}  // namespace stackwatch
