// SPDX-License-Identifier: Apache-2.0
// Programs of the corpus as they were recorded, among sixty on two CPUs: changes, and what is none.
#include "corpus_replay.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "config/load.h"
#include "daemon/daemon.h"
#include "daemon/detector_schema.h"

namespace stackwatch {
namespace {

const std::string kCorpus = STACKWATCH_SOURCE_DIR "/tests/unit/bench/detection/corpus";

JudgedWith corpus_settings() {
  const auto config = parse_config("", "the built-in defaults", detector_schemas());
  EXPECT_TRUE(config) << config.error().why;
  return {detection_policy(*config), detector_settings(*config), alert_policy_options(*config)};
}

/// What fired in all captures of the corpus, by run.
std::map<std::string, std::vector<Firing>> firings_of(const std::vector<CorpusRun>& runs) {
  std::map<std::string, std::vector<Firing>> out;
  for (const char* capture : {"/cpu.capture", "/memory.capture"}) {
    const auto replayed = replay_capture(kCorpus + capture, corpus_settings(), runs);
    EXPECT_TRUE(replayed) << replayed.error().why;
    if (!replayed) continue;
    for (const Firing& firing : replayed->firings) {
      const CorpusRun* const run = run_at(runs, firing.exe, firing.time_s);
      EXPECT_NE(run, nullptr) << firing.exe;
      if (run != nullptr) out[run->name].push_back(firing);
    }
  }
  return out;
}

TEST(CorpusReplay, ChangesAreToldWithTheirFunctionAndNothingElseIsTold) {
  const auto runs = read_corpus(kCorpus);
  ASSERT_TRUE(runs) << runs.error().why;
  ASSERT_GE(runs->size(), 12U);
  const auto firings = firings_of(*runs);
  for (const CorpusRun& run : *runs) {
    SCOPED_TRACE(run.name);
    const auto found = firings.find(run.name);
    if (!run.is_change) {
      EXPECT_EQ(found, firings.end()) << found->second.front().frames.front();
      continue;
    }
    if (found == firings.end()) {
      ADD_FAILURE() << "nothing was told";
      continue;
    }
    const std::vector<Firing>& told = found->second;
    for (const Firing& firing : told) EXPECT_GT(firing.time_s, run.onset_s);
    // Of alerts about the process as a whole no function is asked.
    const auto named = std::ranges::find_if(told, [](const Firing& firing) { return !firing.frames.front().empty(); });
    ASSERT_NE(named, told.end()) << "no function was named";
    EXPECT_THAT(run.functions, testing::Contains(named->frames.front()));
  }
}

TEST(CorpusReplay, WhatWasSampledIsWhatTheProgramMeasured) {
  const auto runs = read_corpus(kCorpus);
  ASSERT_TRUE(runs) << runs.error().why;
  const auto replayed = replay_capture(kCorpus + "/cpu.capture", corpus_settings(), *runs);
  ASSERT_TRUE(replayed) << replayed.error().why;
  const Sampled& sampled = replayed->sampled.at("grow20-5");
  EXPECT_NEAR(sampled.share_before, 0.164, 0.01) << "as the program measured it";
  EXPECT_NEAR(sampled.share_after, 0.364, 0.02);
  EXPECT_NEAR(sampled.per_second, 42, 5);
  EXPECT_LT(sampled.dispersion, 2);
}

TEST(CorpusReplay, SizesInCoresAreThoseOfTheSameSamples) {
  JudgedWith with;
  with.policy.min_change_cores = 0.02;
  with.detectors.rate.min_change_cores = 0.1;
  const JudgedWith fast = scaled_to(with, 990);
  EXPECT_DOUBLE_EQ(fast.policy.min_change_cores, 0.002);
  EXPECT_DOUBLE_EQ(fast.detectors.rate.min_change_cores, 0.01);
  EXPECT_DOUBLE_EQ(fast.detectors.peers.min_change_cores, with.detectors.peers.min_change_cores / 10);
  EXPECT_EQ(fast.policy.min_change_share, with.policy.min_change_share);
  EXPECT_DOUBLE_EQ(scaled_to(with, 99).policy.min_change_cores, 0.02);
  EXPECT_DOUBLE_EQ(scaled_to(with, 0).policy.min_change_cores, 0.02) << "nothing was sampled";
}

TEST(CorpusReplay, AnExecutableWithSeveralChangesHasARunForEach) {
  std::vector<CorpusRun> runs(3);
  runs[0].name = "b.1", runs[0].exe = "b", runs[0].started_s = 100;
  runs[1].name = "b.2", runs[1].exe = "b", runs[1].started_s = 200;
  runs[2].name = "a", runs[2].exe = "a", runs[2].started_s = 0;
  EXPECT_EQ(run_at(runs, "/srv/c", 150), nullptr);
  EXPECT_EQ(run_at(runs, "/srv/b", 199), &runs[0]);
  EXPECT_EQ(run_at(runs, "/srv/b", 200), &runs[1]);
  EXPECT_EQ(run_at(runs, "/srv/b", 50), &runs[0]) << "its start is not known to the tick";
}

TEST(CorpusReplay, BrokenTruthsAreErrors) {
  EXPECT_FALSE(read_corpus("/nonexistent"));
  const std::filesystem::path directory = std::filesystem::path(testing::TempDir()) / "broken-truths";
  std::filesystem::create_directories(directory);
  EXPECT_FALSE(read_corpus(directory)) << "empty";
  for (const char* text : {"", "[]", "{}", R"({"run":"a","case":"b","change":true,"functions":[1],"pid":1})"}) {
    std::ofstream(directory / "a.truth.json") << text;
    EXPECT_FALSE(read_corpus(directory)) << text;
  }
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace stackwatch
