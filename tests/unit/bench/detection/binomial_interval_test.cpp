// SPDX-License-Identifier: Apache-2.0
#include "binomial_interval.h"

#include <gtest/gtest.h>

#include <cmath>

namespace stackwatch {
namespace {

TEST(BinomialInterval, NoneAndAllHaveClosedForms) {
  for (const int trials : {1, 6, 20, 300}) {
    const double end = std::pow(0.025, 1.0 / trials);
    EXPECT_EQ(binomial_interval(0, trials).first, 0);
    EXPECT_NEAR(binomial_interval(0, trials).second, 1 - end, 1e-9);
    EXPECT_NEAR(binomial_interval(trials, trials).first, end, 1e-9);
    EXPECT_EQ(binomial_interval(trials, trials).second, 1);
  }
}

TEST(BinomialInterval, IsThatOfTheTables) {
  EXPECT_NEAR(binomial_interval(5, 10).first, 0.18709, 1e-5);
  EXPECT_NEAR(binomial_interval(5, 10).second, 0.81291, 1e-5);
  EXPECT_NEAR(binomial_interval(19, 20).first, 0.75127, 1e-5);
  EXPECT_NEAR(binomial_interval(19, 20).second, 0.99873, 1e-5);
}

TEST(BinomialInterval, WithoutTrialsNothingIsKnown) {
  EXPECT_EQ(binomial_interval(0, 0).first, 0);
  EXPECT_EQ(binomial_interval(0, 0).second, 1);
}

}  // namespace
}  // namespace stackwatch
