// SPDX-License-Identifier: Apache-2.0
#include "daemon/control/json.h"

#include <gtest/gtest.h>
#include <rapidjson/document.h>

#include <cmath>
#include <limits>

#include "core/time_text.h"
#include "tests/unit/control/fake_backend.h"

namespace stackwatch {
namespace {

std::string in_quotes(std::string_view text) {
  JsonWriter json;
  json.value(text);
  return std::string(json.text());
}

rapidjson::Document parse(std::string_view text) {
  rapidjson::Document document;
  document.Parse<rapidjson::kParseValidateEncodingFlag>(text.data(), text.size());
  EXPECT_FALSE(document.HasParseError()) << text;
  return document;
}

TEST(Json, BytesThatAreNoUtf8AreReplaced) {
  EXPECT_EQ(in_quotes("a\xFF\xC3z"), "\"a\xEF\xBF\xBD\xEF\xBF\xBDz\"");
  EXPECT_EQ(in_quotes("\xE4"), "\"\xEF\xBF\xBD\"");
}

TEST(Json, ControlCharactersAreEscaped) {
  EXPECT_EQ(in_quotes(std::string_view("\0\x1b[31m\n\t\"\\\x7f", 11)), "\"\\u0000\\u001b[31m\\n\\t\\\"\\\\\\u007f\"");
  EXPECT_EQ(in_quotes("\xC2\x9B"), "\"\\u009b\"");      // CSI of eight bits
  EXPECT_EQ(in_quotes("\xE2\x80\xAE"), "\"\\u202e\"");  // right-to-left override
  EXPECT_EQ(in_quotes("gr\xC3\xBC\xC3\x9F"), "\"gr\xC3\xBC\xC3\x9F\"");
}

TEST(Json, AnyBytesAtAllGiveAValidDocument) {
  for (int first = 0; first < 256; ++first) {
    for (int second = 0; second < 256; ++second) {
      const std::string bytes{static_cast<char>(first), static_cast<char>(second)};
      ASSERT_TRUE(parse(in_quotes(bytes)).IsString());
    }
  }
}

TEST(Json, NumbersThatAreNotFiniteAreNull) {
  JsonWriter json;
  json.begin_array();
  json.value(std::nan(""));
  json.value(std::numeric_limits<double>::infinity());
  json.value(-std::numeric_limits<double>::infinity());
  json.value(0.043);
  json.value(std::numeric_limits<uint64_t>::max());
  json.value(std::numeric_limits<int64_t>::min());
  json.end_array();
  EXPECT_EQ(json.text(), "[null,null,null,0.043,18446744073709551615,-9223372036854775808]");
}

TEST(Json, AnAlertIsAsTheContractSays) {
  Alert alert = FakeBackend::make_alert("a-1", AlertState::kFiring, 1'795'348'800'500'000'000);
  EXPECT_EQ(alert_to_json(alert),
            R"({"id":"a-1","state":"firing","opened":"2026-11-22T12:00:00.500000Z",)"
            R"("onset":"2026-11-22T12:00:00.500000Z","updated":"2026-11-22T12:00:00.500000Z","resolved":null,)"
            R"("process":{"pid":4711,"start_time_ns":990000000,"comm":"redis-server","exe":"/usr/bin/redis-server",)"
            R"("cgroup":"/system.slice/redis.service","unit":"redis.service"},"detector":"composition",)"
            R"("probe":"on_cpu","frame":"dictFind","stack":["main","aeMain","dictFind"],"before":0.011,"after":0.043,)"
            R"("unit_of_measure":"share of samples","change_cores":0.03,"score":21.4,)"
            R"("false_alarm_budget":"1 per 30d","lost":{"map_full":0,"frames_late":0,"truncated":0,)"
            R"("unwind_failed":3,"recursion_missed":0,"missed_tick":0,"names_late":0,"stacks_full":0,"watch_full":0,)"
            R"("unknown_free":0,"missed_free":0,"abandoned_call":0,"unwind_incomplete":0},)"
            R"("contributors":[{"frame":"aeMain","before":0.5,"after":0.6}]})");
}

TEST(Json, AResolvedAlertSaysWhenAndWhy) {
  const auto json = parse(alert_to_json(FakeBackend::make_alert("a", AlertState::kResolved, 1'000'000'000)));
  EXPECT_STREQ(json["resolved"].GetString(), "1970-01-01T00:01:01.000000Z");
  EXPECT_STREQ(json["resolution"].GetString(), "back to its baseline");
}

TEST(Json, AnAlertOfAHostileProcessIsStillOneLine) {
  Alert alert = FakeBackend::make_alert("a", AlertState::kFiring, 1);
  alert.process.comm = "x\"},\n{\x1b]0;\x07\xFE";
  alert.stack = {std::string("\0", 1), "\xED\xA0\x80"};
  alert.score = std::numeric_limits<double>::infinity();
  const std::string text = alert_to_json(alert);
  EXPECT_EQ(text.find_first_of("\n\x1b\x07"), std::string::npos);
  const auto json = parse(text);
  EXPECT_STREQ(json["process"]["comm"].GetString(), "x\"},\n{\x1b]0;\x07\xEF\xBF\xBD");
  EXPECT_TRUE(json["score"].IsNull());
}

TEST(Json, AnAlertAboutWorkersListsThemAndOneAboutCostThatMovedSaysHow) {
  Alert alert;
  alert.id = "a-1";
  for (const int pid : {12, 13}) {
    Alert::Member member;
    member.process.key.start_time_ns = 7;
    member.process.pid_in_ns = pid;
    member.process.comm = "nginx";
    member.before = 0.1;
    member.after = 0.2;
    member.stands = pid == 12;
    alert.processes.push_back(member);
  }
  alert.processes_omitted = 3;
  alert.shift = Alert::Shift{"renamed", "find", "lookup", "serve", ""};
  const auto json = parse(alert_to_json(alert));
  ASSERT_EQ(json["processes"].Size(), 2U);
  EXPECT_EQ(json["processes"][1]["process"]["pid"].GetInt(), 13);
  EXPECT_STREQ(json["processes"][1]["process"]["comm"].GetString(), "nginx");
  EXPECT_EQ(json["processes"][1]["after"].GetDouble(), 0.2);
  EXPECT_TRUE(json["processes"][0]["stands"].GetBool());
  EXPECT_FALSE(json["processes"][1]["stands"].GetBool());
  EXPECT_EQ(json["processes_omitted"].GetInt(), 3);
  EXPECT_STREQ(json["shift"]["kind"].GetString(), "renamed");
  EXPECT_STREQ(json["shift"]["to"].GetString(), "lookup");
  EXPECT_FALSE(json["shift"].HasMember("what"));
}

TEST(Json, AListThatGrowsTooLargeEndsEarlyAndSaysSo) {
  StacksReport report;
  for (int i = 0; i < 100; ++i) report.rows.push_back({{std::string(size_t{1} << 20U, 'f')}, i, {}});
  JsonWriter json;
  write_stacks(json, report);
  EXPECT_LT(json.size(), kMaxListBytes + (size_t{2} << 20U));
  const auto document = parse(json.text());
  EXPECT_EQ(document["stacks"].Size() + document["omitted"].GetUint(), 100U);
  EXPECT_GT(document["stacks"].Size(), 0U);
}

TEST(Json, StacksHaveASeriesOnlyWhereOneWasAskedFor) {
  const FakeBackend backend;
  for (const bool series : {false, true}) {
    JsonWriter json;
    write_stacks(json, *backend.stacks(FakeBackend::kAttachedPid, ProbeKind::kOnCpu, 0, series));
    const auto document = parse(json.text());
    EXPECT_EQ(document.HasMember("step_s"), series);
    EXPECT_EQ(document["stacks"][0].HasMember("series"), series);
    EXPECT_FALSE(document.HasMember("omitted"));
  }
}

}  // namespace
}  // namespace stackwatch
