// SPDX-License-Identifier: Apache-2.0
#include "capture/perf_import.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "capture/reader.h"

namespace stackwatch {
namespace {

using ::testing::HasSubstr;

class PerfImportTest : public testing::Test {
 protected:
  ~PerfImportTest() override { std::filesystem::remove(path_); }

  std::string sample(const std::string& comm, int pid, int tid, double time_s, const std::string& leaf = "work") {
    return fmt::format(
        "{:<8} {}/{} [000] {:.6f}:   10000000 cpu-clock: \n\t7f72 {}+0x1 (/bin/x)\n\t7f72 main (/bin/x)\n\n", comm, pid,
        tid, time_s, leaf);
  }
  Result<PerfImportReport> import(const std::string& text, PerfImportOptions options = {}) {
    return import_perf_script(bytes_of(text), "FILE", path_, options);
  }
  std::vector<CaptureRecord> records() {
    std::vector<CaptureRecord> all;
    auto reader = CaptureReader::open(path_);
    EXPECT_TRUE(reader) << reader.error().message();
    while (reader) {
      auto record = reader->next();
      EXPECT_TRUE(record) << record.error().message();
      if (!record || !record->has_value()) break;
      all.push_back(std::move(**record));
    }
    return all;
  }
  template <class T>
  std::vector<T> only() {
    std::vector<T> found;
    for (const CaptureRecord& record : records()) {
      if (const T* wanted = std::get_if<T>(&record)) found.push_back(*wanted);
    }
    return found;
  }

  std::string path_ = "/tmp/stackwatch-import-" + std::to_string(getpid());
};

TEST_F(PerfImportTest, ErrorsSayWhatToDo) {
  EXPECT_THAT(import("").error().message(), HasSubstr("perf record"));
  EXPECT_THAT(import("a 1/1 1.0: cycles: \n\t7f main (/x)\n\n").error().message(), HasSubstr("say it with -F"));
  EXPECT_THAT(import("a 1/1 1.0: x:y: \n\na 1/1 1.0: z:w: \n\n").error().message(), HasSubstr("--event"));
  PerfImportOptions options;
  options.event = "nothing";
  options.frequency_hz = 99;
  EXPECT_THAT(import(sample("a", 1, 1, 1), options).error().message(), HasSubstr("no samples of the event nothing"));
  path_ = "/nonexistent/capture";
  EXPECT_THAT(import(sample("a", 1, 1, 1)).error().message(), HasSubstr("/nonexistent/capture"));
}

TEST_F(PerfImportTest, WhatIsCompleteBeforeGarbageIsKept) {
  std::string text;
  for (int i = 0; i < 350; ++i) text += sample("a", 1, 1, 5 + 0.01 * i);
  const auto failed = import(text + "garbage\n" + sample("a", 1, 1, 9));
  ASSERT_FALSE(failed);
  EXPECT_THAT(failed.error().message(), HasSubstr("line 1401"));
  int64_t samples = 0;
  for (const auto& delta : only<CapturedDelta>()) {
    for (const auto& value : delta.values) samples += value.value;
  }
  EXPECT_EQ(samples, 350);
}

TEST_F(PerfImportTest, TimeThatGoesBackFarIsABadLineAndALittleIsNot) {
  const std::string text = sample("a", 1, 1, 100) + sample("a", 1, 1, 103) + sample("a", 1, 1, 101);
  const auto late = import(text);
  ASSERT_TRUE(late);
  EXPECT_EQ(late->late, 1U);
  EXPECT_THAT(import(text + sample("a", 1, 1, 50)).error().message(), HasSubstr("goes back"));
  PerfImportOptions skipping;
  skipping.skip_bad_lines = true;
  const auto skipped = import(text + sample("a", 1, 1, 50), skipping);
  ASSERT_TRUE(skipped);
  EXPECT_EQ(skipped->read.bad_lines, 1U);
}

TEST_F(PerfImportTest, NothingIsLostAndTicksAreSeconds) {
  std::string text;
  for (int i = 0; i < 1050; ++i) {
    text += sample("busy", 10, 10 + i % 3, 50 + 0.01 * i, i % 2 == 0 ? "even" : "odd");
    if (i % 10 == 0) text += sample("calm", 20, 20, 50.001 + 0.01 * i);
  }
  const auto report = import(text);
  ASSERT_TRUE(report) << report.error().message();
  EXPECT_EQ(report->read.samples, 1155U);
  EXPECT_EQ(report->ticks, 11U);
  EXPECT_EQ(report->processes, 2U);
  EXPECT_NEAR(*report->survey.frequency_hz, 100, 1e-9);
  std::map<uint32_t, int64_t> sums;
  double exposure_s = 0;
  const auto deltas = only<CapturedDelta>();
  for (const auto& delta : deltas) {
    for (const auto& value : delta.values) sums[delta.process] += value.value;
    exposure_s += delta.exposure_s;
    EXPECT_EQ(delta.frequency_hz, report->survey.frequency_hz);
  }
  EXPECT_EQ(sums[1], 1050);
  EXPECT_EQ(sums[2], 105);
  EXPECT_NEAR(exposure_s, 11.55, 1e-9);
  EXPECT_EQ(deltas.front().t, 1);
  EXPECT_NEAR(*deltas.back().interval_s, 0.5, 0.02) << "the last tick is as long as there are samples";
  EXPECT_EQ(only<CapturedProcess>()[0].identity.comm, "busy");
}

TEST_F(PerfImportTest, FramesAreRootFirstAndKernelFramesMarked) {
  ASSERT_TRUE(import(
      "a 1/1 [000] 1.000000: 10000000 cpu-clock: \n\tffffffff81c3da23 vfs_read+0x1 ([kernel.kallsyms])\n"
      "\tffffffffc0c3da23 [unknown] ([kernel.kallsyms])\n\t7f72 [unknown] (/lib/libc.so.6)\n\t0 [unknown] ([unknown])\n"
      "\t7f72 main (/bin/x)\n\n"));
  const auto stacks = only<CapturedStack>();
  ASSERT_EQ(stacks.size(), 2U);
  EXPECT_THAT(stacks[1].frames,
              testing::ElementsAre("main", "[unknown]", "[libc.so.6]", "[kernel]_[k]", "vfs_read_[k]"));
  std::map<uint32_t, std::string> objects;
  for (const auto& object : only<CapturedObject>()) objects[object.number] = object.name;
  EXPECT_EQ(objects[stacks[1].objects[0]], "/bin/x");
  EXPECT_EQ(objects[stacks[1].objects[4]], "kernel");
}

TEST_F(PerfImportTest, WhoIsSilentIsDetachedAndALongGapCostsNothing) {
  const std::string text = sample("a", 1, 1, 10) + sample("b", 2, 2, 10.5) + sample("b", 2, 2, 14) +
                           sample("b", 2, 2, 1'000'000) + sample("a", 1, 1, 1'000'001);
  const auto report = import(text);
  ASSERT_TRUE(report);
  EXPECT_LT(report->ticks, 20U) << "no ticks of nobody";
  EXPECT_EQ(report->processes, 4U) << "who comes back is told anew";
  const auto ends = only<CapturedEnd>();
  ASSERT_GE(ends.size(), 2U);
  EXPECT_EQ(ends[0].kind, CapturedEnd::Kind::kDetached);
}

TEST_F(PerfImportTest, AnotherNameOfTheLeaderIsAnotherProgram) {
  ASSERT_TRUE(import(sample("thread", 1, 2, 1) + sample("sh", 1, 1, 1.1) + sample("thread", 1, 2, 1.2) +
                     sample("ls", 1, 1, 2.5)));
  const auto ends = only<CapturedEnd>();
  ASSERT_EQ(ends.size(), 1U);
  EXPECT_EQ(ends[0].kind, CapturedEnd::Kind::kReplaced);
  const auto processes = only<CapturedProcess>();
  EXPECT_EQ(processes.front().identity.comm, "sh");
  EXPECT_EQ(processes.back().identity.comm, "ls");
}

TEST_F(PerfImportTest, IdleTasksAreNoProcess) {
  const auto report = import(sample("swapper", 0, 0, 1) + sample("a", 1, 1, 1.5));
  ASSERT_TRUE(report);
  EXPECT_EQ(report->idle, 1U);
  EXPECT_EQ(report->processes, 1U);
}

TEST_F(PerfImportTest, MoreStacksThanAProcessMayHaveAreCountedAsOther) {
  std::string text;
  for (int i = 0; i < 6000; ++i) text += sample("a", 1, 1, 1 + i * 1e-4, fmt::format("f{}", i));
  ASSERT_TRUE(import(text));
  const auto deltas = only<CapturedDelta>();
  ASSERT_EQ(deltas.size(), 1U);
  EXPECT_EQ(deltas[0].values.size(), size_t{StackTable::kDefaultCapacity});
  EXPECT_EQ(deltas[0].lost[LossReason::kStacksFull], 6000 - (StackTable::kDefaultCapacity - 1));
  int64_t samples = 0;
  for (const auto& value : deltas[0].values) samples += value.value;
  EXPECT_EQ(samples, 6000) << "counted all the same";
}

TEST_F(PerfImportTest, ManyProcessesAreBounded) {
  std::string text;
  for (int i = 0; i < 20'000; ++i) text += sample("a", 10 + i, 10 + i, 1 + i * 1e-4);
  const auto report = import(text);
  ASSERT_TRUE(report) << report.error().message();
  int64_t samples = 0;
  for (const auto& delta : only<CapturedDelta>()) {
    for (const auto& value : delta.values) samples += value.value;
  }
  EXPECT_EQ(samples, 20'000);
  EXPECT_FALSE(only<CapturedEnd>().empty());
}

}  // namespace
}  // namespace stackwatch
