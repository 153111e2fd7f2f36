// SPDX-License-Identifier: Apache-2.0
#include "detectors/share_heritage.h"

#include <gtest/gtest.h>

#include <limits>

namespace stackwatch {
namespace {

ShareHeritage sample() {
  return {1000, 5000, 100, 50, 100, {1, 1, 2, 2, 3}, {{11, 600, {21, 0, 22}}, {12, 400}}, {{21, 1000}, {22, 600}}};
}

/// The same with two changes that stand.
ShareHeritage changed() {
  ShareHeritage out = sample();
  out.standing = {{22, false, true, 1.5, 500, 2500, 50, 25}, {12, true, false, 2, 100, 500, 10, 5}};
  out.stacks[0].since = {400, 20};
  out.stacks[1].since = {100, 80};
  out.functions[0].since = {500, 100};
  out.functions[1].since = {400, 20};
  return out;
}

class HeritageBytes : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Versions, HeritageBytes, testing::Bool());

TEST_P(HeritageBytes, EveryCutAndEveryFlippedByteIsRefusedOrMakesSense) {
  const std::string whole = encode(GetParam() ? changed() : sample());
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

TEST(ShareHeritage, ChangesThatStandAreKept) {
  const auto read = decode_share_heritage(encode(changed()));
  ASSERT_TRUE(read);
  EXPECT_EQ(encode(*read), encode(changed()));
  ASSERT_EQ(read->standing.size(), 2U);
  EXPECT_FALSE(read->standing[0].is_stack);
  EXPECT_TRUE(read->standing[0].calls_kernel);
  EXPECT_EQ(read->standing[1].name, 12U);
  EXPECT_TRUE(read->standing[1].is_stack);
  EXPECT_FALSE(read->standing[1].calls_kernel);
  EXPECT_EQ(read->standing[1].total, 100);
  EXPECT_EQ(read->stacks[1].since, (std::vector<float>{100, 80}));
  EXPECT_EQ(read->functions[0].since, (std::vector<float>{500, 100}));
}

TEST(ShareHeritage, ChangesOfTheVersionBeforeAreRead) {
  std::string bytes = encode(changed());
  ASSERT_EQ(bytes[7], '4');
  bytes[7] = '3';
  EXPECT_FALSE(decode_share_heritage(bytes)) << "it did not know calls of the kernel";
  ShareHeritage old = changed();
  old.standing[0].calls_kernel = false;
  bytes = encode(old);
  bytes[7] = '3';
  const auto read = decode_share_heritage(bytes);
  ASSERT_TRUE(read);
  EXPECT_EQ(encode(*read), encode(old));
}

TEST(ShareHeritage, ChangesThatMakeNoSenseAreRefused) {
  ShareHeritage bad = changed();
  bad.stacks[1].since[1] = 101;  // of 100
  EXPECT_FALSE(decode_share_heritage(encode(bad)));
  bad = changed();
  bad.standing[0].dispersion = 0.5;
  EXPECT_FALSE(decode_share_heritage(encode(bad)));
  bad = changed();
  bad.standing[0].total = 0;
  EXPECT_FALSE(decode_share_heritage(encode(bad)));
}

TEST(ShareHeritage, ChangesAreBounded) {
  ShareHeritage many = changed();
  many.stacks.assign(ShareHeritage::kMaxEntries, {11, 600, std::vector<uint64_t>(16, 21), {1, 1, 1, 1}});
  many.functions.assign(ShareHeritage::kMaxEntries, {21, 600, {1, 1, 1, 1}});
  many.standing.assign(10, many.standing[0]);
  many.bound();
  const std::string bytes = encode(many);
  EXPECT_LE(bytes.size(), 68'000U + 4 * 8'500U);
  const auto read = decode_share_heritage(bytes);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->standing.size(), ShareHeritage::kMaxStanding);
}

TEST(ShareHeritage, KeepsTheFramesOfStacks) {
  const auto read = decode_share_heritage(encode(sample()));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->stacks[0].frames, (std::vector<uint64_t>{21, 0, 22}));
  EXPECT_TRUE(read->stacks[1].frames.empty());
  ShareHeritage unlisted = sample();
  unlisted.functions.pop_back();
  EXPECT_EQ(decode_share_heritage(encode(unlisted))->stacks[0].frames, (std::vector<uint64_t>{21, 0, 0}));
}

TEST(ShareHeritage, TwoFunctionsOfOneNameAreTwoInStacks) {
  FunctionKeys keys;
  const uint64_t first = keys.next(5);
  const uint64_t second = keys.next(5);
  EXPECT_EQ(first, 5U);
  ShareHeritage heritage = sample();
  heritage.functions = {{5, 900}, {5, 70}};
  heritage.stacks = {{11, 600, {first, second, first}}};
  const auto read = decode_share_heritage(encode(heritage));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->stacks[0].frames, (std::vector<uint64_t>{first, second, first}));
}

TEST(ShareHeritage, VersionOneIsRead) {
  std::string old = encode(sample());
  old[7] = '1';
  old.resize(old.size() - 2 * (2 + 3));  // two stacks, three frames
  const auto read = decode_share_heritage(old);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->stacks.size(), 2U);
  EXPECT_EQ(read->functions.size(), 2U);
  EXPECT_TRUE(read->stacks[0].frames.empty());
}

TEST(ShareHeritage, FramesAreBounded) {
  ShareHeritage deep = sample();
  deep.stacks.assign(ShareHeritage::kMaxEntries, {11, 600, std::vector<uint64_t>(100, 21)});
  deep.stacks.front() = {12, 700, std::vector<uint64_t>(5000, 21)};
  deep.bound();
  EXPECT_TRUE(deep.stacks[0].frames.empty()) << "no stack is so deep";
  EXPECT_EQ(deep.stacks[1].frames.size(), 100U);
  EXPECT_TRUE(deep.stacks.back().frames.empty());
  const std::string bytes = encode(deep);
  EXPECT_LE(bytes.size(), 68'000U);
  EXPECT_TRUE(decode_share_heritage(bytes));
}

TEST(ShareHeritage, IsBoundedAndKeepsTheLargest) {
  ShareHeritage many = sample();
  for (uint64_t i = 0; i < 5000; ++i) many.stacks.push_back({100 + i, static_cast<double>(i) / 10, {}});
  many.bound();
  EXPECT_EQ(many.stacks.size(), ShareHeritage::kMaxEntries);
  EXPECT_EQ(many.stacks.front().count, 600);
  EXPECT_LE(encode(many).size(), 36'000U);
}

TEST(UnclaimedShares, EachIsClaimedOnceAndForgottenLikeTheBaseline) {
  UnclaimedShares unclaimed;
  unclaimed.take(sample());
  unclaimed.halve();
  EXPECT_EQ(unclaimed.claim_stack(11).count, 300);
  EXPECT_EQ(unclaimed.claim_stack(11).count, 0);
  EXPECT_EQ(unclaimed.claim_function(11).count, 0) << "a function is no stack";
  ShareHeritage on;
  unclaimed.add_to(on);
  ASSERT_EQ(on.stacks.size(), 1U);
  EXPECT_EQ(on.stacks[0].count, 200);
  EXPECT_TRUE(unclaimed.stacks().empty()) << "it has no frames";
  unclaimed.take(sample());
  ASSERT_EQ(unclaimed.stacks().size(), 1U);
  EXPECT_EQ(unclaimed.stacks()[0].frames, sample().stacks[0].frames);
}

TEST(UnclaimedShares, TwoOfOneNameAreTwoParts) {
  ShareHeritage heritage = sample();
  heritage.functions = {{5, 30}, {5, 70}, {6, 10}};
  UnclaimedShares unclaimed;
  unclaimed.take(heritage);
  EXPECT_EQ(unclaimed.claim_function(5).count, 70);
  ShareHeritage on;
  unclaimed.add_to(on);
  EXPECT_EQ(on.functions.size(), 2U);
  EXPECT_EQ(unclaimed.claim_function(5).count, 30);
  EXPECT_EQ(unclaimed.claim_function(5).count, 0);
}

TEST(UnclaimedShares, WhatWasOneStaysOneInAllMixes) {
  ShareHeritage heritage = changed();
  heritage.functions = {{5, 600, {100, 20}}, {5, 100, {400, 70}}};
  UnclaimedShares unclaimed;
  unclaimed.take(heritage);
  const auto first = unclaimed.claim_function(5);
  EXPECT_EQ(first.count, 100) << "it is the larger one since";
  EXPECT_EQ(first.since, (std::vector<float>{400, 70}));
  const auto second = unclaimed.claim_function(5);
  EXPECT_EQ(second.count, 600);
  EXPECT_EQ(second.since, (std::vector<float>{100, 20}));
}

}  // namespace
}  // namespace stackwatch
