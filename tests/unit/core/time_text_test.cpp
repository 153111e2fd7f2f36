// SPDX-License-Identifier: Apache-2.0
#include "core/time_text.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <ctime>

namespace stackwatch {
namespace {

constexpr uint64_t kNoon = 1'795'348'800'000'000'000;  // 2026-11-22T12:00:00Z

TEST(TimeText, RefusesWhatIsNoTime) {
  for (const char* text : {"",
                           "now",
                           "2026",
                           "2026-11-22T",
                           "2026-11-22T12",
                           "2026-11-22T12:00:00",
                           "2026-11-22",
                           "2026-13-22T12:00:00Z",
                           "2026-02-29T12:00:00Z",
                           "2026-11-31T12:00:00Z",
                           "2026-11-22T24:00:00Z",
                           "2026-11-22T12:60:00Z",
                           "2026-11-22T12:00:00.Z",
                           "2026-11-22T12:00:00Zz",
                           "2026-11-22T12:00:00+25:00",
                           "1969-12-31T23:59:59Z",
                           "1970-01-01T00:00:00+01:00",
                           "2262-01-01T00:00:00Z",
                           "-026-11-22T12:00:00Z",
                           "2026-11-22T12:00:00Z "}) {
    EXPECT_FALSE(parse_time(text, ZonelessTime::kRefused)) << text;
  }
}

TEST(TimeText, ReadsZonesAndFractions) {
  EXPECT_EQ(parse_time("2026-11-22T12:00:00Z", ZonelessTime::kRefused), kNoon);
  EXPECT_EQ(parse_time("2026-11-22 12:00Z", ZonelessTime::kRefused), kNoon);
  EXPECT_EQ(parse_time("2026-11-22T13:30:00+01:30", ZonelessTime::kRefused), kNoon);
  EXPECT_EQ(parse_time("2026-11-22T07:00:00-0500", ZonelessTime::kRefused), kNoon);
  EXPECT_EQ(parse_time("2026-11-22T12:00:00.5Z", ZonelessTime::kRefused), kNoon + 500'000'000);
  EXPECT_EQ(parse_time("2026-11-22T12:00:00.1234567891Z", ZonelessTime::kRefused), kNoon + 123'456'789);
}

TEST(TimeText, ATimeWithoutAZoneIsLocalWhereThatIsAllowed) {
  setenv("TZ", "UTC-3", 1);  // three hours east
  EXPECT_EQ(parse_time("2026-11-22 15:00:00", ZonelessTime::kLocal), kNoon);
  EXPECT_EQ(parse_time("2026-11-22", ZonelessTime::kLocal), kNoon - 15 * 3600 * 1'000'000'000ULL);
  EXPECT_EQ(parse_time("2026-11-22T12:00:00Z", ZonelessTime::kLocal), kNoon);
  unsetenv("TZ");
}

TEST(TimeText, WhatIsWrittenIsReadBack) {
  EXPECT_EQ(format_utc(kNoon), "2026-11-22T12:00:00.000000Z");
  EXPECT_EQ(format_utc(0), "1970-01-01T00:00:00.000000Z");
  EXPECT_EQ(format_utc(kNoon + 123'456'789), "2026-11-22T12:00:00.123456Z");
  EXPECT_EQ(parse_time(format_utc(kNoon + 123'456'789), ZonelessTime::kRefused), kNoon + 123'456'000);
  EXPECT_FALSE(format_utc(UINT64_MAX).empty());
}

TEST(LocalSeconds, FollowWallClocksThroughSummerTime) {
  EXPECT_LT(local_seconds(-1), 0);
  setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3", 1);
  tzset();
  constexpr int64_t kChange = 1'774'746'000;  // 2026-03-29 01:00 UTC
  constexpr int64_t kNs = 1'000'000'000;
  EXPECT_EQ(local_seconds((kChange - 1) * kNs), kChange - 1 + 3600);
  EXPECT_EQ(local_seconds(kChange * kNs), kChange + 7200);
  unsetenv("TZ");
  tzset();
}

}  // namespace
}  // namespace stackwatch
