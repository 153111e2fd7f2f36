// SPDX-License-Identifier: Apache-2.0
#include "cli/text.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <ctime>
#include <limits>

#include "cli/table.h"

namespace stackwatch {
namespace {

TEST(CliText, WhatIsMissingIsADash) {
  EXPECT_EQ(fixed_text(std::nullopt, 2), "-");
  EXPECT_EQ(bytes_text(std::nullopt), "-");
  EXPECT_EQ(count_text(std::nullopt), "-");
  EXPECT_EQ(percent_text(std::nullopt), "-");
  EXPECT_EQ(duration_text(std::nullopt), "-");
  EXPECT_EQ(measure_text(std::nullopt, "share of samples"), "-");
}

TEST(CliText, HugeNumbersAreNoHarm) {
  EXPECT_GT(fixed_text(std::numeric_limits<double>::max(), 9).size(), 300U);
  EXPECT_FALSE(duration_text(std::numeric_limits<double>::max()).empty());
  EXPECT_FALSE(bytes_text(std::numeric_limits<double>::max()).empty());
  EXPECT_FALSE(count_text(-std::numeric_limits<double>::max()).empty());
}

TEST(CliText, NumbersAreShortAndHaveUnits) {
  EXPECT_EQ(bytes_text(0.0), "0");
  EXPECT_EQ(bytes_text(1023.0), "1023");
  EXPECT_EQ(bytes_text(12'345'678.0), "11.8M");
  EXPECT_EQ(bytes_text(-2048.0), "-2.0K");
  EXPECT_EQ(count_text(950.0), "950");
  EXPECT_EQ(count_text(12'340.0), "12.3k");
  EXPECT_EQ(percent_text(0.043), "4.3 %");
  EXPECT_EQ(duration_text(0.85), "850 ms");
  EXPECT_EQ(duration_text(30.0), "30 s");
  EXPECT_EQ(duration_text(12.5), "12.5 s");
  EXPECT_EQ(duration_text(600.0), "10 m 0 s");
  EXPECT_EQ(duration_text(11'100.0), "3 h 5 m");
  EXPECT_EQ(duration_text(353'000.0), "4 d 2 h");
  EXPECT_EQ(measure_text(0.011, "share of samples"), "1.1 %");
  EXPECT_EQ(measure_text(0.93, "cores"), "0.93 cores");
}

TEST(CliText, TimesAreLocal) {
  setenv("TZ", "UTC-1", 1);
  tzset();
  EXPECT_EQ(local_time_text("2026-11-22T12:00:00.500000Z"), "2026-11-22 13:00:00");
  unsetenv("TZ");
  tzset();
  EXPECT_EQ(local_time_text("\x1b[2J"), "\\x1b[2J");
  EXPECT_EQ(local_time_text(""), "");
}

TEST(TableTest, ColumnsLineUpByCharactersAndLinesAreCut) {
  Table table({{"A"}, {"NUMBER", Table::Align::kRight}, {"LAST"}});
  table.add({"gr\xC3\xBC\xC3\x9F", "1", "x"});
  table.add({"ab", "22"});
  EXPECT_EQ(table.text(Style{}), "A     NUMBER  LAST\ngr\xC3\xBC\xC3\x9F       1  x\nab        22\n");
  EXPECT_EQ(table.text(Style{}, 3), "A  \ngr\xC3\xBC\nab \n");
}

TEST(TableTest, ColourIsOnlyWhereAskedFor) {
  Table table({{"A"}});
  table.add({"x"}, Table::Emphasis::kAlarm);
  EXPECT_EQ(table.text(Style{}).find('\x1b'), std::string::npos);
  EXPECT_NE(table.text(Style{true}).find("\x1b[31;1mx\x1b[0m"), std::string::npos);
}

}  // namespace
}  // namespace stackwatch
