// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <numeric>

#include "bpf/cpu_events.h"

namespace stackwatch {
namespace {

TEST(CpuList, WhatIsNoListHasNoCpus) {
  for (const char* text : {"",      "-",        "-1",       "a",    "0-",          "0-a",  "3-1",           "1 2",
                           "0-3;5", ",",        ",1",       "1,,2", "99999999999", "0x1",  "0-99999999999", "0-3 ,8",
                           " 0-3",  "0-3-5",    "0,-1",     "0--1", "1.5",         "8192", "0-8192",        "+1",
                           "0-3\t", "\xff\xfe", "0-3,none", "none"}) {
    EXPECT_TRUE(parse_cpu_list(text).empty()) << '"' << text << '"';
  }
}

TEST(CpuList, ABytesOfZeroDoesNotEndTheText) { EXPECT_TRUE(parse_cpu_list(std::string("0-3\0,8", 6)).empty()); }

TEST(CpuList, NumbersAndRangesInTheirOrder) {
  EXPECT_EQ(parse_cpu_list("0"), std::vector{0});
  EXPECT_EQ(parse_cpu_list("7-7"), std::vector{7});
  EXPECT_EQ(parse_cpu_list("0-3,8"), (std::vector{0, 1, 2, 3, 8}));
  EXPECT_EQ(parse_cpu_list("1,4-5,10-11"), (std::vector{1, 4, 5, 10, 11}));
}

TEST(CpuList, TheLargestMachine) {
  std::vector<int> all(8192);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(parse_cpu_list("0-8191"), all);
}

}  // namespace
}  // namespace stackwatch
