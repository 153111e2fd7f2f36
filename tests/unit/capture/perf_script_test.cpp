// SPDX-License-Identifier: Apache-2.0
#include "capture/perf_script.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace stackwatch {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(PerfHeaderTest, OtherLinesAreNone) {
  for (const char* line :
       {"",
        "   ",
        "garbage",
        "redis",
        "redis 1",
        "redis 1 [000]",
        "redis 1 [000] 12.5",
        "redis 1 [000] 12.5:",
        "redis 1 [000] 12.5: 100",
        "redis 1 [000] 12.5: 100 cycles",
        "redis 1 [000] 12:5: 1 cycles:",
        "redis x [000] 12.5: 1 cycles:",
        "redis 1 [000 12.5: 1 cycles:",
        "redis 1/ [000] 12.5: 1 cycles:",
        "redis 99999999999 [000] 12.5: 1 cycles:",
        "redis 1 [000] 99999999999.5: 1 cycles:",
        "redis 1 [000] .5: cycles:",
        "redis 1 12.1234567890: 1 cycles:",
        "\tffffffff81 main+0x1 (/bin/x)",
        "a name of more than the sixty-four bytes that the kernel's longest tasks have in their names 1 1.0: c:"}) {
    EXPECT_FALSE(parse_perf_header(line)) << line;
  }
}

TEST(PerfHeaderTest, CommMayBeAnything) {
  for (const std::string comm :
       {"redis-server", "Web Content", "kworker/0:1-eve", "a 1 2", "[kthreadd]", "tmux: server", "1 [000] 2.0: x",
        ":-1", "12345", "7 1.0: e:", "x/1 1", "(sd-pam)", "a:b:c [1] 9.9:", "memfd:sealed-91"}) {
    for (const std::string rest : {"4711 12.345678: cycles: ", "4711 [003] 12.345678:     250000 cycles: ",
                                   "4700/4711  [003] 12.345678901: 1 cycles: "}) {
      for (const std::string pad : {"", "        "}) {
        const std::string line = pad + comm + "  " + rest;
        const auto header = parse_perf_header(line);
        ASSERT_TRUE(header) << line;
        EXPECT_EQ(header->comm, comm) << line;
        EXPECT_EQ(header->tid, 4711) << line;
        EXPECT_NEAR(header->time_s, 12.345678, 1e-6);
        EXPECT_EQ(header->event, "cycles");
        EXPECT_EQ(header->rest, "");
      }
    }
  }
}

TEST(PerfHeaderTest, EveryFormOfIdsIsRead) {
  const auto tid = parse_perf_header("a 7 1.0: e: ");
  EXPECT_FALSE(tid->pid || tid->cpu || tid->period);
  const auto both = parse_perf_header("a 6/7 [012] 1.5: 1003009 cpu-clock:ppp: \r");
  EXPECT_EQ(both->pid, 6);
  EXPECT_EQ(both->tid, 7);
  EXPECT_EQ(both->cpu, 12U);
  EXPECT_EQ(both->period, 1'003'009U);
  EXPECT_EQ(both->event, "cpu-clock:ppp");
  EXPECT_EQ(both->rest, "");
  EXPECT_EQ(parse_perf_header(":-1 -1 [000] 1.5: e:")->tid, -1);
  EXPECT_EQ(parse_perf_header("a 7 1.5: sched:sched_switch: prev_comm=b 8 9.9: c: ")->event, "sched:sched_switch");
  EXPECT_EQ(parse_perf_header("a 7 [000] 1.5: 1 e:  ffffffff81c3da23 f+0x73 ([kernel.kallsyms])")->rest,
            "ffffffff81c3da23 f+0x73 ([kernel.kallsyms])");
}

TEST(PerfFrameTest, SymbolsAndObjectsMayHoldBlanksAndParentheses) {
  struct Case {
    const char* line;
    const char* symbol;
    const char* object;
    bool kernel;
  };
  const std::vector<Case> cases = {
      {"\t    7f72 main+0x12 (/usr/bin/redis)", "main", "/usr/bin/redis", false},
      {"\t7f72 main (/usr/bin/redis)", "main", "/usr/bin/redis", false},
      {"\t7f72 ns::f(int, char (*)(long)) const+0xab (/opt/my app/lib (1).so)", "ns::f(int, char (*)(long)) const",
       "/opt/my app/lib (1).so", false},
      {"\t7f72 operator()(int)+0x1 (/memfd:x (deleted))", "operator()(int)", "/memfd:x (deleted)", false},
      {"\t7f72 f (/tmp/a)b)", "f", "/tmp/a)b", false},
      {"\t7f72 f (inlined)", "f", "", false},
      {"\t7f72 [unknown] ([unknown])", "[unknown]", "", false},
      {"\t7f72 [unknown] (/usr/lib/libc.so.6)", "[unknown]", "/usr/lib/libc.so.6", false},
      {"\tffffffff81c3da23 do_idle+0x73 ([kernel.kallsyms])", "do_idle", "[kernel.kallsyms]", true},
      {"\tffffffff81c3da23 do_idle ([k])", "do_idle", "[k]", true},
      {"\tffffffffc03da23 xfs_read ([xfs])", "xfs_read", "[xfs]", false},  // too short for the upper half
      {"\tffffffffc03da230 xfs_read ([xfs])", "xfs_read", "[xfs]", true},
      {"\tffffffffc03da230 f (/lib/modules/6.1/kernel/fs/xfs/xfs.ko.xz)", "f",
       "/lib/modules/6.1/kernel/fs/xfs/xfs.ko.xz", true},
      {"\tffffffffc03da230 bpf_prog_6dee_x (bpf_prog_6dee_x)", "bpf_prog_6dee_x", "bpf_prog_6dee_x", true},
      {"\tffffffffff600000 vgettimeofday ([vsyscall])", "vgettimeofday", "[vsyscall]", false},
      {"\t7ffd81c3 __vdso_gettimeofday+0x1 ([vdso])", "__vdso_gettimeofday", "[vdso]", false},
      {"\t7f72 f(int) const", "f(int) const", "", false},
      {"\t69667a7400524944 [unknown] ([unknown])", "[unknown]", "", false},
  };
  for (const Case& c : cases) {
    const auto frame = parse_perf_frame(c.line);
    ASSERT_TRUE(frame) << c.line;
    EXPECT_EQ(frame->symbol, c.symbol) << c.line;
    EXPECT_EQ(frame->object, c.object) << c.line;
    EXPECT_EQ(frame->kernel, c.kernel) << c.line;
  }
  for (const char* line : {"", "\t", "\tmain (/bin/x)", "\t7f72", "\t7f72 ", "\tzz main (/x)"}) {
    EXPECT_FALSE(parse_perf_frame(line)) << line;
  }
}

TEST(PerfEventTest, ModifiersAndPmusAreNoPartOfTheName) {
  EXPECT_EQ(perf_event_name("cpu-clock:pppH"), "cpu-clock");
  EXPECT_EQ(perf_event_name("cycles"), "cycles");
  EXPECT_EQ(perf_event_name("cpu_core/cycles/P"), "cycles");
  EXPECT_EQ(perf_event_name("cpu/event=0x3c,umask=0x1/u"), "event=0x3c");
  EXPECT_EQ(perf_event_name("sched:sched_switch"), "sched:sched_switch");
}

constexpr const char* kText =
    "# a comment\n"
    "redis 4711/4712 [000] 10.000000:    1003009 cpu-clock:ppp: \n"
    "\tffffffff81c3da23 read+0x73 ([kernel.kallsyms])\n"
    "\t            7f72 main+0x1 (/bin/redis)\n"
    "\n"
    "redis 4711/4711 [000] 10.000500:          1 sched:sched_switch: prev_comm=a 1 2.0: x ==> y\n"
    "\tffffffff81c3da23 schedule+0x73 ([kernel.kallsyms])\n"
    "\n"
    "redis 4711/4711 [000] 10.001003:    1003009 cpu-clock:ppp: \n"
    "\t            7f72 main+0x1 (/bin/redis)\n"
    "\n";

struct Read {
  std::vector<std::string> stacks;
  std::string error;
  PerfScriptReader::Counters counters;
};

Read read(const std::string& text, bool skip_bad_lines = false, const std::string& event = "cpu-clock") {
  PerfScriptReader reader(bytes_of(text), "FILE", {.event = event, .skip_bad_lines = skip_bad_lines});
  Read all;
  for (;;) {
    auto sample = reader.next();
    if (!sample) {
      all.error = sample.error().message();
      EXPECT_FALSE(reader.next()) << "it stays";
      break;
    }
    if (!sample->has_value()) break;
    std::string stack((*sample)->header.comm);
    for (const auto& frame : (*sample)->frames) stack += ";" + std::string(frame.symbol) + (frame.kernel ? "_[k]" : "");
    all.stacks.push_back(std::move(stack));
  }
  all.counters = reader.counters();
  return all;
}

TEST(PerfScriptReaderTest, GarbageInTheMiddleIsAnErrorThatNamesTheLine) {
  for (const std::string garbage : {"garbage\n", "\tgarbage\n", "\x01\x02\x03\n", "redis 4711 [000] 10.0\n"}) {
    const Read all = read(kText + garbage + kText);
    EXPECT_EQ(all.stacks.size(), 2U) << garbage;
    EXPECT_THAT(all.error, HasSubstr("read FILE: line 12, byte ")) << garbage;
    EXPECT_THAT(all.error, HasSubstr("--skip-bad-lines")) << garbage;

    const Read skipped = read(kText + garbage + "\n" + kText, true);
    EXPECT_EQ(skipped.error, "") << garbage;
    EXPECT_EQ(skipped.stacks.size(), 4U) << garbage;
    EXPECT_EQ(skipped.counters.bad_lines, 1U);
    EXPECT_EQ(skipped.counters.first_bad_line, 12U);
  }
}

TEST(PerfScriptReaderTest, ASampleWithABadLineIsLeftOutWhole) {
  const std::string text =
      std::string("redis 1/1 10.0: cpu-clock: \n\t7f72 f (/bin/x)\ngarbage\n\t7f72 main (/bin/x)\n\n") + kText;
  const Read all = read(text, true);
  EXPECT_EQ(all.stacks.size(), 2U);
  EXPECT_EQ(all.counters.bad_lines, 1U);
  const Read failed = read(text);
  EXPECT_EQ(failed.stacks.size(), 0U);
  EXPECT_THAT(failed.error, HasSubstr("line 3"));
}

TEST(PerfScriptReaderTest, ATextThatIsCutLosesItsLastSampleAlone) {
  const std::string text(kText);
  const Read all = read(text.substr(0, text.size() - 10));
  EXPECT_EQ(all.stacks.size(), 1U);
  EXPECT_THAT(all.error, HasSubstr("line 10"));
  EXPECT_EQ(read(text.substr(0, text.size() - 10), true).stacks.size(), 1U);
  EXPECT_EQ(read(text.substr(0, text.size() - 1)).stacks.size(), 2U) << "only the blank line is missing";
}

TEST(PerfScriptReaderTest, LinesWithoutEndAreBounded) {
  EXPECT_THAT(read(kText + std::string(100'000, 'x')).error, HasSubstr("longer than"));
  std::string deep = "redis 1/1 10.0: cpu-clock: \n";
  for (int i = 0; i < 2000; ++i) deep += "\t7f72 f (/bin/x)\n";
  const Read all = read(deep + "\n");
  ASSERT_EQ(all.stacks.size(), 1U);
  EXPECT_EQ(std::count(all.stacks[0].begin(), all.stacks[0].end(), ';'), 1024);
}

TEST(PerfScriptReaderTest, OneEventIsReadAndTheOthersAreCounted) {
  const Read all = read(kText);
  EXPECT_EQ(all.error, "");
  EXPECT_THAT(all.stacks, ElementsAre("redis;read_[k];main", "redis;main"));
  EXPECT_THAT(all.counters.skipped, ElementsAre(std::pair<const std::string, uint64_t>("sched:sched_switch", 1)));
  EXPECT_THAT(read(kText, false, "sched:sched_switch").stacks, ElementsAre("redis;schedule_[k]"))
      << "the fields of a tracepoint are no frame";
}

TEST(PerfScriptReaderTest, SamplesWithoutCallChainsAreOneFrame) {
  const Read all = read(
      "         timeout   1/1 [000] 1.000000:    1003009 cpu-clock:ppp:  ffffffff81c3da23 f+0x73 ([kernel.kallsyms])\n"
      "             c++   2/2 [001] 1.000001:    1003009 cpu-clock:ppp:      7fa722b79ae3 g+0x23 (/lib/libc.so.6)\n");
  EXPECT_EQ(all.error, "");
  EXPECT_THAT(all.stacks, ElementsAre("timeout;f_[k]", "c++;g"));
}

TEST(PerfScriptReaderTest, ManyEventsAreCountedInBoundedMemory) {
  std::string text;
  for (int i = 0; i < 500; ++i) text += "a 1/1 1.0: e" + std::to_string(i) + ": x\n";
  const Read all = read(text);
  EXPECT_LE(all.counters.skipped.size(), PerfScriptReader::kMaxSkippedNames + 1);
  uint64_t sum = 0;
  for (const auto& [name, samples] : all.counters.skipped) sum += samples;
  EXPECT_EQ(sum, 500U);
}

TEST(PerfSurveyTest, ItNeedsAnEventItCanChoose) {
  EXPECT_FALSE(survey_perf_script("", ""));
  EXPECT_FALSE(survey_perf_script("garbage\nmore\n", ""));
  const std::string two = "a 1 1.0: x:y: \n\na 1 1.0: z:w: \n\n";
  const auto unclear = survey_perf_script(two, "");
  ASSERT_FALSE(unclear);
  EXPECT_EQ(unclear.error().kind, ErrorKind::kUsage);
  EXPECT_THAT(unclear.error().message(), HasSubstr("x:y, z:w"));
  EXPECT_TRUE(survey_perf_script(two, "z:w"));
  EXPECT_EQ(survey_perf_script(kText, "")->event, "cpu-clock");
}

TEST(PerfSurveyTest, TheFrequencyIsThatOfThePeriodOrOfTheDistances) {
  const auto clock = survey_perf_script(kText, "");
  ASSERT_TRUE(clock && clock->frequency_hz);
  EXPECT_NEAR(*clock->frequency_hz, 997, 0.01);
  EXPECT_TRUE(clock->has_pids);
  std::string cycles;
  for (int i = 0; i < 300; ++i) {  // two CPUs at 100 Hz, one of them idle half of the time
    char line[96];
    std::snprintf(line, sizeof line, "a 1 [000] %.6f: %d cycles: \n\n", 5 + 0.01 * i, 1000 + i);
    cycles += line;
    std::snprintf(line, sizeof line, "a 1 [001] %.6f: %d cycles: \n\n", 5.003 + 0.01 * i, 1000 + i);
    if (i % 50 < 25) cycles += line;
  }
  const auto distances = survey_perf_script(cycles, "");
  ASSERT_TRUE(distances && distances->frequency_hz);
  EXPECT_NEAR(*distances->frequency_hz, 100, 0.1);
  EXPECT_FALSE(survey_perf_script("a 1 5.0: cycles: \n\n", "")->frequency_hz) << "nothing tells";
}

}  // namespace
}  // namespace stackwatch
