// SPDX-License-Identifier: Apache-2.0
#include "config/units.h"

#include <gtest/gtest.h>

namespace stackwatch {
namespace {

TEST(Duration, RefusesWhatIsNone) {
  for (const char* text :
       {"",    " ",    "10",    "s",   "-1s", "+1s",   "1 parsec", "10 parsecs", "1.2.3s", ".",    "inf s",
        "nan", "1e3s", "0x10s", "10S", "1s1", "1s 1m", "101y",     "99999999d",  "1us",    "ten s"}) {
    const Result<double> value = parse_duration(text);
    ASSERT_FALSE(value) << text;
    EXPECT_EQ(value.error().kind, ErrorKind::kUsage);
    EXPECT_FALSE(value.error().hint.empty());
  }
  EXPECT_EQ(parse_duration("10 parsecs").error().message(),
            "duration \"10 parsecs\": unknown unit \"parsecs\" (a number and ms, s, m, h or d, like \"10s\")");
  EXPECT_FALSE(parse_duration(std::string(100000, '9') + "s"));
}

TEST(Duration, ReadsEveryUnit) {
  EXPECT_DOUBLE_EQ(parse_duration("500ms").value(), 0.5);
  EXPECT_DOUBLE_EQ(parse_duration("1s").value(), 1);
  EXPECT_DOUBLE_EQ(parse_duration("1.5s").value(), 1.5);
  EXPECT_DOUBLE_EQ(parse_duration("10m").value(), 600);
  EXPECT_DOUBLE_EQ(parse_duration("10 min").value(), 600);
  EXPECT_DOUBLE_EQ(parse_duration(" 2h ").value(), 7200);
  EXPECT_DOUBLE_EQ(parse_duration("30d").value(), 30 * 86400.0);
  EXPECT_DOUBLE_EQ(parse_duration("0s").value(), 0);
}

TEST(Duration, FormatsWhatItReads) {
  for (const char* text : {"500ms", "1s", "90s", "10m", "25h", "30d", "0s", "1500ms"}) {
    EXPECT_EQ(format_duration(parse_duration(text).value()), text);
  }
  EXPECT_EQ(format_duration(60), "1m");
  EXPECT_EQ(format_duration(0.1), "100ms");
}

TEST(Bytes, RefusesWhatIsNoSize) {
  for (const char* text : {"", "M", "-1", "64X", "64 parsecs", "1Mi iB", "1ii", "1e9", "99999999999T", "1 2", "k64"}) {
    const Result<uint64_t> value = parse_bytes(text);
    ASSERT_FALSE(value) << text;
    EXPECT_EQ(value.error().kind, ErrorKind::kUsage);
  }
}

TEST(Bytes, ReadsEveryUnit) {
  EXPECT_EQ(parse_bytes("65536").value(), 65536U);
  EXPECT_EQ(parse_bytes("64K").value(), 65536U);
  EXPECT_EQ(parse_bytes("64M").value(), 64U << 20U);
  EXPECT_EQ(parse_bytes("64MiB").value(), 64U << 20U);
  EXPECT_EQ(parse_bytes("64MB").value(), 64U << 20U);
  EXPECT_EQ(parse_bytes("1.5 G").value(), 3ULL << 29U);
  EXPECT_EQ(parse_bytes("2T").value(), 2ULL << 40U);
  EXPECT_EQ(parse_bytes("512B").value(), 512U);
}

TEST(FalseAlarmBudget, RefusesWhatIsNone) {
  for (const char* text : {"", "1", "per 30d", "1 per", "1 per ", "1per30d", "0 per 30d", "-1 per 30d", "1 per 0s",
                           "1 per 30", "1 per 30 parsecs", "x per 30d", "1 2 per 30d", "1 per 30d per 1h"}) {
    const Result<FalseAlarmBudget> budget = parse_false_alarm_budget(text);
    ASSERT_FALSE(budget) << text;
    EXPECT_EQ(budget.error().kind, ErrorKind::kUsage);
    EXPECT_NE(budget.error().hint.find("1 per 30d"), std::string::npos);
  }
}

TEST(FalseAlarmBudget, ReadsCountAndPeriod) {
  const FalseAlarmBudget budget = parse_false_alarm_budget("0.5 per 12h").value();
  EXPECT_DOUBLE_EQ(budget.count, 0.5);
  EXPECT_DOUBLE_EQ(budget.period_s, 43200);
}

TEST(Probes, RefusesUnknownNamesAndNone) {
  const std::vector<std::string> wrong = {"on_cpu", "offcpu"};
  EXPECT_EQ(parse_probes(wrong).error().message(),
            "probe \"offcpu\": there is no such probe (did you mean \"off_cpu\"?)");
  EXPECT_FALSE(parse_probes({}));
}

TEST(Probes, OffCpuIsTwo) {
  const std::vector<std::string> names = {"off_cpu", "on_cpu", "blocked", "on_cpu"};
  EXPECT_EQ(parse_probes(names).value(), (std::vector{ProbeKind::kOnCpu, ProbeKind::kBlocked, ProbeKind::kRunQueue}));
}

}  // namespace
}  // namespace stackwatch
