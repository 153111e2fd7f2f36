// SPDX-License-Identifier: Apache-2.0
#include "core/census_fold.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

namespace stackwatch {
namespace {

using Waits = std::vector<CensusMemory::ThreadWait>;

ProcessSample process(int32_t pid, uint64_t start_ns = 10'000'000) {
  ProcessSample sample;
  sample.key = {pid, start_ns};
  return sample;
}

/// One census of one process; what comes of it.
class OneProcess {
 public:
  explicit OneProcess(int32_t pid) : sample_(process(pid)) {}
  ProcessSample& sample() { return sample_; }
  ProcessSample census(Waits waits = {}) {
    std::vector samples = {sample_};
    memory_.correct(samples, waits);
    return samples[0];
  }

 private:
  CensusMemory memory_;
  ProcessSample sample_;
};

TEST(CensusMemory, AnEmptyCensusIsOne) {
  CensusMemory memory;
  std::vector<ProcessSample> samples;
  Waits waits;
  memory.correct(samples, waits);
  EXPECT_TRUE(samples.empty());
}

TEST(CensusMemory, WaitsOfAThreadWhoseProcessIsUnknownAreNobodys) {
  CensusMemory memory;
  std::vector samples = {process(10)};
  Waits waits = {{99, 99, 1000}, {10, 10, 5}};
  memory.correct(samples, waits);
  EXPECT_EQ(samples[0].run_queue_ns, 5U);
}

TEST(CensusMemory, NoTotalGoesBackwards) {
  OneProcess one(10);
  ProcessSample& now = one.sample();
  now.on_cpu_ns = now.voluntary_switches = now.involuntary_switches = 100;
  now.minor_faults = now.major_faults = now.read_bytes = now.write_bytes = 100;
  one.census();
  now.on_cpu_ns = now.voluntary_switches = now.involuntary_switches = 60;
  now.minor_faults = now.major_faults = now.read_bytes = now.write_bytes = 60;
  const ProcessSample less = one.census();
  for (const uint64_t total : {less.on_cpu_ns, less.voluntary_switches, less.involuntary_switches, less.minor_faults,
                               less.major_faults, less.read_bytes, less.write_bytes}) {
    EXPECT_EQ(total, 100U);
  }
  now.on_cpu_ns = 130;
  EXPECT_EQ(one.census().on_cpu_ns, 130U) << "what was told is not told again";
}

TEST(CensusMemory, LevelsMayGoDown) {
  OneProcess one(10);
  one.sample().rss_bytes = 100;
  one.sample().threads = 5;
  one.census();
  one.sample().rss_bytes = 40;
  one.sample().threads = 2;
  EXPECT_EQ(one.census().rss_bytes, 40U);
  EXPECT_EQ(one.census().threads, 2U);
}

TEST(CensusMemory, WaitsOfThreadsThatEndedStay) {
  OneProcess one(10);
  EXPECT_EQ(one.census({{10, 10, 100}, {10, 11, 50}}).run_queue_ns, 150U);
  EXPECT_EQ(one.census({{10, 10, 120}}).run_queue_ns, 170U) << "thread 11 ended";
  EXPECT_EQ(one.census({{10, 12, 5}, {10, 10, 120}}).run_queue_ns, 175U) << "thread 12 began";
}

TEST(CensusMemory, AThreadIdThatComesRoundIsANewThread) {
  OneProcess one(10);
  one.census({{10, 10, 0}, {10, 11, 50}});
  EXPECT_EQ(one.census({{10, 10, 0}, {10, 11, 20}}).run_queue_ns, 70U);
}

TEST(CensusMemory, AThreadIdThatComesRoundInAnotherProcessIsItsOwn) {
  CensusMemory memory;
  std::vector samples = {process(10), process(20)};
  Waits first = {{10, 10, 0}, {10, 11, 50}, {20, 20, 0}};
  memory.correct(samples, first);
  Waits second = {{10, 10, 0}, {20, 11, 60}, {20, 20, 0}};
  memory.correct(samples, second);
  EXPECT_EQ(samples[0].run_queue_ns, 50U);
  EXPECT_EQ(samples[1].run_queue_ns, 60U);
}

TEST(CensusMemory, TheOrderOfThreadsIsFree) {
  OneProcess one(10);
  one.census({{10, 12, 3}, {10, 10, 1}, {10, 11, 2}});
  EXPECT_EQ(one.census({{10, 11, 20}, {10, 12, 30}, {10, 10, 10}}).run_queue_ns, 60U);
}

// Threads of many processes, whose ids lie among those of younger ones.
TEST(CensusMemory, TheOrderOfManyThreadsIsFree) {
  std::mt19937 random(7);
  for (int round = 0; round < 50; ++round) {
    CensusMemory memory;
    std::vector<ProcessSample> samples;
    Waits waits;
    int32_t tid = 100;
    for (int i = 0; i < 20; ++i) {
      samples.push_back(process(tid));
      waits.push_back({tid, tid, 5});
      tid += 10;
    }
    for (int i = 0; i < 60; ++i) {
      const int32_t tgid = 100 + 10 * static_cast<int32_t>(random() % 20);
      waits.push_back({tgid, tgid + 1 + 7 * i, 5});
    }
    std::ranges::shuffle(waits, random);
    Waits later = waits;
    memory.correct(samples, waits);
    std::map<int32_t, uint64_t> expected;
    for (auto& wait : later) expected[wait.tgid] += wait.run_queue_ns += random() % 1000;
    if (round % 2 == 0) std::ranges::sort(later, {}, &CensusMemory::ThreadWait::tid);
    if (round % 3 == 0) std::ranges::shuffle(later, random);
    memory.correct(samples, later);
    for (const ProcessSample& sample : samples) EXPECT_EQ(sample.run_queue_ns, expected[sample.key.pid]);
  }
}

TEST(CensusMemory, APidThatComesRoundIsAnotherProcess) {
  OneProcess one(10);
  one.sample().on_cpu_ns = 1000;
  one.sample().read_bytes = 1000;
  one.census({{10, 10, 500}});
  one.sample() = process(10, 20'000'000);
  one.sample().on_cpu_ns = 7;
  const ProcessSample fresh = one.census({{10, 10, 3}});
  EXPECT_EQ(fresh.on_cpu_ns, 7U);
  EXPECT_EQ(fresh.read_bytes, 0U);
  EXPECT_EQ(fresh.run_queue_ns, 3U);
}

TEST(CensusMemory, AProcessThatIsMissedOnceIsForgotten) {
  CensusMemory memory;
  std::vector samples = {process(10)};
  samples[0].on_cpu_ns = 100;
  Waits none;
  memory.correct(samples, none);
  std::vector<ProcessSample> nobody;
  memory.correct(nobody, none);
  samples = {process(10)};
  samples[0].on_cpu_ns = 40;
  memory.correct(samples, none);
  EXPECT_EQ(samples[0].on_cpu_ns, 40U) << "only processes of the last census are kept";
}

}  // namespace
}  // namespace stackwatch
