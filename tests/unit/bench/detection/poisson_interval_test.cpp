// SPDX-License-Identifier: Apache-2.0
#include "poisson_interval.h"

#include <gtest/gtest.h>

namespace stackwatch {
namespace {

// From Garwood's tables.
TEST(PoissonInterval, IsTheExactOne) {
  EXPECT_EQ(poisson_interval(0).first, 0);
  EXPECT_NEAR(poisson_interval(0).second, 3.689, 0.001);
  EXPECT_NEAR(poisson_interval(1).first, 0.0253, 0.0001);
  EXPECT_NEAR(poisson_interval(1).second, 5.572, 0.001);
  EXPECT_NEAR(poisson_interval(10).first, 4.795, 0.001);
  EXPECT_NEAR(poisson_interval(10).second, 18.390, 0.001);
}

TEST(PoissonInterval, HoldsForLargeCounts) {
  EXPECT_NEAR(poisson_interval(100).first, 81.36, 0.01);
  EXPECT_NEAR(poisson_interval(100).second, 121.63, 0.01);
}

}  // namespace
}  // namespace stackwatch
