// SPDX-License-Identifier: Apache-2.0
#include "daemon/capture_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace stackwatch {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::string kHeader = R"({"type":"capture","version":1,"started":"2026-11-22T12:00:00Z","tick_s":1.0})"
                            "\n";
const std::string kMarked =
    R"({"type":"capture","version":1,"started":"2026-11-22T12:00:00Z","tick_s":1.0,"origin_s":5000,"marks_ticks":true})"
    "\n";
const std::string kTwo = R"({"type":"process","process":1,"pid":4711,"start_time_ns":10000000,"comm":"redis"}
{"type":"process","process":2,"pid":99,"start_time_ns":20000000,"comm":"nginx"}
{"type":"stack","stack":77,"frames":["main","parse"]}
{"type":"stack","stack":78,"frames":["main","render"]}
)";
constexpr ProcessKey kRedis{4711, 10'000'000};

std::string delta(double t, int process, const std::string& values, const std::string& more = "") {
  return R"({"type":"delta","t":)" + std::to_string(t) + R"(,"process":)" + std::to_string(process) +
         R"(,"probe":"on_cpu","exposure_s":0.5,"values":)" + values + more + "}\n";
}

struct Ticks {
  std::vector<double> times;
  std::vector<size_t> deltas;
  std::vector<NamedDelta> all;
  std::string error;
};

Ticks read(const std::string& text) {
  Ticks ticks;
  CaptureSource source(std::move(*CaptureReader::create(bytes_of(text), "FILE")));
  for (;;) {
    auto batch = source.next();
    if (!batch) {
      ticks.error = batch.error().message();
      EXPECT_FALSE(source.next()) << "an error stays";
      return ticks;
    }
    if (!batch->has_value()) return ticks;
    ticks.times.push_back((*batch)->time_s);
    ticks.deltas.push_back((*batch)->deltas.size());
    for (const NamedDelta& one : (*batch)->deltas) ticks.all.push_back(one);
  }
}

TEST(CaptureSourceTest, WhatIsNotKnownIsABrokenLineAfterTheTicksBeforeIt) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {delta(2, 3, "[]"), "process 3 is not known"},
      {delta(2, 1, "[[79,1]]"), "stack 79 is not known"},
      {R"({"type":"exit","t":2,"process":7})"
       "\n",
       "process 7"},
      {R"({"type":"sample","t":2,"process":7})"
       "\n",
       "process 7"},
      {R"({"type":"losses","process":7,"probe":"on_cpu"})"
       "\n",
       "process 7"},
      {R"({"type":"stack","stack":79,"process":7,"frames":[]})"
       "\n",
       "process 7"},
      {R"({"type":"stack","stack":77,"frames":[]})"
       "\n",
       "told twice"},
      {R"({"type":"stack","stack":79,"frames":["a"],"objects":[5]})"
       "\n",
       "object 5"},
      {R"({"type":"process","process":1,"pid":5})"
       "\n",
       "another one already"},
      {delta(500, 1, "[]") + delta(2, 1, "[]"), "goes back"},
  };
  for (const auto& [lines, why] : cases) {
    const Ticks ticks = read(kHeader + kTwo + delta(1, 1, "[[77,1]]") + lines + delta(3, 1, "[]"));
    EXPECT_GE(ticks.times.size(), 1U) << lines;
    EXPECT_THAT(ticks.error, HasSubstr(why)) << lines;
    EXPECT_THAT(ticks.error, HasSubstr("line ")) << lines;
  }
}

TEST(CaptureSourceTest, ACaptureThatIsCutGivesWhatItHas) {
  const std::string text = kMarked + kTwo + delta(1, 1, "[[77,1]]") + "{\"type\":\"tick\",\"t\":1.0}\n" +
                           delta(2, 1, "[[77,1]]") + "{\"type\":\"ti";
  const Ticks ticks = read(text);
  EXPECT_THAT(ticks.times, ElementsAre(5001, 5002));
  EXPECT_THAT(ticks.error, HasSubstr("line 9"));
}

TEST(CaptureSourceTest, HugeNumbersDoNoHarm) {
  const Ticks ticks =
      read(kHeader + kTwo + delta(1, 1, "[[77,9223372036854775807],[77,9223372036854775807]]") +
           R"({"type":"sample","t":1,"process":1,"on_cpu_s":4e9,"voluntary_switches":18446744073709551615})"
           "\n"
           R"({"type":"sample","t":1,"process":1,"on_cpu_s":4e9,"voluntary_switches":18446744073709551615})"
           "\n");
  EXPECT_EQ(ticks.error, "");
  ASSERT_EQ(ticks.all.size(), 1U);
  ASSERT_EQ(ticks.all[0].values.size(), 1U) << "a stack that is named twice is one";
  EXPECT_EQ(ticks.all[0].values[0].value, INT64_MAX);
}

TEST(CaptureSourceTest, TooManyValuesInATickAreRefused) {
  std::string values = "[[77,1]";
  for (int i = 0; i < 100'000; ++i) values += ",[77,1]";
  values += "]";
  std::string text = kHeader + kTwo;
  for (size_t i = 0; i <= CaptureSource::kMaxTickValues / 100'000; ++i) text += delta(1, 1, values);
  EXPECT_THAT(read(text).error, HasSubstr("values in a tick"));
}

TEST(CaptureSourceTest, LinesOfSeveralProcessesAreOneTick) {
  // Merged from two recorders whose clocks tick apart.
  const Ticks ticks = read(kHeader + kTwo + delta(1, 1, "[[77,1]]") + delta(1.2, 2, "[[77,1]]") +
                           delta(2.01, 1, "[[77,1]]") + delta(2.2, 2, "[]") + delta(2, 1, "[]") + delta(3, 2, "[]"));
  EXPECT_EQ(ticks.error, "");
  EXPECT_THAT(ticks.deltas, ElementsAre(2, 3, 1));
  EXPECT_THAT(ticks.times, ElementsAre(1.2, 2.2, 3));
}

TEST(CaptureSourceTest, WhatOlderCapturesLeaveOutIsFoundOut) {
  const Ticks ticks = read(kHeader + kTwo + delta(1, 1, "[[77,40]]") + delta(3, 1, "[[77,10],[78,50]]"));
  ASSERT_EQ(ticks.all.size(), 2U);
  EXPECT_EQ(ticks.all[0].interval_s, 1) << "the nominal tick";
  EXPECT_EQ(ticks.all[1].interval_s, 2) << "since the last one";
  EXPECT_EQ(ticks.all[0].frequency_hz, 80) << "40 in half a second";
  EXPECT_EQ(ticks.all[1].frequency_hz, 100);
}

TEST(CaptureSourceTest, IdentityLossesAndCensusFollowTheLines) {
  const std::string text =
      kMarked +
      R"({"type":"process","process":1,"pid":4711,"initial_pid":10,"start_time_ns":10000000,"comm":"sh","totals":{"on_cpu_s":7.5,"voluntary_switches":5}})"
      "\n"
      R"({"type":"sample","t":1,"process":1,"on_cpu_s":0.25,"voluntary_switches":2,"threads":3})"
      "\n" +
      delta(1, 1, "[]", R"(,"lost":{"map_full":2})") + "{\"type\":\"tick\",\"t\":1.0,\"clock_ns\":5}\n" +
      R"({"type":"process","process":1,"pid":4711,"initial_pid":10,"start_time_ns":10000000,"comm":"redis"})"
      "\n"
      R"({"type":"replaced","t":2,"process":1})"
      "\n"
      R"({"type":"losses","process":1,"probe":"on_cpu","lost":{"map_full":9}})"
      "\n"
      "{\"type\":\"tick\",\"t\":2.0}\n";
  CaptureSource source(std::move(*CaptureReader::create(bytes_of(text), "FILE")));
  const ProcessKey key{10, 10'000'000};
  auto first = source.next();
  ASSERT_TRUE(first && first->has_value());
  EXPECT_EQ(source.identify(key).comm, "sh");
  EXPECT_EQ(source.identify(key).pid_in_ns, 4711);
  EXPECT_EQ(source.losses(key, ProbeKind::kOnCpu)[LossReason::kMapFull], 2U);
  ASSERT_EQ((*first)->samples.size(), 1U);
  EXPECT_EQ((*first)->samples[0].on_cpu_ns, 7'750'000'000U);
  EXPECT_EQ((*first)->samples[0].voluntary_switches, 7U);
  EXPECT_EQ((*first)->samples[0].threads, 3U);
  EXPECT_EQ((*first)->time_s, 5001);
  constexpr int64_t kStartedNs = 1'795'348'800'000'000'000;
  EXPECT_EQ((*first)->realtime_offset_ns, kStartedNs - 5'000'000'000'000 + 5);
  EXPECT_EQ(source.clock().realtime_ns(), static_cast<uint64_t>(kStartedNs) + 1'000'000'005U);
  auto second = source.next();
  ASSERT_TRUE(second && second->has_value());
  EXPECT_THAT((*second)->replaced, ElementsAre(key));
  EXPECT_EQ(source.identify(key).comm, "redis");
  EXPECT_EQ(source.losses(key, ProbeKind::kOnCpu)[LossReason::kMapFull], 9U);
}

TEST(CaptureSourceTest, ProcessesThatEndLeaveNothingBehind) {
  std::string text = kMarked;
  // More in turn than may be there at a time.
  for (size_t i = 1; i <= CaptureSource::kMaxProcesses + 1000; ++i) {
    const std::string n = std::to_string(i);
    text += R"({"type":"process","process":)" + n + R"(,"pid":)" + n + "}\n" + R"({"type":"exit","t":)" + n +
            R"(,"process":)" + n + "}\n" + R"({"type":"tick","t":)" + n + "}\n";
  }
  EXPECT_EQ(read(text).error, "");
  std::string alive = kHeader;
  for (size_t i = 1; i <= CaptureSource::kMaxProcesses + 1; ++i) {
    const std::string n = std::to_string(i);
    alive += R"({"type":"process","process":)" + n + R"(,"pid":)" + n + "}\n";
  }
  EXPECT_THAT(read(alive).error, HasSubstr("more than 65536 processes"));
}

TEST(CaptureSourceTest, FunctionsOfOneNameInTwoFilesAreTwo) {
  const std::string text = kHeader +
                           R"({"type":"process","process":1,"pid":4711,"start_time_ns":10000000})"
                           "\n"
                           R"({"type":"object","object":1,"name":"a"})"
                           "\n"
                           R"({"type":"object","object":2,"name":"b"})"
                           "\n"
                           R"({"type":"stack","stack":1,"process":1,"frames":["init"],"objects":[1]})"
                           "\n"
                           R"({"type":"stack","stack":2,"process":1,"frames":["init"],"objects":[2]})"
                           "\n"
                           R"({"type":"stack","stack":3,"process":1,"frames":["init"],"objects":[1]})"
                           "\n" +
                           delta(1, 1, "[[1,1],[2,2],[3,4]]");
  CaptureSource source(std::move(*CaptureReader::create(bytes_of(text), "FILE")));
  auto batch = source.next();
  ASSERT_TRUE(batch && batch->has_value());
  ASSERT_EQ((*batch)->deltas.size(), 1U);
  const NamedDelta& only = (*batch)->deltas[0];
  EXPECT_EQ(only.process, kRedis);
  ASSERT_EQ(only.values.size(), 2U) << "stack 3 is stack 1";
  EXPECT_EQ(only.values[0].value, 5);
  EXPECT_EQ((*only.functions)[(*only.stacks)[only.values[1].stack][0]].object, "b");
}

}  // namespace
}  // namespace stackwatch
