// SPDX-License-Identifier: Apache-2.0
#include "daemon/detection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "tests/fakes/fake_source.h"

namespace stackwatch {
namespace {

using ::testing::IsEmpty;

constexpr ProcessKey kRedis{4711, 10'000'000};
constexpr ProcessKey kNginx{99, 20'000'000};
const FakeSource::Counts kUsual = {{"parse", 80}, {"render", 20}};
const FakeSource::Counts kChanged = {{"parse", 40}, {"render", 60}};

class DetectionTest : public testing::Test {
 protected:
  std::vector<Observation> tick() { return detection_.observe(source_.batch()); }
  /// Long enough for the first baseline of `composition`.
  void learn() {
    for (int i = 0; i < 120; ++i) {
      for (const Observation& observation : tick()) ASSERT_THAT(observation.findings, IsEmpty());
    }
  }
  /// Ticks until `composition` says something about the process; nothing where it does not.
  std::optional<Finding> find(const ProcessKey& process, int ticks = 60) {
    for (int i = 0; i < ticks; ++i) {
      for (const Observation& observation : tick()) {
        if (observation.process != process) continue;
        for (const Finding& finding : observation.findings) {
          if (finding.detector == "composition") return finding;
        }
      }
    }
    return std::nullopt;
  }

  FakeSource source_;
  Detection detection_{DetectionPolicy{}, DetectorSettings{}};
};

TEST_F(DetectionTest, NothingToObserveIsNothingToSay) {
  EXPECT_THAT(tick(), IsEmpty());
  source_.exits(kRedis);
  source_.detaches(kNginx);
  source_.replaces(kRedis);
  EXPECT_THAT(tick(), IsEmpty()) << "of whom nobody ever heard";
  EXPECT_EQ(detection_.streams(), 0U);
}

TEST_F(DetectionTest, OneObservationPerDeltaEvenIfThereIsNothingToSay) {
  source_.does(kRedis, kUsual);
  source_.does(kNginx, {});
  const auto observations = tick();
  ASSERT_EQ(observations.size(), 2U);
  for (const Observation& observation : observations) {
    EXPECT_THAT(observation.findings, IsEmpty());
    EXPECT_EQ(observation.probe, ProbeKind::kOnCpu);
    EXPECT_NE(observation.stacks, nullptr);
    EXPECT_NE(observation.functions, nullptr);
    EXPECT_GT(observation.time_s, 0);
  }
}

TEST_F(DetectionTest, EachProcessIsJudgedAgainstItsOwnPast) {
  source_.does(kRedis, kUsual);
  source_.does(kNginx, kChanged);
  learn();
  source_.does(kRedis, kChanged);
  for (int i = 0; i < 60; ++i) {
    for (const Observation& observation : tick()) {
      if (observation.process == kRedis) continue;
      EXPECT_THAT(observation.findings, IsEmpty()) << "it was always so";
    }
  }
  const auto finding = find(kRedis);
  ASSERT_TRUE(finding);
  EXPECT_NEAR(finding->before, 0.2, 0.05);
  EXPECT_NEAR(finding->after, 0.6, 0.05);
}

TEST_F(DetectionTest, TheCensusOfAWatchedProcessIsAnObservationOfItsOwn) {
  source_.does(kRedis, kUsual);
  std::vector<ProcessSample> samples(2);
  samples[0].key = kRedis;
  samples[1].key = kNginx;  // not watched
  const auto observe = [&](uint64_t cpu_ns) {
    TickBatch batch = source_.batch();
    samples[0].on_cpu_ns = samples[1].on_cpu_ns = cpu_ns;
    batch.samples = samples;
    return detection_.observe(batch);
  };
  EXPECT_EQ(observe(1'000).size(), 1U) << "its first delta: watched from here on";
  EXPECT_EQ(observe(2'000).size(), 1U) << "its first census: nothing to compare with";
  const auto both = observe(3'000);
  ASSERT_EQ(both.size(), 2U);
  EXPECT_EQ(both[0].probe, ProbeKind::kCensus);
  EXPECT_EQ(both[0].process, kRedis);
  EXPECT_NE(both[0].functions, nullptr);
  EXPECT_EQ(observe(1'000).size(), 1U) << "a counter that went back is no census";
  EXPECT_EQ(observe(2'000).size(), 2U) << "and a beginning";
}

TEST_F(DetectionTest, OneWorkerThatBehavesUnlikeItsSiblingsIsTold) {
  std::vector<ProcessSample> samples(6);
  for (int32_t i = 0; i < 6; ++i) {
    samples[static_cast<size_t>(i)].key = {1000 + i, 10'000'000};
    samples[static_cast<size_t>(i)].comm = "worker";
    samples[static_cast<size_t>(i)].cgroup = "/pool.service";
    source_.does(samples[static_cast<size_t>(i)].key, kUsual);
  }
  std::set<int32_t> blamed;
  const auto tick = [&](bool spins) {
    TickBatch batch = source_.batch();
    for (ProcessSample& sample : samples) {
      sample.on_cpu_ns += spins && sample.key.pid == 1003 ? 950'000'000 : 200'000'000;
    }
    batch.samples = samples;
    for (const Observation& observation : detection_.observe(batch)) {
      for (const Finding& finding : observation.findings) {
        if (finding.detector == "peers") blamed.insert(observation.process.pid);
      }
    }
  };
  for (int i = 0; i < 300; ++i) tick(false);
  EXPECT_THAT(blamed, IsEmpty());
  for (int i = 0; i < 100; ++i) tick(true);
  EXPECT_THAT(blamed, ::testing::ElementsAre(1003));
}

class WaitingTest : public DetectionTest {
 protected:
  /// What `composition` names while the process works a second per tick and waits that long for a CPU.
  std::set<std::string> told(uint64_t waited_ms, int ticks) {
    std::set<std::string> frames;
    for (int i = 0; i < ticks; ++i) {
      TickBatch batch = source_.batch();
      samples_[0].on_cpu_ns += 1'000'000'000;
      samples_[0].run_queue_ns += waited_ms * 1'000'000;
      batch.samples = samples_;
      for (const Observation& observation : detection_.observe(batch)) {
        for (const Finding& finding : observation.findings) {
          if (finding.detector == "composition") frames.insert((*observation.functions)[*finding.frame].name);
        }
      }
    }
    return frames;
  }

 private:
  std::vector<ProcessSample> samples_ = [] {
    std::vector<ProcessSample> samples(1);
    samples[0].key = kRedis;
    return samples;
  }();
};

// A quota costs the kernel something at each use, under the process's name.
TEST_F(WaitingTest, WhatTheKernelDoesForWhoWaitsForTheCpuIsNoRegression) {
  const FakeSource::Counts usual = {{"parse", 80}, {"render", 19}, {"finish_task_switch_[k]", 1}};
  const FakeSource::Counts throttled = {{"parse", 70}, {"render", 17}, {"finish_task_switch_[k]", 13}};
  source_.does(kRedis, usual);
  EXPECT_THAT(told(50, 120), IsEmpty());
  source_.does(kRedis, throttled);
  EXPECT_THAT(told(9000, 120), IsEmpty()) << "nine of ten seconds it waits";
  source_.does(kRedis, usual);
  EXPECT_THAT(told(50, 120), IsEmpty()) << "and no longer";
  source_.does(kRedis, throttled);
  EXPECT_THAT(told(50, 60), testing::ElementsAre("finish_task_switch_[k]")) << "it gets its CPU time: something else";
}

// A system call's caller is named in the place of the door it went through, and is no more to blame than that.
TEST_F(WaitingTest, NorIsTheCallerOfTheKernel) {
  const std::string call = "load;entry_SYSCALL_64_after_hwframe_[k]";
  const FakeSource::Counts usual = {{"parse", 80}, {"render", 19}, {call, 1}};
  const FakeSource::Counts throttled = {{"parse", 70}, {"render", 17}, {call, 13}};
  source_.does(kRedis, usual);
  EXPECT_THAT(told(50, 120), IsEmpty());
  source_.does(kRedis, throttled);
  EXPECT_THAT(told(9000, 120), IsEmpty()) << "nine of ten seconds it waits";
  source_.does(kRedis, usual);
  EXPECT_THAT(told(50, 120), IsEmpty()) << "and no longer";
  source_.does(kRedis, throttled);
  EXPECT_THAT(told(50, 60), testing::ElementsAre("load")) << "it gets its CPU time: something else";
}

TEST_F(WaitingTest, AProgramsOwnFunctionIsToldWhoeverWaits) {
  source_.does(kRedis, kUsual);
  EXPECT_THAT(told(50, 120), IsEmpty());
  source_.does(kRedis, kChanged);
  EXPECT_THAT(told(9000, 120), testing::Not(IsEmpty()));
}

// No quota makes a lock that nobody holds dearer.
TEST_F(WaitingTest, NorDoesTheNameOfAWayThatIsNotGone) {
  const std::string lock = "update;pthread_mutex_lock";
  source_.does(kRedis, {{"parse", 80}, {"render", 15}, {lock, 5}});
  EXPECT_THAT(told(50, 120), IsEmpty());
  source_.does(kRedis, {{"parse", 60}, {"render", 15}, {lock, 25}});
  EXPECT_THAT(told(9000, 120), testing::ElementsAre("update"));
}

TEST_F(WaitingTest, NorThatItsCallsOfTheKernelWereNotTold) {
  const std::string call = "load;entry_SYSCALL_64_after_hwframe_[k]";
  source_.does(kRedis, {{"parse", 80}, {"render", 14}, {"load", 5}, {call, 1}});
  EXPECT_THAT(told(50, 120), IsEmpty());
  source_.does(kRedis, {{"parse", 70}, {"render", 12}, {"load", 5}, {call, 13}});
  EXPECT_THAT(told(9000, 120), IsEmpty());
  source_.does(kRedis, {{"parse", 50}, {"render", 9}, {"load", 28}, {call, 13}});
  EXPECT_THAT(told(9000, 120), testing::Contains("load")) << "its own work grew too";
}

TEST_F(WaitingTest, NorDoesAPartThatLiesInTheKernelHideIt) {
  const std::string in_kernel = "load;entry_SYSCALL_64_after_hwframe_[k];copy_page_to_iter_[k]";
  source_.does(kRedis, {{"parse", 80}, {"render", 5}, {"load;sort", 5}, {"load;merge", 5}, {in_kernel, 5}});
  EXPECT_THAT(told(50, 120), IsEmpty());
  source_.does(kRedis, {{"parse", 60}, {"render", 5}, {"load;sort", 11}, {"load;merge", 11}, {in_kernel, 13}});
  EXPECT_THAT(told(9000, 120), testing::Contains("load"));
}

TEST_F(DetectionTest, ProbesOfOneProcessAreJudgedApart) {
  source_.does(kRedis, kUsual);
  const auto both = [&] {
    TickBatch batch = source_.batch();
    NamedDelta blocked = batch.deltas[0];
    blocked.probe = ProbeKind::kPageFault;
    batch.deltas.push_back(blocked);
    return batch;
  };
  const auto observations = detection_.observe(both());
  ASSERT_EQ(observations.size(), 2U);
  EXPECT_EQ(observations[1].probe, ProbeKind::kPageFault);
  const size_t streams = detection_.streams();
  Detection alone{DetectionPolicy{}, DetectorSettings{}};
  static_cast<void>(alone.observe(source_.batch()));
  EXPECT_GT(streams, alone.streams());
}

TEST_F(DetectionTest, WhoExitsOrIsDetachedIsForgotten) {
  source_.does(kRedis, kUsual);
  source_.does(kNginx, kUsual);
  learn();
  const size_t both = detection_.streams();
  EXPECT_GT(both, 0U);
  source_.exits(kRedis);
  EXPECT_EQ(tick().size(), 2U) << "with its last delta";
  EXPECT_EQ(detection_.streams(), both / 2);
  source_.detaches(kNginx);
  tick();
  EXPECT_EQ(detection_.streams(), 0U);
  source_.does(kRedis, kChanged);
  source_.does(kNginx, kChanged);
  EXPECT_FALSE(find(kRedis)) << "it has no past any more";
}

TEST_F(DetectionTest, WhatWasLearnedAboutAnotherProgramIsForgotten) {
  source_.does(kRedis, kUsual);
  learn();
  source_.replaces(kRedis);
  source_.does(kRedis, kChanged);
  EXPECT_FALSE(find(kRedis));
}

TEST_F(DetectionTest, ANewPolicyIsInForceAtOnceAndForgetsNothing) {
  source_.does(kRedis, kUsual);
  learn();
  DetectionPolicy insensitive;
  insensitive.min_change_share = 0.9;
  insensitive.min_change_cores = 0.9;
  detection_.configure(insensitive, {});
  source_.does(kRedis, kChanged);
  EXPECT_FALSE(find(kRedis, 10));
  detection_.configure(DetectionPolicy{}, {});
  EXPECT_TRUE(find(kRedis)) << "against the old past";
}

TEST_F(DetectionTest, NewSettingsAreForDetectorsMadeFromNowOn) {
  source_.does(kRedis, kUsual);
  learn();
  const size_t before = detection_.streams();
  DetectorSettings none;
  none.composition.enabled = none.rate.enabled = false;
  detection_.configure(DetectionPolicy{}, none);
  source_.does(kNginx, kUsual);
  tick();
  EXPECT_EQ(detection_.streams(), before);
  source_.does(kRedis, kChanged);
  EXPECT_TRUE(find(kRedis));
}

TEST_F(DetectionTest, TheBudgetIsTheHostsSoManyStreamsNeedMoreEvidenceEach) {
  source_.does(kRedis, kUsual);
  learn();
  source_.does(kRedis, kChanged);
  const auto alone = find(kRedis);
  ASSERT_TRUE(alone);
  // Some thousand functions elsewhere.
  FakeSource::Counts many;
  for (int i = 0; i < 200; ++i) many["f" + std::to_string(i)] = 10;
  for (int32_t pid = 1000; pid < 1040; ++pid) source_.does({pid, 10'000'000}, many);
  for (int i = 0; i < 100; ++i) tick();
  ASSERT_GT(detection_.streams(), 5000U);
  const auto crowded = find(kRedis);
  ASSERT_TRUE(crowded);
  EXPECT_GT(crowded->threshold, alone->threshold + 1);
  for (int32_t pid = 1000; pid < 1040; ++pid) source_.exits({pid, 10'000'000});
  tick();
  const auto again = find(kRedis);
  ASSERT_TRUE(again);
  EXPECT_DOUBLE_EQ(again->threshold, alone->threshold) << "and less when they are gone";
}

TEST_F(DetectionTest, AReloadDoesNotForgetHowManyStreamsThereAre) {
  FakeSource::Counts many;
  for (int i = 0; i < 200; ++i) many["f" + std::to_string(i)] = 10;
  for (int32_t pid = 1000; pid < 1040; ++pid) source_.does({pid, 10'000'000}, many);
  source_.does(kRedis, kUsual);
  learn();
  ASSERT_GT(detection_.streams(), 5000U);
  source_.does(kRedis, kChanged);
  const auto before = find(kRedis);
  ASSERT_TRUE(before);
  detection_.configure(DetectionPolicy{}, {});
  const auto after = find(kRedis);
  ASSERT_TRUE(after);
  EXPECT_DOUBLE_EQ(after->threshold, before->threshold);
}

// ---- successors

constexpr ProcessKey kRedisAgain{4712, 90'000'000};
constexpr ProcessKey kRedisToo{4713, 90'000'000};

class SuccessorTest : public DetectionTest {
 protected:
  std::optional<Finding> watch(int ticks) {
    for (int i = 0; i < ticks; ++i) {
      for (const Observation& observation : detection_.observe(source_.batch(), &source_)) {
        for (const Finding& finding : observation.findings) {
          if (finding.detector == "composition") return finding;
        }
      }
    }
    return std::nullopt;
  }
  void starts(const ProcessKey& process, const FakeSource::Counts& counts) {
    source_.runs(process, "/usr/bin/redis-server");
    source_.does(process, counts);
  }
};

TEST_F(SuccessorTest, ARestartedProcessIsComparedWithItsPredecessor) {
  starts(kRedis, kUsual);
  ASSERT_FALSE(watch(300));
  source_.exits(kRedis);
  ASSERT_FALSE(watch(5));
  starts(kRedisAgain, kChanged);
  EXPECT_FALSE(watch(45)) << "its start-up is not judged";
  const auto finding = watch(60);
  ASSERT_TRUE(finding);
  EXPECT_NEAR(finding->before, 0.2, 0.02);
  EXPECT_NEAR(finding->after, 0.6, 0.02);
}

TEST_F(SuccessorTest, ARestartWithoutAChangeIsSilent) {
  starts(kRedis, kUsual);
  ASSERT_FALSE(watch(300));
  source_.exits(kRedis);
  starts(kRedisAgain, kUsual);
  EXPECT_FALSE(watch(600));
}

TEST_F(SuccessorTest, WhoIsDetachedAndAttachedAgainHasItsPast) {
  starts(kRedis, kUsual);
  ASSERT_FALSE(watch(300));
  source_.detaches(kRedis);
  ASSERT_FALSE(watch(1));
  starts(kRedis, kChanged);
  EXPECT_TRUE(watch(120));
}

TEST_F(SuccessorTest, OfSeveralAtOnceNobodyInherits) {
  starts(kRedis, kUsual);
  ASSERT_FALSE(watch(300));
  starts(kRedisToo, kChanged);
  ASSERT_FALSE(watch(100));
  source_.exits(kRedis);
  source_.exits(kRedisToo);
  ASSERT_FALSE(watch(1));
  EXPECT_TRUE(detection_.baselines().all().empty());
  starts(kRedisAgain, kChanged);
  EXPECT_FALSE(watch(200));
}

TEST_F(SuccessorTest, AnotherProgramInheritsNothing) {
  starts(kRedis, kUsual);
  ASSERT_FALSE(watch(300));
  source_.exits(kRedis);
  source_.runs(kRedisAgain, "/usr/bin/nginx");
  source_.does(kRedisAgain, kChanged);
  EXPECT_FALSE(watch(200));
}

TEST_F(SuccessorTest, BaselinesSurviveTheDaemon) {
  starts(kRedis, kUsual);
  ASSERT_FALSE(watch(300));
  EXPECT_FALSE(detection_.remembers(kRedis, ProbeKind::kOnCpu, "composition")) << "it has learned by itself";
  for (const ProcessKey& process : detection_.watched()) detection_.keep(process);
  detection_.keep(kNginx);  // nobody watches it
  Detection next{DetectionPolicy{}, DetectorSettings{}};
  ASSERT_FALSE(detection_.baselines().all().empty());
  for (const auto& [key, entry] : detection_.baselines().all()) next.baselines().put(key, entry.saved);
  detection_ = std::move(next);
  starts(kRedis, kChanged);
  ASSERT_FALSE(watch(10));
  EXPECT_FALSE(detection_.remembers(kRedis, ProbeKind::kOnCpu, "composition")) << "its first ticks are not judged";
  EXPECT_TRUE(watch(110));
  EXPECT_TRUE(detection_.remembers(kRedis, ProbeKind::kOnCpu, "composition"));
  EXPECT_FALSE(detection_.remembers(kRedis, ProbeKind::kOnCpu, "rate"));
  EXPECT_FALSE(detection_.remembers(kRedis, ProbeKind::kBlocked, "composition"));
  EXPECT_FALSE(detection_.remembers(kNginx, ProbeKind::kOnCpu, "composition"));
}

// Its baseline is of before the quota, and so must be what it waits usually.
TEST_F(SuccessorTest, WhatAQuotaHidesStaysHiddenAfterARestart) {
  const std::string in_kernel = "finish_task_switch_[k]";
  const std::string call = "load;entry_SYSCALL_64_after_hwframe_[k]";
  for (const auto& [work, of_the_process] :
       {std::pair{in_kernel, true}, std::pair{in_kernel, false}, std::pair{call, true}, std::pair{call, false}}) {
    const FakeSource::Counts usual = {{"parse", 80}, {"render", 19}, {work, 1}};
    const FakeSource::Counts throttled = {{"parse", 70}, {"render", 17}, {work, 13}};
    detection_ = Detection{DetectionPolicy{}, DetectorSettings{}};
    ProcessSample sample;
    sample.key = kRedis;
    const auto watch_waiting = [&](uint64_t waited_ms, int ticks) {
      bool is_told = false;
      for (int i = 0; i < ticks; ++i) {
        TickBatch batch = source_.batch();
        sample.on_cpu_ns += 1'000'000'000;
        sample.run_queue_ns += waited_ms * 1'000'000;
        batch.samples = {&sample, 1};
        for (const Observation& observation : detection_.observe(batch, &source_)) {
          for (const Finding& finding : observation.findings) is_told = is_told || finding.detector == "composition";
        }
      }
      return is_told;
    };
    starts(kRedis, usual);
    ASSERT_FALSE(watch_waiting(50, 300));
    source_.does(kRedis, throttled);
    EXPECT_FALSE(watch_waiting(9000, 120));
    if (of_the_process) {
      source_.exits(kRedis);
      ASSERT_FALSE(watch_waiting(9000, 1));
      sample.key = kRedisAgain;
    } else {
      detection_.keep(kRedis);
      Detection next{DetectionPolicy{}, DetectorSettings{}};
      for (const auto& [key, entry] : detection_.baselines().all()) next.baselines().put(key, entry.saved);
      detection_ = std::move(next);
    }
    starts(sample.key, throttled);
    EXPECT_FALSE(watch_waiting(9000, 300)) << work << of_the_process;
    source_.detaches(sample.key);
    static_cast<void>(watch_waiting(9000, 1));
  }
}

TEST_F(SuccessorTest, DamagedBaselinesAreLearnedAnew) {
  detection_.baselines().put({"/usr/bin/redis-server\n\nprogram", ProbeKind::kOnCpu, "composition"}, "no baseline");
  starts(kRedis, kUsual);
  EXPECT_FALSE(watch(120));
  EXPECT_EQ(detection_.refused(), 1U);
  starts(kRedis, kChanged);
  EXPECT_TRUE(watch(60));
}

TEST(Baselines, AreBoundedAndForgetTheOldest) {
  Baselines baselines;
  for (int i = 0; i < 200; ++i) {
    baselines.put({"service" + std::to_string(i), ProbeKind::kOnCpu, "composition"}, std::string(40'000, 'x'));
    ASSERT_LE(baselines.bytes(), Baselines::kMaxBytes);
  }
  EXPECT_EQ(baselines.get({"service0", ProbeKind::kOnCpu, "composition"}), "");
  EXPECT_EQ(baselines.get({"service199", ProbeKind::kOnCpu, "composition"}).size(), 40'000U);
  EXPECT_EQ(baselines.forgotten() + baselines.all().size(), 200U);
}

}  // namespace
}  // namespace stackwatch
