// SPDX-License-Identifier: Apache-2.0
#include "detectors/share_heritage.h"

#include <gtest/gtest.h>

#include <limits>

namespace stackwatch {
namespace {

ShareHeritage sample() { return {1000, 5000, 100, 50, 100, {1, 1, 2, 2, 3}, {{11, 600}, {12, 400}}, {{21, 1000}}}; }

TEST(ShareHeritage, EveryCutAndEveryFlippedByteIsRefusedOrMakesSense) {
  const std::string whole = encode(sample());
  ASSERT_TRUE(decode_share_heritage(whole));
  for (size_t length = 0; length < whole.size(); ++length) {
    EXPECT_FALSE(decode_share_heritage(whole.substr(0, length))) << length;
  }
  EXPECT_FALSE(decode_share_heritage(whole + "x"));
  for (size_t i = 0; i < whole.size(); ++i) {
    std::string damaged = whole;
    damaged[i] = static_cast<char>(damaged[i] ^ 0xff);
    const auto read = decode_share_heritage(damaged);
    if (!read) continue;
    for (const auto& entry : read->stacks) EXPECT_LE(entry.count, read->total * 1.01) << i;
  }
}

TEST(ShareHeritage, NumbersThatAreNoneAreRefused) {
  ShareHeritage bad = sample();
  bad.total = std::numeric_limits<double>::quiet_NaN();
  EXPECT_FALSE(decode_share_heritage(encode(bad)));
  bad = sample();
  bad.wall_s = -1;
  EXPECT_FALSE(decode_share_heritage(encode(bad)));
  bad = sample();
  bad.stacks[0].count = 2000;
  EXPECT_FALSE(decode_share_heritage(encode(bad)));
}

TEST(ShareHeritage, IsTheSameAfterSaving) {
  const auto read = decode_share_heritage(encode(sample()));
  ASSERT_TRUE(read);
  EXPECT_EQ(encode(*read), encode(sample()));
}

TEST(ShareHeritage, IsBoundedAndKeepsTheLargest) {
  ShareHeritage many = sample();
  for (uint64_t i = 0; i < 5000; ++i) many.stacks.push_back({100 + i, static_cast<double>(i) / 10});
  many.bound();
  EXPECT_EQ(many.stacks.size(), ShareHeritage::kMaxEntries);
  EXPECT_EQ(many.stacks.front().count, 600);
  EXPECT_LE(encode(many).size(), 34'000U);
}

TEST(UnclaimedShares, EachIsClaimedOnceAndForgottenLikeTheBaseline) {
  UnclaimedShares unclaimed;
  unclaimed.take(sample());
  unclaimed.halve();
  EXPECT_EQ(unclaimed.claim_stack(11), 300);
  EXPECT_EQ(unclaimed.claim_stack(11), 0);
  EXPECT_EQ(unclaimed.claim_function(11), 0) << "a function is no stack";
  ShareHeritage on;
  unclaimed.add_to(on);
  ASSERT_EQ(on.stacks.size(), 1U);
  EXPECT_EQ(on.stacks[0].count, 200);
}

TEST(UnclaimedShares, TwoOfOneNameAreTwoParts) {
  ShareHeritage heritage = sample();
  heritage.functions = {{5, 30}, {5, 70}, {6, 10}};
  UnclaimedShares unclaimed;
  unclaimed.take(heritage);
  EXPECT_EQ(unclaimed.claim_function(5), 70);
  ShareHeritage on;
  unclaimed.add_to(on);
  EXPECT_EQ(on.functions.size(), 2U);
  EXPECT_EQ(unclaimed.claim_function(5), 30);
  EXPECT_EQ(unclaimed.claim_function(5), 0);
}

}  // namespace
}  // namespace stackwatch
