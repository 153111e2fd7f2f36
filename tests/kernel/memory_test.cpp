// SPDX-License-Identifier: Apache-2.0
// Outstanding bytes, exact to the byte: each entry point of each allocator.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "tests/kernel/support/memory.h"
#include "tests/kernel/support/require.h"

namespace stackwatch {
namespace {

constexpr double kPatienceS = 20;

struct Step {
  std::string name;
  int64_t expected = 0;
  int64_t counted = 0;
  Losses lost;
};

MemoryLimits no_limit() {
  MemoryLimits limits;
  limits.overhead_percent = 1e9;
  return limits;
}

// Lets the program do its steps one by one, and counts each.
/// The child's next step, and what was counted in it; none where there is no further one.
std::optional<Step> run_step(LiveMemory& live, Child& child, Probe& probe, size_t& seen) {
  child.signal(SIGUSR1);
  EXPECT_TRUE(child.running());
  for (int i = 0; i < 5000 && child.output().find('\n', seen) == std::string::npos; ++i) {
    live.turn();
    pass(0.001);
  }
  const std::string line = child.output().substr(seen);
  seen += line.size();
  Step step;
  std::istringstream(line) >> step.name >> step.expected;
  if (step.name == "end" || step.name.empty()) {
    EXPECT_EQ(step.name, "end") << child.output();
    return std::nullopt;
  }
  Counted counted;
  live.read_into(probe, counted);
  step.counted = counted.samples;
  step.lost = counted.lost;
  return step;
}

std::vector<Step> run_steps(LiveMemory& live, Child& child, const ProbeOptions& options = {}) {
  EXPECT_TRUE(child.wait_for("ready 0\n", kPatienceS)) << child.output();
  auto probe = live.attach(child.key(), options);
  std::vector<Step> steps;
  Counted attached;
  live.read_into(*probe, attached);
  EXPECT_EQ(attached.samples, 0);
  size_t seen = child.output().size();
  while (const auto step = run_step(live, child, *probe, seen)) steps.push_back(*step);
  child.signal(SIGUSR1);
  EXPECT_EQ(child.wait(), 0);
  EXPECT_THAT(live.errors, ::testing::IsEmpty());
  return steps;
}

void expect_exact(const std::vector<Step>& steps) {
  EXPECT_GT(steps.size(), 5U);
  for (const Step& step : steps) {
    EXPECT_EQ(step.counted, step.expected) << step.name;
    EXPECT_EQ(step.lost[LossReason::kUnknownFree], step.name == "unknown_free" ? 1U : 0U) << step.name;
    EXPECT_EQ(step.lost[LossReason::kMissedFree], 0U) << step.name;
    EXPECT_EQ(step.lost[LossReason::kAbandonedCall], 0U) << step.name;
    EXPECT_EQ(step.lost.uncounted(), 0U) << step.name;
  }
}

void expect_exact_with(const std::string& program, const std::string& library,
                       const std::vector<std::string>& steps = {}) {
  if (!std::filesystem::exists(library)) GTEST_SKIP() << "REQUIRES " << library;
  LiveMemory live(no_limit());
  std::vector<std::string> command = {test_program(program)};
  command.insert(command.end(), steps.begin(), steps.end());
  Child child(command, {.stopped = false, .environment = {"LD_PRELOAD=" + library}});
  expect_exact(run_steps(live, child));
}

void expect_exact_in(const std::string& program) {
  const std::string path = test_program(program);
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "REQUIRES a compiler that makes " << program;
  LiveMemory live(no_limit());
  Child child({path});
  expect_exact(run_steps(live, child));
}

const std::string kLibraries = "/usr/lib/x86_64-linux-gnu/";

TEST(Memory, EachFunctionOfGlibcIsExact) {
  STACKWATCH_REQUIRE_BPF();
  expect_exact_in("allocate");
}

TEST(Memory, EachFunctionIsExactInAStaticProgram) {
  STACKWATCH_REQUIRE_BPF();
  expect_exact_in("allocate_static");
}

TEST(Memory, EachFunctionOfMuslIsExactInAStaticProgram) {
  STACKWATCH_REQUIRE_BPF();
  expect_exact_in("allocate_musl");
}

TEST(Memory, EachFunctionOfJemallocIsExact) {
  STACKWATCH_REQUIRE_BPF();
  expect_exact_with("allocate", kLibraries + "libjemalloc.so.2");
}

TEST(Memory, EachFunctionOfTcmallocIsExact) {
  STACKWATCH_REQUIRE_BPF();
  expect_exact_with("allocate", kLibraries + "libtcmalloc_minimal.so.4");
}

TEST(Memory, EachFunctionOfMimallocIsExact) {
  STACKWATCH_REQUIRE_BPF();
  expect_exact_with("allocate", kLibraries + "libmimalloc.so.2");
}

TEST(Memory, OperatorsNewAndDeleteAreExactAndExceptionsPass) {
  STACKWATCH_REQUIRE_BPF();
  expect_exact_in("allocate_cxx");
}

TEST(Memory, OperatorsNewAndDeleteAreExactInAStaticProgram) {
  STACKWATCH_REQUIRE_BPF();
  expect_exact_in("allocate_cxx_static");
}

TEST(Memory, OperatorsNewAndDeleteOfJemallocAreExactAndExceptionsPass) {
  STACKWATCH_REQUIRE_BPF();
  expect_exact_with("allocate_cxx", kLibraries + "libjemalloc.so.2");
}

TEST(Memory, OperatorsNewAndDeleteOfTcmallocAreExactAndExceptionsPass) {
  STACKWATCH_REQUIRE_BPF();
  expect_exact_with("allocate_cxx", kLibraries + "libtcmalloc_minimal.so.4");
}

// Debian builds it as C: where it has no memory it aborts instead of throwing, probes or not.
TEST(Memory, OperatorsNewAndDeleteOfMimallocAreExact) {
  STACKWATCH_REQUIRE_BPF();
  expect_exact_with(
      "allocate_cxx", kLibraries + "libmimalloc.so.2",
      {"new", "new_array", "new_nothrow", "new_aligned", "delete", "many", "constructor_throws", "mixed"});
}

TEST(Memory, WhatAProgramMapsItselfIsExactAndTheAllocatorsMappingsCountOnce) {
  STACKWATCH_REQUIRE_BPF();
  LiveMemory live(no_limit());
  Child child({test_program("allocate_maps")});
  expect_exact(run_steps(live, child, {.mappings = true}));
}

TEST(Memory, AHundredThousandStacksAreCountedOrLostToTheByte) {
  STACKWATCH_REQUIRE_BPF();
  LiveMemory live(no_limit());
  Child child({test_program("many_stacks")});
  const std::vector<Step> steps = run_steps(live, child);
  ASSERT_EQ(steps.size(), 2U);
  const auto lost = static_cast<int64_t>(steps[0].lost[LossReason::kMapFull]);
  EXPECT_EQ(steps[0].counted + lost, steps[0].expected);
  EXPECT_GT(lost, 0) << "the map has fewer places";
  EXPECT_GE(steps[0].counted, 65'000 * 64);
  EXPECT_EQ(steps[1].counted, -steps[0].counted) << "what was counted is gone, and no more than that";
  EXPECT_EQ(static_cast<int64_t>(steps[1].lost[LossReason::kUnknownFree]) * 64, lost);
}

// As of a program whose allocator has no names: it has nothing else to count.
TEST(Memory, MappingsThatAreWantedLaterAreCountedWithoutAnAllocatorToo) {
  STACKWATCH_REQUIRE_BPF();
  LiveMemory live(no_limit());
  Child child({test_program("allocate_maps"), "mmap", "munmap_middle", "munmap_ends"});
  ASSERT_TRUE(child.wait_for("ready 0\n", kPatienceS)) << child.output();
  size_t seen = child.output().size();
  auto probe = live.engine->make_probe(ProbeKind::kMemory);
  ASSERT_TRUE(probe->attach(child.key(), {}));
  live.control->set_functions({.process = child.key(), .pid_in_ns = child.pid(), .alive = true, .objects = {}});
  ASSERT_EQ(live.phase(child.key()), MemoryPhase::kNothing);
  const auto before = run_step(live, child, *probe, seen);
  ASSERT_TRUE(before);
  EXPECT_EQ(before->counted, 0);
  ASSERT_TRUE(probe->change({.mappings = true}));
  const auto counted = run_step(live, child, *probe, seen);
  ASSERT_TRUE(counted);
  EXPECT_EQ(counted->counted, counted->expected);
  EXPECT_GT(counted->expected, 0);
  ASSERT_TRUE(probe->change({}));
  const auto after = run_step(live, child, *probe, seen);
  ASSERT_TRUE(after);
  EXPECT_LE(after->counted, 0) << "and no longer than that";
}

TEST(Memory, MappingsAreNotCountedUnlessAskedFor) {
  STACKWATCH_REQUIRE_BPF();
  LiveMemory live(no_limit());
  Child child({test_program("allocate_maps"), "mmap", "munmap_middle", "allocator_maps"});
  const std::vector<Step> steps = run_steps(live, child);
  ASSERT_EQ(steps.size(), 3U);
  EXPECT_EQ(steps[0].counted, 0);
  EXPECT_EQ(steps[1].counted, 0);
  EXPECT_EQ(steps[2].counted, steps[2].expected);
}

}  // namespace
}  // namespace stackwatch
