// SPDX-License-Identifier: Apache-2.0
// What perf itself records and prints of a program whose hot function is known, as a capture.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <map>
#include <string>

#include "capture/perf_import.h"
#include "capture/reader.h"
#include "tests/kernel/support/child.h"

namespace stackwatch {
namespace {

/// Runs a command to its end; what it wrote, and whether it went well.
std::pair<bool, std::string> run(const std::vector<std::string>& command) {
  Child child(command);
  const int code = child.wait();
  return {code == 0, child.output()};
}

struct Sums {
  double exposure_s = 0;
  int64_t samples = 0;
  std::map<std::string, int64_t> by_function;  ///< samples of stacks that hold it
  bool kernel_frames = false;
};

/// What a capture has of the processes of one name.
Sums sums_of(const std::string& path, const std::string& comm) {
  Sums sums;
  std::map<uint32_t, std::string> comms;
  std::map<uint64_t, std::vector<std::string>> stacks;
  auto reader = CaptureReader::open(path);
  EXPECT_TRUE(reader);
  while (reader) {
    auto record = reader->next();
    EXPECT_TRUE(record) << record.error().message();
    if (!record || !record->has_value()) break;
    if (auto* process = std::get_if<CapturedProcess>(&**record)) comms[process->number] = process->identity.comm;
    if (auto* stack = std::get_if<CapturedStack>(&**record)) stacks[stack->number] = stack->frames;
    const auto* delta = std::get_if<CapturedDelta>(&**record);
    if (delta == nullptr) continue;
    for (const auto& value : delta->values) {
      for (const std::string& frame : stacks.at(value.stack)) sums.kernel_frames |= frame.ends_with("_[k]");
    }
    if (comms.at(delta->process) != comm) continue;
    sums.exposure_s += delta->exposure_s;
    for (const auto& value : delta->values) {
      sums.samples += value.value;
      for (const std::string& frame : stacks.at(value.stack)) sums.by_function[frame] += value.value;
    }
  }
  return sums;
}

TEST(PerfImportKernelTest, FindsTheHotFunctionOfWhatPerfRecorded) {
  if (!run({"/bin/sh", "-c", "command -v perf"}).first) GTEST_SKIP() << "REQUIRES perf (package linux-perf)";
  const std::string base = "/tmp/stackwatch-perf-" + std::to_string(getpid());
  const auto [recorded, why] = run(
      {"/bin/sh", "-c",
       "perf record -q -a -g -F 997 -e cpu-clock -o " + base + ".data -- " + test_program("burn") + " --seconds 3"});
  if (!recorded) {
    std::filesystem::remove(base + ".data");
    GTEST_SKIP() << "REQUIRES perf events of all CPUs: " << why;
  }
  const auto [printed, what] =
      run({"/bin/sh", "-c", "perf script -i " + base + ".data -F +pid > " + base + ".txt 2>/dev/null"});
  ASSERT_TRUE(printed) << what;
  auto text = open_file(base + ".txt");
  ASSERT_TRUE(text);
  const auto report = import_perf_script(std::move(*text), "perf.txt", base + ".capture", {});
  for (const char* end : {".data", ".data.old", ".txt"}) std::filesystem::remove(base + end);
  ASSERT_TRUE(report) << report.error().message();
  EXPECT_NEAR(*report->survey.frequency_hz, 997, 1);
  EXPECT_TRUE(report->survey.has_pids);
  EXPECT_GE(report->ticks, 3U);

  const Sums burn = sums_of(base + ".capture", "burn");
  std::filesystem::remove(base + ".capture");
  ASSERT_GT(burn.samples, 300) << "it had a CPU for itself hardly at all";
  EXPECT_NEAR(burn.exposure_s, static_cast<double>(burn.samples) / *report->survey.frequency_hz, 1e-6);
  EXPECT_TRUE(burn.kernel_frames);
  const auto most = static_cast<double>(burn.by_function.at("burn_most"));
  const auto all = static_cast<double>(burn.by_function.at("burn_all"));
  const double sigma = std::sqrt(0.7 * 0.3 / all);
  EXPECT_NEAR(most / all, 0.7, 5 * sigma) << "burn_most has 70 % of burn_all";
}

}  // namespace
}  // namespace stackwatch
