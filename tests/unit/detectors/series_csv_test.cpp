// SPDX-License-Identifier: Apache-2.0
#include "detectors/series_csv.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace stackwatch {
namespace {

using ::testing::HasSubstr;

SeriesCsv reader(std::string_view header = "timestamp,a,b", std::vector<std::string> columns = {}) {
  SeriesCsv out(std::move(columns));
  const auto read = out.read_header(header);
  EXPECT_TRUE(read) << read.error().message();
  return out;
}

std::string error_of(SeriesCsv& csv, std::string_view line) {
  const auto row = csv.read_row(line);
  return row ? "no error" : row.error().message();
}

TEST(SeriesCsv, RefusesHeadersThatAreNone) {
  for (const char* header : {"", "timestamp", "2026-11-22 12:00:00,1.5", "1,2", "\"timestamp,a"}) {
    SeriesCsv csv({});
    const auto read = csv.read_header(header);
    ASSERT_FALSE(read) << header;
    EXPECT_THAT(read.error().message(), HasSubstr("line 1")) << header;
  }
}

TEST(SeriesCsv, ColumnsMayBeCalledByNumbers) { EXPECT_EQ(reader("timestamp,1,2").columns(), 2U); }

TEST(SeriesCsv, RefusesColumnsThatAreNotThereOrTwice) {
  for (const char* header : {"timestamp,x", "timestamp,a,a", "a,x"}) {
    SeriesCsv csv({"a"});
    const auto read = csv.read_header(header);
    ASSERT_FALSE(read) << header;
    EXPECT_EQ(read.error().kind, ErrorKind::kUsage);
  }
}

TEST(SeriesCsv, RefusesMoreColumnsThanItsBound) {
  std::string header = "t";
  for (size_t i = 1; i < SeriesCsv::kMaxColumns; ++i) header += ",c";
  EXPECT_EQ(reader(header).columns(), SeriesCsv::kMaxColumns - 1);
  SeriesCsv csv({});
  EXPECT_FALSE(csv.read_header(header + ",c"));
}

TEST(SeriesCsv, BadLinesAreErrorsWithTheirNumber) {
  for (const char* line : {"", "1", "1,2", "1,2,3,4", "x,2,3", ",2,3", "nan,2,3", "1,2,three", "1,0x10,3", "1,1e999,3",
                           "1,\"2,3", "1,\"2\"x,3", "2026-13-01 00:00:00,2,3", "1,2 3,4", "1,--2,3", "1,+-2,3"}) {
    SeriesCsv csv = reader();
    ASSERT_TRUE(csv.read_row("1,2,3"));
    EXPECT_THAT(error_of(csv, line), HasSubstr("line 3")) << line;
    EXPECT_TRUE(csv.read_row("2,2,3")) << "after " << line;
  }
  SeriesCsv csv = reader();
  EXPECT_THAT(error_of(csv, std::string_view("1,2\0,3", 6)), HasSubstr("line 2"));
}

TEST(SeriesCsv, MissingValuesAreNoErrors) {
  SeriesCsv csv = reader("timestamp,a,b,c,d,e");
  const auto row = csv.read_row("1,nan,,NaN,inf,\"\"");
  ASSERT_TRUE(row) << row.error().message();
  for (const double value : row->values) EXPECT_TRUE(std::isnan(value));
}

TEST(SeriesCsv, ReadsWhatSpreadsheetsWrite) {
  SeriesCsv csv = reader("\xEF\xBB\xBF\"timestamp\",\"a, \"\"b\"\"\",c\r", {"a, \"b\""});
  const auto row = csv.read_row(" \"2026-11-22 12:00:00\" , \"+1.5\" ,-2e3\r");
  ASSERT_TRUE(row) << row.error().message();
  EXPECT_EQ(row->timestamp, "2026-11-22 12:00:00");
  EXPECT_THAT(row->values, testing::ElementsAre(1.5));
}

TEST(SeriesCsv, SelectsInTheOrderThatIsAskedFor) {
  SeriesCsv csv = reader("t,a,b,c", {"c", "a"});
  EXPECT_THAT(csv.read_row("1,2,3,4")->values, testing::ElementsAre(4, 2));
}

TEST(SeriesCsv, UnderstandsTimes) {
  constexpr double kNoon = 1795348800;  // 2026-11-22T12:00:00Z
  for (const char* text : {"2026-11-22T12:00:00Z", "2026-11-22 12:00:00", "2026-11-22T12:00:00",
                           "2026-11-22T13:00:00+01:00", "1795348800", "1795348800.0", "2026-11-22 12:00:00.000000"}) {
    const auto time_s = parse_series_time(text);
    ASSERT_TRUE(time_s) << text;
    EXPECT_DOUBLE_EQ(*time_s, kNoon) << text;
  }
  EXPECT_DOUBLE_EQ(parse_series_time("2026-11-22").value_or(0), kNoon - 43200);
  EXPECT_DOUBLE_EQ(parse_series_time("-5").value_or(0), -5);
  for (const char* text : {"", "nan", "inf", "noon", "12:00", "2026-11-22 25:00:00"}) {
    EXPECT_FALSE(parse_series_time(text)) << text;
  }
}

}  // namespace
}  // namespace stackwatch
