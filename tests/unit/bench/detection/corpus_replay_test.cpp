// SPDX-License-Identifier: Apache-2.0
// Two programs of the corpus as they were recorded, among 57 on two CPUs: one function takes 20 points more; a restart.
#include "corpus_replay.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "config/load.h"
#include "daemon/daemon.h"
#include "daemon/detector_schema.h"

namespace stackwatch {
namespace {

const std::string kCorpus = STACKWATCH_SOURCE_DIR "/tests/unit/bench/detection/corpus";

JudgedWith corpus_settings() {
  const auto config =
      load_config(ConfigFiles::of(STACKWATCH_SOURCE_DIR "/bench/detection/corpus/corpus.toml"), detector_schemas());
  EXPECT_TRUE(config) << config.error().why;
  return {detection_policy(*config), detector_settings(*config), alert_policy_options(*config)};
}

TEST(CorpusReplay, TheChangeIsToldWithItsFunctionAndTheRestartIsNot) {
  const auto runs = read_corpus(kCorpus);
  ASSERT_TRUE(runs) << runs.error().why;
  ASSERT_EQ(runs->size(), 2U);
  const CorpusRun& grows = runs->front();
  ASSERT_EQ(grows.name, "grow20-102");
  const auto replayed = replay_capture(kCorpus + "/two-programs.capture", corpus_settings(), *runs);
  ASSERT_TRUE(replayed) << replayed.error().why;
  ASSERT_EQ(replayed->firings.size(), 1U);
  const Firing& firing = replayed->firings.front();
  EXPECT_EQ(std::filesystem::path(firing.exe).filename(), grows.name);
  EXPECT_EQ(firing.frames.front(), grows.functions.front());
  EXPECT_GT(firing.time_s, grows.onset_s);
  EXPECT_LT(firing.time_s, grows.onset_s + 60);
  const Sampled& sampled = replayed->sampled.at(grows.name);
  EXPECT_NEAR(sampled.share_before, 0.036, 0.005) << "as the program measured it";
  EXPECT_NEAR(sampled.share_after, 0.229, 0.015);
  EXPECT_NEAR(sampled.per_second, 40, 3);
  EXPECT_LT(sampled.dispersion, 2);
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
