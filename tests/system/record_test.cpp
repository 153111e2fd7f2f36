// SPDX-License-Identifier: Apache-2.0
// `stackwatch record` on the real kernel, and what can be read again.
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <set>

#include "capture/reader.h"
#include "tests/kernel/support/sampling.h"
#include "tests/system/daemon_under_test.h"

namespace stackwatch {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

Answer record(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {our_program("stackwatch"), "record"});
  return run(arguments);
}

/// What a capture says, summed up.
struct Contents {
  std::set<std::string> comms;
  std::map<std::string, int64_t> by_probe;
  std::map<std::string, int64_t> by_function;  // of on_cpu, inclusive
  std::map<uint64_t, std::vector<std::string>> stacks;
  size_t ticks = 0;
  size_t exits = 0;
};

Contents read_capture(const std::string& path) {
  Contents contents;
  auto reader = CaptureReader::open(path);
  if (!reader) {
    ADD_FAILURE() << reader.error().message();
    return contents;
  }
  for (;;) {
    auto next = reader->next();
    if (!next) ADD_FAILURE() << next.error().message();
    if (!next || !*next) return contents;
    if (const auto* process = std::get_if<CapturedProcess>(&**next)) contents.comms.insert(process->identity.comm);
    if (const auto* stack = std::get_if<CapturedStack>(&**next)) contents.stacks[stack->number] = stack->frames;
    if (std::holds_alternative<CapturedTick>(**next)) ++contents.ticks;
    if (const auto* end = std::get_if<CapturedEnd>(&**next)) contents.exits += end->kind == CapturedEnd::Kind::kExit;
    const auto* delta = std::get_if<CapturedDelta>(&**next);
    if (delta == nullptr) continue;
    for (const auto& value : delta->values) {
      contents.by_probe[std::string(to_string(delta->probe))] += value.value;
      if (delta->probe != ProbeKind::kOnCpu) continue;
      const auto& frames = contents.stacks[value.stack];
      for (const auto& function : std::set(frames.begin(), frames.end())) contents.by_function[function] += value.value;
    }
  }
}

class RecordTest : public testing::Test {
 protected:
  [[nodiscard]] std::string file() const { return directory_.path() + "/capture"; }
  TemporaryDirectory directory_;
};

void expect_refused(const Answer& answer, int exit_code, const std::string& text) {
  EXPECT_EQ(answer.exit_code, exit_code) << answer.output;
  EXPECT_THAT(answer.output, AllOf(StartsWith("stackwatch: "), HasSubstr(text)));
}

TEST_F(RecordTest, WhatCannotBeRecordedIsRefused) {
  expect_refused(record({"-o", file()}), 2, "neither a process nor a command");
  expect_refused(record({"--all"}), 2, "--output");
  expect_refused(record({"--all", "-p", "1", "-o", file()}), 2, "more than one kind");
  expect_refused(record({"-p", "2147483647", "-o", file()}), 1, "no such process");
  EXPECT_NE(access(file().c_str(), F_OK), 0);
  STACKWATCH_REQUIRE_BPF();
  expect_refused(record({"-o", "/nonexistent/capture", "--", "true"}), 1, "/nonexistent/capture");
  expect_refused(record({"-o", file(), "--", "/nonexistent/program"}), 127, "No such file");
}

TEST_F(RecordTest, WhatCannotBeRecordedCostsNoEarlierCapture) {
  STACKWATCH_REQUIRE_BPF();
  const Child zombie({"true"});
  usleep(200'000);
  std::ofstream(file()) << "an earlier capture";
  EXPECT_EQ(record({"-p", std::to_string(zombie.pid()), "-d", "1", "-o", file()}).exit_code, 1);
  std::ifstream capture(file());
  std::string kept;
  std::getline(capture, kept);
  EXPECT_EQ(kept, "an earlier capture");
}

TEST_F(RecordTest, ACommandIsRecordedToItsEnd) {
  STACKWATCH_REQUIRE_BPF();
  const double stolen = stolen_s();
  const Answer answer = record({"-F", "199", "--probe", "on_cpu,off_cpu", "-o", file(), "--", "sh", "-c",
                                test_program("burn") + " --seconds 3; exit 6"});
  EXPECT_EQ(answer.exit_code, 6) << answer.output;
  const size_t begin = answer.output.find("\"cpu_s\":");
  ASSERT_NE(begin, std::string::npos) << answer.output;
  const double cpu_s = std::stod(answer.output.substr(begin + 8));
  const Contents contents = read_capture(file());
  EXPECT_THAT(contents.comms, AllOf(Contains("sh"), Contains("burn")));
  EXPECT_THAT(contents.comms, Not(Contains("stackwatch-stan"))) << "that was not the command yet";
  expect_samples_match(contents.by_function.at("burn_all"), cpu_s, 199, stolen_s() - stolen);
  EXPECT_GT(contents.by_probe.at("blocked"), 2'500'000'000) << "sh waits for burn";
  EXPECT_GE(contents.ticks, 4U);
  EXPECT_EQ(contents.exits, 2U);
  EXPECT_EQ(run({our_program("stackwatch"), "replay", file()}).exit_code, 0);
}

TEST_F(RecordTest, InterruptedItHasWhatWasCountedUntilThen) {
  STACKWATCH_REQUIRE_BPF();
  Child burn({test_program("burn"), "--seconds", "30"});
  Child recording({our_program("stackwatch"), "record", "-p", std::to_string(burn.pid()), "-F", "199", "-o", file()});
  // Two ticks and a part of the third.
  ASSERT_TRUE(eventually(20, [&] { return access(file().c_str(), F_OK) == 0; }));
  const uint64_t before_ns = cpu_time_ns(burn.pid());
  pass(2.7);
  const double cpu_s = static_cast<double>(cpu_time_ns(burn.pid()) - before_ns) * 1e-9;
  recording.signal(SIGINT);
  EXPECT_EQ(recording.wait(), 0) << recording.output();
  const Contents contents = read_capture(file());
  // The file is there a moment before the process is attached.
  EXPECT_GT(static_cast<double>(contents.by_probe.at("on_cpu")), 199 * cpu_s * 0.6);
  EXPECT_THAT(recording.output(), HasSubstr("lost: "));
  EXPECT_TRUE(burn.running());
}

TEST_F(RecordTest, EverybodyIsInARecordOfAll) {
  STACKWATCH_REQUIRE_BPF();
  Child burn({test_program("burn"), "--seconds", "30"});
  Child sleeper({"sleep", "30"});
  ASSERT_EQ(record({"--all", "-F", "99", "-d", "7", "-o", file()}).exit_code, 0);
  const Contents contents = read_capture(file());
  EXPECT_THAT(contents.comms, AllOf(Contains("burn"), Contains("sleep")));
  EXPECT_GT(contents.by_function.at("burn_all"), 50);
}

TEST_F(RecordTest, AFullDiskIsAnErrorAndKeepsWhatWasComplete) {
  STACKWATCH_REQUIRE_BPF();
  const std::string mount = directory_.path() + "/small";
  ASSERT_EQ(mkdir(mount.c_str(), 0700), 0);
  if (run({"mount", "-t", "tmpfs", "-o", "size=16k", "none", mount}).exit_code != 0) GTEST_SKIP() << "REQUIRES mount";
  // A new stack with each sample: two seconds fill the disk.
  const Answer answer = record(
      {"-F", "999", "-o", mount + "/capture", "--", test_program("deep"), "--distinct", "1000000", "--seconds", "8"});
  EXPECT_EQ(answer.exit_code, 1) << answer.output;
  EXPECT_THAT(answer.output, HasSubstr("No space left"));
  size_t records = 0;
  {
    auto reader = CaptureReader::open(mount + "/capture");
    ASSERT_TRUE(reader) << reader.error().message();
    for (auto next = reader->next(); next && *next; next = reader->next()) ++records;
  }
  EXPECT_GT(records, 10U);
  EXPECT_EQ(run({"umount", mount}).exit_code, 0);
}

}  // namespace
}  // namespace stackwatch
