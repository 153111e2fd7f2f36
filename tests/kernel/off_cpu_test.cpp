// SPDX-License-Identifier: Apache-2.0
#include "bpf/off_cpu_engine.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <rapidjson/document.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <iterator>
#include <new>
#include <string>
#include <vector>

#include "tests/kernel/support/child.h"
#include "tests/kernel/support/require.h"
#include "tests/kernel/support/sampling.h"
#include "tests/kernel/support/unwinding.h"

namespace stackwatch {
namespace {

constexpr double kNs = 1e-9;

/// Both probes on a process.
struct OffCpu {
  explicit OffCpu(const OffCpuLimits& limits = {}, std::shared_ptr<UnwindMaps> unwind = nullptr) {
    auto made = make_off_cpu_engine(clock, limits, std::move(unwind));
    if (!made) throw std::runtime_error(made.error().message());
    engine = std::move(*made);
    for (const ProbeKind kind : engine->kinds()) probes.push_back(engine->make_probe(kind));
  }
  void attach(const ProcessKey& process, bool children = false) {
    for (const auto& probe : probes) {
      const auto attached = probe->attach(process, {.frequency_hz = 99, .children = children});
      if (!attached) throw std::runtime_error(attached.error().message());
    }
  }
  void read() {
    if (auto collected = engine->collect(); !collected) throw std::runtime_error(collected.error().message());
    for (size_t i = 0; i < probes.size(); ++i) {
      const auto delta = probes[i]->read();
      if (!delta) throw std::runtime_error(delta.error().message());
      for (const auto& value : delta->values) EXPECT_GT(value.value, 0);
      (i == 0 ? blocked : run_queue).add(*delta);
      // Frames come with whichever is read first.
      for (const auto& stack : delta->new_stacks) frames[stack.hash.value] = stack.stack;
    }
  }
  /// Seconds of the stacks that pass through [begin, end).
  [[nodiscard]] double seconds_in(const Counted& counted, uint64_t begin, uint64_t end) const {
    int64_t sum = 0;
    for (const auto& [hash, value] : counted.by_stack) {
      const auto found = frames.find(hash);
      if (found == frames.end()) continue;
      const auto& user = found->second.user_frames;
      if (std::ranges::any_of(user, [&](uint64_t frame) { return frame >= begin && frame <= end; })) sum += value;
    }
    return static_cast<double>(sum) * kNs;
  }
  /// Without what had begun before attaching.
  [[nodiscard]] double seconds(const Counted& counted) const {
    const auto before = counted.by_stack.find(kBeforeAttaching.value);
    return static_cast<double>(counted.samples - (before == counted.by_stack.end() ? 0 : before->second)) * kNs;
  }

  SystemClock clock;
  std::unique_ptr<ProbeEngine> engine;
  std::vector<std::unique_ptr<Probe>> probes;
  Counted blocked;
  Counted run_queue;
  std::unordered_map<uint64_t, RawStack> frames;
};

rapidjson::Document report_of(Child& child) {
  rapidjson::Document document;
  document.Parse(child.output().c_str());
  if (document.HasParseError() || !document.IsObject()) throw std::runtime_error("no report: " + child.output());
  return document;
}

TEST(OffCpuProbe, WhatIsBlockedAndWhatIsQueuedAddUpToWallTimeMinusCpuTime) {
  STACKWATCH_REQUIRE_BPF();
  const double stolen = stolen_s();
  OffCpu off_cpu;
  Child waiter({test_program("waiter"), "--seconds", "4"}, {.stopped = true, .environment = {}});
  off_cpu.attach(waiter.key());
  waiter.go();
  for (int i = 0; i < 6; ++i) {
    pass(0.5);
    off_cpu.read();
  }
  ASSERT_EQ(waiter.wait(), 0);
  off_cpu.read();
  const auto report = report_of(waiter);
  const double stolen_meanwhile = stolen_s() - stolen;
  double expected = report["main_off_cpu_s"].GetDouble();
  for (const auto& thread : report["threads"].GetArray()) {
    const double off_cpu_s = thread["wall_s"].GetDouble() - thread["cpu_s"].GetDouble();
    expected += off_cpu_s;
    const uint64_t begin = thread["begin"].GetUint64();
    const uint64_t end = thread["end"].GetUint64();
    const double blocked_s = off_cpu.seconds_in(off_cpu.blocked, begin, end);
    const double queued_s = off_cpu.seconds_in(off_cpu.run_queue, begin, end);
    // Some of it is outside of the function, in the loop around it and in the clock that it asks.
    EXPECT_NEAR(blocked_s + queued_s, off_cpu_s, 0.02 * off_cpu_s + 0.02 + stolen_meanwhile)
        << thread["name"].GetString() << " blocked " << blocked_s << " queued " << queued_s << " waited "
        << thread["waited_s"].GetDouble() << " CPU time of the scheduler " << thread["scheduler_cpu_s"].GetDouble()
        << " of perf " << thread["cpu_s"].GetDouble();
    RecordProperty(std::string(thread["name"].GetString()) + "_counted_over_expected",
                   std::to_string((blocked_s + queued_s) / off_cpu_s));
    // A disk answers so soon that the wait for a busy CPU may be the longer one.
    if (thread["name"] != "disk") {
      EXPECT_GT(blocked_s, 0.5 * off_cpu_s) << thread["name"].GetString();
    }
  }
  const double counted = off_cpu.seconds(off_cpu.blocked) + off_cpu.seconds(off_cpu.run_queue);
  EXPECT_NEAR(counted, expected, 0.02 * expected + 0.02 + stolen_meanwhile);
  EXPECT_EQ(off_cpu.blocked.lost.uncounted(), 0U);
  RecordProperty("off_cpu_counted_over_expected", std::to_string(counted / expected));
}

// A walk is not done again where a thread has the registers and the words that it read as before. Here all but one word
// are as before at each wait.
TEST(OffCpuProbe, WhatDiffersInOneReturnAddressIsToldApart) {
  STACKWATCH_REQUIRE_BPF();
  UnwindingEngines unwound;
  OffCpu off_cpu({}, unwound.unwinding->maps());
  Child twins({test_program("twins"), "--seconds", "60"});
  pass(0.3);  // it is started, and no copy of this program any more
  off_cpu.attach(twins.key());
  unwound.engine->wait_until_counting(20);
  ASSERT_EQ(unwound.unwinding->pending(), 0U);
  off_cpu.read();  // what was counted until the tables were there
  const auto begun_s = static_cast<double>(off_cpu.clock.monotonic_ns()) * kNs;
  off_cpu.blocked = {};
  off_cpu.run_queue = {};
  pass(3);
  off_cpu.read();
  const double seconds = static_cast<double>(off_cpu.clock.monotonic_ns()) * kNs - begun_s;
  twins.signal(SIGTERM);
  ASSERT_EQ(twins.wait(), 0);
  const auto report = report_of(twins);
  const auto counted_in = [&](const char* name) {
    const uint64_t begin = report[name]["begin"].GetUint64();
    const uint64_t end = report[name]["end"].GetUint64();
    return off_cpu.seconds_in(off_cpu.blocked, begin, end) + off_cpu.seconds_in(off_cpu.run_queue, begin, end);
  };
  const double longer = report["longer"]["slept_s"].GetDouble();
  const double shorter = report["shorter"]["slept_s"].GetDouble();
  const double told_apart = counted_in("longer") + counted_in("shorter");
  EXPECT_GT(told_apart, 0.8 * seconds) << "most of the time it sleeps";
  EXPECT_NEAR(counted_in("longer") / told_apart, longer / (longer + shorter), 0.05);
  EXPECT_EQ(off_cpu.blocked.lost[LossReason::kUnwindIncomplete], 0U);
}

// Where nothing but waits is counted, and each is like the one before, nobody else would see that the tables are not
// right any more.
TEST(OffCpuProbe, CodeThatComesIsNoticedByWaitsAlone) {
  STACKWATCH_REQUIRE_BPF();
  UnwindingEngines unwound;
  UnwindMaps& maps = *unwound.unwinding->maps();
  OffCpu off_cpu({}, unwound.unwinding->maps());
  void* const shared = mmap(nullptr, sizeof(int), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(shared, MAP_FAILED);
  auto* const wanted = new (shared) std::atomic<int>(0);
  const UniqueFd program(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  const pid_t child = fork();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
      usleep(2'000);
      constexpr size_t kCode = size_t{8} * 4096;
      if (wanted->exchange(0) != 0) mmap(nullptr, kCode, PROT_READ | PROT_EXEC, MAP_PRIVATE, program.get(), 0);
    }
  }
  ASSERT_GT(child, 0);
  off_cpu.attach(key_of(child));
  unwound.engine->wait_until_counting(20);
  EXPECT_EQ(unwound.unwinding->pending(), 0U);
  const auto asked_again = [&] {
    pass(0.3);
    off_cpu.read();
    return maps.take_wanted().size();
  };
  asked_again();  // until its tables were there
  EXPECT_EQ(asked_again(), 0U);
  *wanted = 1;
  EXPECT_EQ(asked_again(), 1U);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  munmap(shared, sizeof(int));
}

TEST(OffCpuProbe, AStarvedProcessWaitsForACpuAndNotForALock) {
  STACKWATCH_REQUIRE_BPF();
  const double stolen = stolen_s();
  OffCpu off_cpu;
  Child waiter({test_program("waiter"), "--starve", "3", "--seconds", "3"}, {.stopped = true, .environment = {}});
  off_cpu.attach(waiter.key());
  waiter.go();
  for (int i = 0; i < 5; ++i) {
    pass(0.5);
    off_cpu.read();
  }
  ASSERT_EQ(waiter.wait(), 0);
  off_cpu.read();
  const auto report = report_of(waiter);
  double expected = 0;
  uint64_t begin = 0;
  uint64_t end = 0;
  for (const auto& thread : report["threads"].GetArray()) {
    expected += thread["wall_s"].GetDouble() - thread["cpu_s"].GetDouble();
    begin = thread["begin"].GetUint64();
    end = thread["end"].GetUint64();
  }
  ASSERT_GT(expected, 3) << "nobody was starved";
  const double queued_s = off_cpu.seconds_in(off_cpu.run_queue, begin, end);
  const double stolen_meanwhile = stolen_s() - stolen;
  // Some of it is in the frames of the clock that the function asks.
  EXPECT_NEAR(queued_s, expected, 0.05 * expected + 0.02 + 3 * stolen_meanwhile);
  EXPECT_LT(off_cpu.seconds_in(off_cpu.blocked, begin, end), 0.01 * expected);
}

TEST(OffCpuProbe, AWaitThatGoesOnIsCountedAtEachTick) {
  STACKWATCH_REQUIRE_BPF();
  OffCpu off_cpu;
  Child sleeper({test_program("sleeper")}, {.stopped = true, .environment = {}});
  off_cpu.attach(sleeper.key());
  sleeper.go();
  pass(0.3);
  off_cpu.read();
  for (int i = 0; i < 3; ++i) {
    const double before = off_cpu.seconds(off_cpu.blocked);
    pass(0.5);
    off_cpu.read();
    EXPECT_NEAR(off_cpu.seconds(off_cpu.blocked) - before, 0.5, 0.1);
  }
}

TEST(OffCpuProbe, AWaitFromBeforeIsCountedFromTheAttachingOn) {
  STACKWATCH_REQUIRE_BPF();
  OffCpu off_cpu;
  Child sleeper({test_program("sleeper")});
  pass(0.5);
  off_cpu.attach(sleeper.key());
  pass(0.5);
  off_cpu.read();
  ASSERT_TRUE(off_cpu.blocked.by_stack.contains(kBeforeAttaching.value));
  EXPECT_NEAR(static_cast<double>(off_cpu.blocked.by_stack[kBeforeAttaching.value]) * kNs, 0.5, 0.1);
  EXPECT_TRUE(off_cpu.frames.contains(kBeforeAttaching.value)) << "it is told like any other stack";
}

TEST(OffCpuProbe, AStoppedProcessIsBlockedAndAKilledOneLeavesNothing) {
  STACKWATCH_REQUIRE_BPF();
  OffCpu off_cpu;
  Child burn({test_program("burn"), "--seconds", "30"});
  off_cpu.attach(burn.key());
  pass(0.3);
  burn.signal(SIGSTOP);
  pass(0.2);
  off_cpu.read();
  const double before = off_cpu.seconds(off_cpu.blocked);
  pass(0.5);
  off_cpu.read();
  EXPECT_NEAR(off_cpu.seconds(off_cpu.blocked) - before, 0.5, 0.1);
  burn.signal(SIGKILL);
  burn.wait();
  off_cpu.read();
  const double after = off_cpu.seconds(off_cpu.blocked);
  pass(0.3);
  off_cpu.read();
  EXPECT_EQ(off_cpu.seconds(off_cpu.blocked), after);
}

TEST(OffCpuProbe, ChildrenAreTakenInAtTheirFork) {
  STACKWATCH_REQUIRE_BPF();
  OffCpu off_cpu;
  Child forker({test_program("forker"), "--rate", "20", "--burn-ms", "20", "--seconds", "2"},
               {.stopped = true, .environment = {}});
  off_cpu.attach(forker.key(), true);
  forker.go();
  forker.wait();
  off_cpu.read();
  const auto adopted = off_cpu.engine->take_adopted();
  EXPECT_GT(adopted.size(), 20U);
  for (const auto& child : adopted) off_cpu.engine->forget(child.process);
  off_cpu.read();
  EXPECT_TRUE(off_cpu.engine->take_adopted().empty());
}

// In the middle of their lives, so that all of them are there all the time.
TEST(OffCpuProbe, FiveThousandThreadsAddUp) {
  STACKWATCH_REQUIRE_BPF();
  constexpr double kThreads = 5001;  // with the main thread
  OffCpu off_cpu;
  Child threads({test_program("threads"), "--count", "5000", "--cores", "0.3", "--seconds", "60"});
  const auto all_there = [&] {
    std::ifstream status("/proc/" + std::to_string(threads.pid()) + "/status");
    const std::string text{std::istreambuf_iterator<char>(status), {}};
    return text.find("\nThreads:\t5001\n") != std::string::npos;
  };
  for (int i = 0; i < 3000 && !all_there(); ++i) pass(0.01);
  ASSERT_TRUE(all_there());
  off_cpu.attach(threads.key());
  off_cpu.read();
  const auto begun_s = static_cast<double>(off_cpu.clock.monotonic_ns()) * kNs;
  const int64_t counted_before = off_cpu.blocked.samples + off_cpu.run_queue.samples;
  const auto cpu_before = static_cast<double>(cpu_time_ns(threads.pid())) * kNs;
  pass(3);
  off_cpu.read();
  const double wall_s = static_cast<double>(off_cpu.clock.monotonic_ns()) * kNs - begun_s;
  const double cpu_s = static_cast<double>(cpu_time_ns(threads.pid())) * kNs - cpu_before;
  const auto counted_s =
      static_cast<double>(off_cpu.blocked.samples + off_cpu.run_queue.samples - counted_before) * kNs;
  const Losses& lost = off_cpu.blocked.lost;
  EXPECT_EQ(lost[LossReason::kWatchFull], 0U);
  const double expected_s = kThreads * wall_s - cpu_s;
  EXPECT_NEAR(counted_s + static_cast<double>(lost[LossReason::kMapFull]) * kNs, expected_s, 0.02 * expected_s);
}

TEST(OffCpuProbe, AFullMapIsALossThatAddsUp) {
  STACKWATCH_REQUIRE_BPF();
  OffCpu off_cpu({.stacks = 2, .processes = 8, .threads = 64, .ring_bytes = 1U << 20});
  Child waiter({test_program("waiter"), "--seconds", "2"}, {.stopped = true, .environment = {}});
  off_cpu.attach(waiter.key());
  waiter.go();
  ASSERT_EQ(waiter.wait(), 0);
  off_cpu.read();
  const auto report = report_of(waiter);
  double expected = report["main_off_cpu_s"].GetDouble();
  for (const auto& thread : report["threads"].GetArray()) {
    expected += thread["wall_s"].GetDouble() - thread["cpu_s"].GetDouble();
  }
  const double lost = static_cast<double>(off_cpu.blocked.lost[LossReason::kMapFull]) * kNs;
  EXPECT_GT(lost, 1);
  const double counted = off_cpu.seconds(off_cpu.blocked) + off_cpu.seconds(off_cpu.run_queue);
  EXPECT_NEAR(counted + lost, expected, 0.05 * expected + 0.05);
}

TEST(OffCpuProbe, ThreadsWithoutRoomAreALoss) {
  STACKWATCH_REQUIRE_BPF();
  OffCpu off_cpu({.stacks = 65536, .processes = 8, .threads = 2, .ring_bytes = 1U << 20});
  Child waiter({test_program("waiter"), "--seconds", "1"}, {.stopped = true, .environment = {}});
  off_cpu.attach(waiter.key());
  waiter.go();
  ASSERT_EQ(waiter.wait(), 0);
  off_cpu.read();
  EXPECT_GT(off_cpu.blocked.lost[LossReason::kWatchFull], 10U);
}

}  // namespace
}  // namespace stackwatch
