// SPDX-License-Identifier: Apache-2.0
#include "capture/reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace stackwatch {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kHeader =
    R"({"type":"capture","version":1,"started":"2026-11-22T12:00:00Z","host":"h","tick_s":2.0})"
    "\n";

struct Read {
  std::vector<CaptureRecord> records;
  std::string error;
};

Read read(const std::string& lines) {
  const std::string text = kHeader + lines;
  Read all;
  auto reader = CaptureReader::create(bytes_of(text), "FILE");
  if (!reader) return {{}, reader.error().message()};
  for (;;) {
    auto record = reader->next();
    if (!record) {
      all.error = record.error().message();
      EXPECT_FALSE(reader->next()) << "an error stays";
      return all;
    }
    if (!record->has_value()) return all;
    all.records.push_back(std::move(**record));
  }
}

std::string header_error(const std::string& text) {
  auto reader = CaptureReader::create(bytes_of(text), "FILE");
  return reader ? "" : reader.error().message();
}

TEST(CaptureReaderTest, WhatIsNoCaptureIsRefused) {
  EXPECT_THAT(header_error(""), HasSubstr("empty"));
  for (const char* text : {"\n", "hello\n", "[]\n", "{}\n",
                           R"({"type":"process"})"
                           "\n",
                           "\x7f\x45\x4c\x46\0\0\0"}) {
    EXPECT_THAT(header_error(text), HasSubstr("it is no capture")) << text;
  }
  EXPECT_THAT(header_error(R"({"type":"capture","version":2})"), HasSubstr("newer"));
  EXPECT_THAT(header_error(R"({"type":"capture"})"), HasSubstr("\"version\" is missing"));
  EXPECT_THAT(header_error(R"({"type":"capture","version":1,"tick_s":0})"), HasSubstr("tick_s"));
  EXPECT_THAT(header_error(R"({"type":"capture","version":1,"started":"yesterday"})"), HasSubstr("started"));
  EXPECT_THAT(header_error(R"({"type":"capture","version":1,"started_ns":-1})"), HasSubstr("started_ns"));
}

TEST(CaptureReaderTest, ABrokenLineIsAnErrorThatNamesItAndWhatIsBeforeItIsKept) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "broken line"},
      {"{", "broken line"},
      {"[1]", "no JSON object"},
      {"nonsense", "broken line"},
      {R"({"type":"exit","t":1,"process":1} x)", "broken line"},
      {R"({"t":1})", "\"type\" is missing"},
      {R"({"type":7})", "\"type\""},
      {R"({"type":"capture","version":1})", "another capture"},
      {R"({"type":"exit","process":1})", "\"t\" is missing"},
      {R"({"type":"exit","t":"1","process":1})", "\"t\" is no number"},
      {R"({"type":"exit","t":1e300,"process":1})", "\"t\" is out of range"},
      {R"({"type":"exit","t":1e999,"process":1})", "broken line"},
      {R"({"type":"exit","t":NaN,"process":1})", "broken line"},
      {R"({"type":"exit","t":1,"process":-1})", "\"process\""},
      {R"({"type":"exit","t":1,"process":1.5})", "\"process\""},
      {R"({"type":"exit","t":1,"process":4294967296})", "\"process\" is out of range"},
      {R"({"type":"process","process":1,"pid":99999999999})", "\"pid\""},
      {R"({"type":"process","process":1,"pid":1,"comm":7})", "\"comm\""},
      {R"({"type":"process","process":1,"pid":1,"comm":")"
       "\xff\xfe"
       R"("})",
       "broken line"},
      {R"({"type":"stack","stack":1})", "\"frames\" is missing"},
      {R"({"type":"stack","stack":1,"frames":"main"})", "\"frames\" is no array"},
      {R"({"type":"stack","stack":1,"frames":[1]})", "no string"},
      {R"({"type":"stack","stack":1,"frames":["a"],"objects":[1,2]})", "not as long"},
      {R"({"type":"delta","t":1,"process":1,"exposure_s":1,"values":[]})", "\"probe\" is missing"},
      {R"({"type":"delta","t":1,"process":1,"probe":"on_cpu","values":[]})", "\"exposure_s\" is missing"},
      {R"({"type":"delta","t":1,"process":1,"probe":"on_cpu","exposure_s":-1,"values":[]})", "negative"},
      {R"({"type":"delta","t":1,"process":1,"probe":"on_cpu","exposure_s":1})", "\"values\" is missing"},
      {R"({"type":"delta","t":1,"process":1,"probe":"on_cpu","exposure_s":1,"values":[1]})", "[stack, value]"},
      {R"({"type":"delta","t":1,"process":1,"probe":"on_cpu","exposure_s":1,"values":[[1,2,3]]})", "[stack, value]"},
      {R"({"type":"delta","t":1,"process":1,"probe":"on_cpu","exposure_s":1,"values":[[1,1.5]]})", "[stack, value]"},
      {R"({"type":"delta","t":1,"process":1,"probe":"on_cpu","exposure_s":1,"values":[],"lost":3})", "\"lost\""},
      {R"({"type":"delta","t":1,"process":1,"probe":"on_cpu","exposure_s":1,"values":[],"lost":{"map_full":-3}})",
       "\"lost\""},
      {R"({"type":"sample","t":1,"process":1,"on_cpu_s":-1})", "negative"},
  };
  for (const auto& [line, why] : cases) {
    const Read all = read(R"({"type":"exit","t":1,"process":1})"
                          "\n" +
                          line +
                          "\n"
                          R"({"type":"exit","t":1,"process":1})"
                          "\n");
    EXPECT_EQ(all.records.size(), 1U) << line;
    EXPECT_THAT(all.error, HasSubstr("read FILE: line 3, byte ")) << line;
    EXPECT_THAT(all.error, HasSubstr(why)) << line;
  }
}

TEST(CaptureReaderTest, ALineThatIsCutIsAnErrorAfterTheWholeOnes) {
  const std::string exit = R"({"type":"exit","t":1,"process":1})";
  const Read cut = read(exit + "\n" + exit.substr(0, 20));
  EXPECT_EQ(cut.records.size(), 1U);
  EXPECT_THAT(cut.error, HasSubstr("line 3"));
  EXPECT_THAT(cut.error, HasSubstr("ends in the middle"));
  EXPECT_EQ(read(exit + "\n" + exit).error, "") << "only its end of line is missing";
}

TEST(CaptureReaderTest, BoundsAreKept) {
  const std::string deep =
      R"({"type":"later","x":)" + std::string(1'000'000, '[') + std::string(1'000'000, ']') + "}\n";
  EXPECT_EQ(read(deep).error, "") << "nesting costs no stack";
  EXPECT_THAT(read(std::string(kMaxCaptureLineBytes + 1, ' ') + "\n").error, HasSubstr("longer than"));
  std::string many = R"({"type":"stack","stack":1,"frames":["")";
  for (size_t i = 0; i < kMaxCaptureFrames; ++i) many += R"(,"")";
  EXPECT_THAT(read(many + "]}\n").error, HasSubstr("too many"));
}

TEST(CaptureReaderTest, UnknownTypesKeysAndProbesAreSkipped) {
  const Read all = read(R"({"type":"weather","t":1})"
                        "\n"
                        R"({"type":"delta","t":1,"process":1,"probe":"gpu","exposure_s":1,"values":[]})"
                        "\n"
                        R"({"type":"exit","t":1,"process":1,"mood":{"deep":[[[]]]}})"
                        "\n");
  EXPECT_EQ(all.error, "");
  EXPECT_EQ(all.records.size(), 1U);
}

TEST(CaptureReaderTest, TheContractsLinesAreUnderstood) {
  const Read all = read(
      R"({"type":"process","process":1,"pid":4711,"start_time_ns":120000000,"comm":"redis-server","exe":"/usr/bin/redis-server","cgroup":"/system.slice/redis.service","unit":"redis.service","nice":0})"
      "\n"
      R"({"type":"stack","stack":77,"frames":["main","aeMain","do_syscall_64_[k]"]})"
      "\n"
      R"({"type":"sample","t":12.0,"process":1,"on_cpu_s":0.93,"run_queue_s":0.01,"voluntary_switches":120,"involuntary_switches":3,"minor_faults":0,"major_faults":0,"rss_bytes":4096,"read_bytes":0,"write_bytes":0,"threads":4})"
      "\n"
      R"({"type":"delta","t":12.0,"process":1,"probe":"memory","exposure_s":0.93,"values":[[77,13],[78,-9223372036854775808]],"lost":{"map_full":0,"truncated":0,"unwind_failed":1,"of_later_times":3}})"
      "\n"
      R"({"type":"exit","t":40.0,"process":1})"
      "\n");
  ASSERT_EQ(all.error, "");
  ASSERT_EQ(all.records.size(), 5U);
  const auto& process = std::get<CapturedProcess>(all.records[0]);
  EXPECT_EQ(process.identity.key, (ProcessKey{4711, 120'000'000}));
  EXPECT_EQ(process.identity.unit, "redis.service");
  EXPECT_THAT(std::get<CapturedStack>(all.records[1]).frames, ElementsAre("main", "aeMain", "do_syscall_64_[k]"));
  EXPECT_EQ(std::get<CapturedSample>(all.records[2]).difference.on_cpu_ns, 930'000'000U);
  const auto& delta = std::get<CapturedDelta>(all.records[3]);
  EXPECT_EQ(delta.probe, ProbeKind::kMemory);
  ASSERT_EQ(delta.values.size(), 2U);
  EXPECT_EQ(delta.values[1].value, INT64_MIN);
  EXPECT_EQ(delta.lost[LossReason::kUnwindFailed], 1U);
  EXPECT_FALSE(delta.frequency_hz);
  EXPECT_EQ(std::get<CapturedEnd>(all.records[4]).kind, CapturedEnd::Kind::kExit);
  const auto reader = CaptureReader::create(bytes_of(kHeader), "FILE");
  ASSERT_TRUE(reader);
  EXPECT_EQ(reader->header().tick_s, 2);
  EXPECT_EQ(reader->header().started_ns, 1'795'348'800'000'000'000U);
}

}  // namespace
}  // namespace stackwatch
