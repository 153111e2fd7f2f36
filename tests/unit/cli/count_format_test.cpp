// SPDX-License-Identifier: Apache-2.0
#include "cli/count_format.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidjson/document.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "cli/probe_table.h"
#include "core/unique_fd.h"

namespace stackwatch {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr auto kOnCpu = ProbeKind::kOnCpu;
constexpr auto kBlocked = ProbeKind::kBlocked;
constexpr auto kRunQueue = ProbeKind::kRunQueue;
constexpr auto kMemory = ProbeKind::kMemory;

class CountFormatTest : public testing::Test {
 protected:
  /// "main;work;read_[k]"
  StackId stack(const std::string& folded) {
    std::vector<FunctionId> frames;
    for (size_t at = 0; at <= folded.size();) {
      const size_t end = std::min(folded.find(';', at), folded.size());
      const std::string name = folded.substr(at, end - at);
      frames.push_back(functions_.intern(name == "[unknown]" ? "" : "object", name));
      at = end + 1;
    }
    return stacks_.intern(frames);
  }
  CountReport::Process& process(int32_t pid, const std::string& comm) {
    CountReport::Process& process = report_.processes.emplace_back();
    process.identity.key = {pid, 1};
    process.identity.pid_in_ns = pid;
    process.identity.comm = comm;
    return process;
  }
  void put(CountReport::Process& process, ProbeKind kind, const std::string& folded, int64_t value) {
    auto probe = std::ranges::find(process.probes, kind, &CountReport::Probe::kind);
    if (probe == process.probes.end()) {
      probe = process.probes.emplace(process.probes.end());
      probe->kind = kind;
      if (kind == kOnCpu) probe->frequency_hz = 100;
    }
    probe->values[stack(folded)] += value;
    probe->total += value;
  }
  std::string print(CountFormatter& formatter) {
    const UniqueFd file(memfd_create("report", MFD_CLOEXEC));
    TextStream out(file.get());
    formatter.print(report_, {functions_, stacks_}, out);
    EXPECT_TRUE(out.flush());
    std::string text(1 << 20, '\0');
    text.resize(static_cast<size_t>(pread(file.get(), text.data(), text.size(), 0)));
    return text;
  }
  std::string print(CountFormat format, const std::vector<ProbeKind>& kinds) {
    return print(*make_count_formatter(format, kinds));
  }

  FunctionTable functions_;
  StackTable stacks_;
  CountReport report_;
};

TEST_F(CountFormatTest, ClassicGivesIdsInOrderOfAppearanceAndMinus14ToWhatIsMissing) {
  auto& first = process(12, "a");
  put(first, kOnCpu, "main;work", 50);
  put(first, kOnCpu, "main;work;sys_[k];read_[k]", 40);
  put(first, kOnCpu, "main;other;sys_[k];read_[k]", 30);
  put(first, kOnCpu, "irq_[k]", 20);
  put(first, kOnCpu, "[unknown]", 10);
  auto& second = process(7, "b");
  put(second, kOnCpu, "main;work", 3);
  const auto formatter = make_count_formatter(CountFormat::kClassic, {kOnCpu});
  EXPECT_EQ(print(*formatter),
            "---------on_cpu---------\n"
            "12 (0,-14) 50\n"
            "12 (0,1) 40\n"
            "12 (2,1) 30\n"
            "12 (-14,3) 20\n"
            "12 (-14,-14) 10\n"
            "7 (0,-14) 3\n");
  // Ids stay what they are for the whole run.
  report_.processes.clear();
  put(process(9, "c"), kOnCpu, "main;other;irq_[k]", 1);
  EXPECT_EQ(print(*formatter), "---------on_cpu---------\n9 (2,3) 1\n");
}

TEST_F(CountFormatTest, ClassicHasAGroupPerProbeInItsOwnUnit) {
  auto& one = process(1, "a");
  put(one, kOnCpu, "main", 5);
  put(one, kBlocked, "main;wait", 1'500'000);  // 15 of 0.1 ms
  put(one, kRunQueue, "main;wait", 500'000);   // and 5 in the same stack
  put(one, kMemory, "main;keep", 3 * 1024);
  put(one, kMemory, "main;drop", -2 * 1024);
  EXPECT_EQ(print(CountFormat::kClassic, {kOnCpu, kBlocked, kRunQueue, kMemory}),
            "---------on_cpu---------\n1 (0,-14) 5\n"
            "---------off_cpu---------\n1 (1,-14) 20\n"
            "---------memory---------\n1 (2,-14) 3\n1 (3,-14) -2\n");
  EXPECT_THAT(print(CountFormat::kClassic, {kBlocked}), HasSubstr("---------blocked---------\n"));
  EXPECT_EQ(print(CountFormat::kClassic, {ProbeKind::kPageFault}), "---------page_fault---------\n");
}

TEST_F(CountFormatTest, ClassicLosesNoSmallWaits) {
  auto& one = process(1, "a");
  for (int i = 0; i < 1000; ++i) put(one, kBlocked, "main;wait" + std::to_string(i), 40'000);  // 0.04 ms each
  const std::string text = print(CountFormat::kClassic, {kBlocked, kRunQueue});
  EXPECT_EQ(std::ranges::count(text, '\n'), 1 + 400) << "40 ms are 400 lines of 0.1 ms";
}

TEST_F(CountFormatTest, FoldedOfOneProbeIsInItsOwnUnit) {
  auto& one = process(1, "evil;comm\n");
  put(one, kOnCpu, "main;std::map<a, b>;x;read_[k]", 7);
  EXPECT_EQ(print(CountFormat::kFolded, {kOnCpu}), "evil:comm\\x0a;main;std::map<a, b>;x;read_[k] 7\n");
}

TEST_F(CountFormatTest, FoldedOfSeveralProbesAddsUpAndTellsThemApart) {
  auto& one = process(1, "a");
  put(one, kOnCpu, "main", 7);  // at 100 Hz: 70 ms
  put(one, kBlocked, "main;wait", 2'000'000);
  put(one, kRunQueue, "main", 1500);
  EXPECT_EQ(print(CountFormat::kFolded, {kOnCpu, kBlocked, kRunQueue}),
            "a;[on_cpu];main 70000\na;[blocked];main;wait 2000\na;[run_queue];main 2\n");
}

TEST_F(CountFormatTest, FoldedKeepsIntervalsApart) {
  put(process(1, "a"), kOnCpu, "main", 7);
  const auto formatter = make_count_formatter(CountFormat::kFolded, {kOnCpu});
  EXPECT_EQ(print(*formatter), "a;main 7\n");
  EXPECT_EQ(print(*formatter), "\na;main 7\n");
}

TEST_F(CountFormatTest, TreeHasHotAndColdInOneUnit) {
  auto& one = process(42, "redis");
  put(one, kOnCpu, "main;loop;get", 30);              // 300 ms
  put(one, kOnCpu, "main;loop;set", 10);              // 100 ms
  put(one, kBlocked, "main;loop;wait", 500'000'000);  // 500 ms
  put(one, kRunQueue, "main;loop;get", 100'000'000);  // 100 ms
  report_.seconds = 1;
  one.probes[0].lost[LossReason::kTruncated] = 3;
  EXPECT_EQ(print(CountFormat::kTree, {kOnCpu, kBlocked, kRunQueue}),
            "redis[42], 1 s: on_cpu 400 ms (40 samples at 100 Hz), blocked 500.0 ms, run_queue 100.0 ms; lost: 3 "
            "truncated\n"
            "     on_cpu ms    blocked ms  run_queue ms     share  function\n"
            "         400.0         500.0         100.0   100.0 %  main\n"
            "         400.0         500.0         100.0   100.0 %    loop\n"
            "             -         500.0             -    50.0 %      wait\n"
            "         300.0             -         100.0    40.0 %      get\n"
            "         100.0             -             -    10.0 %      set\n");
}

TEST_F(CountFormatTest, TreeOfOneProbeIsInItsUnitAndPrunesTellingSo) {
  auto& one = process(42, "redis");
  put(one, kOnCpu, "main;hot", 999);
  put(one, kOnCpu, "main;cold", 1);
  put(one, kMemory, "main;keep", 2048);
  put(one, kMemory, "main;drop", -2048);
  const std::string text = print(CountFormat::kTree, {kOnCpu, kMemory});
  EXPECT_THAT(text, HasSubstr("       samples     share  function\n"
                              "          1000   100.0 %  main\n"
                              "           999    99.9 %    hot\n"
                              "(1 branches below 0.5 % are left out)\n"));
  EXPECT_THAT(text, HasSubstr("        -2.0KB   -50.0 %    drop\n"));
  EXPECT_THAT(text, Not(HasSubstr("cold")));
}

TEST_F(CountFormatTest, TreeStandsADeepStackAndNoStackAtAll) {
  std::string deep = "f0";
  for (int i = 1; i < 500; ++i) deep += ";f" + std::to_string(i);
  put(process(1, "a"), kOnCpu, deep, 1);
  EXPECT_THAT(print(CountFormat::kTree, {kOnCpu}), HasSubstr("f499\n"));
  report_.processes.clear();
  process(2, "idle").probes.emplace_back();
  EXPECT_EQ(print(CountFormat::kTree, {kOnCpu}), "idle[2], 0 ms: on_cpu 0 ms (0 samples at 0 Hz); lost: none\n");
}

TEST_F(CountFormatTest, JsonIsOneDocumentOnALineWhateverTheNamesAre) {
  auto& one = process(42, "bad\xff\"\n");
  put(one, kOnCpu, "main;\x1b[31mred\xc3", 30);
  put(one, kOnCpu, "main", 50);
  put(one, kBlocked, "main;wait", 1'000'000);
  one.probes[0].lost[LossReason::kMapFull] = 4;
  report_.seconds = 2;
  report_.begin_realtime_ns = 1'790'000'000'000'000'000;
  const std::string text = print(CountFormat::kJson, {kOnCpu, kBlocked});
  EXPECT_EQ(std::ranges::count(text, '\n'), 1);
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
  rapidjson::Document json;
  json.Parse<rapidjson::kParseValidateEncodingFlag>(text.c_str());
  ASSERT_FALSE(json.HasParseError()) << text;
  EXPECT_STREQ(json["begin"].GetString(), "2026-09-21T14:13:20.000000Z");
  EXPECT_DOUBLE_EQ(json["interval_s"].GetDouble(), 2);
  const auto& shown = json["processes"][0];
  EXPECT_EQ(shown["process"]["pid"].GetInt(), 42);
  const auto& on_cpu = shown["probes"][0];
  EXPECT_STREQ(on_cpu["probe"].GetString(), "on_cpu");
  EXPECT_STREQ(on_cpu["unit"].GetString(), "samples");
  EXPECT_EQ(on_cpu["total"].GetInt64(), 80);
  EXPECT_DOUBLE_EQ(on_cpu["total_ms"].GetDouble(), 800);
  EXPECT_EQ(on_cpu["lost"]["map_full"].GetInt64(), 4);
  EXPECT_EQ(on_cpu["stacks"][0]["value"].GetInt64(), 50);
  EXPECT_STREQ(on_cpu["stacks"][1]["frames"][0].GetString(), "main");
  EXPECT_STREQ(shown["probes"][1]["unit"].GetString(), "ns");
}

TEST(TextStreamTest, SaysThatTheDiskIsFullAndGoesOnSayingSo) {
  const UniqueFd full(open("/dev/full", O_WRONLY | O_CLOEXEC));
  TextStream out(full.get());
  for (int i = 0; i < 100'000; ++i) out << "a line\n";
  const auto flushed = out.flush();
  ASSERT_FALSE(flushed);
  EXPECT_THAT(flushed.error().message(), HasSubstr("No space left"));
  EXPECT_FALSE(out.flush());
}

TEST(ProbeTable, OffCpuIsOneGroupWhereBothItsHalvesAreCounted) {
  const std::vector<ProbeKind> all = {kOnCpu, kBlocked, kRunQueue, kMemory};
  const auto groups = groups_of(all);
  ASSERT_EQ(groups.size(), 3U);
  EXPECT_EQ(groups[1].name, "off_cpu");
  EXPECT_EQ(groups[1].kinds.size(), 2U);
  EXPECT_EQ(groups_of(std::vector{kRunQueue})[0].name, "run_queue");
}

}  // namespace
}  // namespace stackwatch
