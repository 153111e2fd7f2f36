// SPDX-License-Identifier: Apache-2.0
#include "daemon/stack_board.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace stackwatch {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class StackBoardTest : public testing::Test {
 protected:
  StackId stack(StackTable& table, const std::vector<std::string>& names) {
    std::vector<FunctionId> frames;
    for (const std::string& name : names) frames.push_back(functions_.intern("", name));
    return table.intern(frames);
  }
  NamedDelta delta(const ProcessKey& process, const StackTable& table, std::vector<NamedDelta::Value> values) {
    NamedDelta result;
    result.process = process;
    result.time_s = time_s_;
    result.interval_s = 1;
    result.exposure_s = 1;
    result.frequency_hz = 100;
    result.values = std::move(values);
    result.stacks = &table;
    result.functions = &functions_;
    return result;
  }
  std::vector<std::string> names(const StackBoard::Row& row) {
    std::vector<std::string> all;
    for (const FunctionId frame : row.frames) all.push_back(functions_[frame].name);
    return all;
  }

  FunctionTable functions_;
  StackBoard board_;
  double time_s_ = 0;
  ProcessKey first_{1, 10'000'000};
  ProcessKey second_{2, 10'000'000};
  StackTable first_stacks_;
  StackTable second_stacks_;
};

TEST_F(StackBoardTest, NothingSeenIsNothingUnusual) { EXPECT_THAT(board_.unusual(10), IsEmpty()); }

TEST_F(StackBoardTest, AFunctionThatDoublesInOneOfTwoProcessesIsFirstAndNamesIt) {
  const StackId a = stack(first_stacks_, {"main", "parse"});
  const StackId b = stack(second_stacks_, {"main", "parse"});
  const StackId steady = stack(second_stacks_, {"main", "idle"});
  for (int i = 0; i < 300; ++i) {
    time_s_ += 1;
    const int64_t now = i < 240 ? 10 : 20;
    board_.observe(time_s_,
                   {delta(first_, first_stacks_, {{a, now}}), delta(second_, second_stacks_, {{b, 5}, {steady, 40}})});
  }
  const auto rows = board_.unusual(10);
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_THAT(names(rows[0]), ElementsAre("main", "parse"));
  EXPECT_GT(rows[0].score, 4);
  EXPECT_NEAR(rows[0].now_cores, 0.25, 0.02);
  EXPECT_NEAR(rows[0].past_cores, 0.17, 0.02);
  ASSERT_EQ(rows[0].processes.size(), 2U);
  EXPECT_EQ(rows[0].processes[0].process, first_);
  EXPECT_LT(std::abs(rows[1].score), 1) << "what is as always is not unusual";
}

TEST_F(StackBoardTest, WhatStopsIsUnusualToo) {
  const StackId a = stack(first_stacks_, {"main", "parse"});
  for (int i = 0; i < 200; ++i) {
    time_s_ += 1;
    board_.observe(time_s_,
                   {delta(first_, first_stacks_,
                          i < 120 ? std::vector<NamedDelta::Value>{{a, 30}} : std::vector<NamedDelta::Value>{})});
  }
  const auto rows = board_.unusual(1);
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_LT(rows[0].score, -5);
}

TEST_F(StackBoardTest, AYoungProcessIsListedAndNotUnusual) {
  const StackId a = stack(first_stacks_, {"main"});
  for (int i = 0; i < 10; ++i) {
    time_s_ += 1;
    board_.observe(time_s_, {delta(first_, first_stacks_, {{a, i < 5 ? 1 : 90}})});
  }
  ASSERT_EQ(board_.unusual(10).size(), 1U);
  EXPECT_EQ(board_.unusual(10)[0].score, 0);
}

TEST_F(StackBoardTest, ThePastOfAYoungProcessIsItsMean) {
  const StackId a = stack(first_stacks_, {"main"});
  for (int i = 0; i < 100; ++i) {
    time_s_ += 1;
    // Seen in every fourth second alone.
    board_.observe(time_s_,
                   {delta(first_, first_stacks_,
                          i % 4 == 0 ? std::vector<NamedDelta::Value>{{a, 40}} : std::vector<NamedDelta::Value>{})});
  }
  EXPECT_NEAR(board_.unusual(1)[0].past_cores, 0.1, 0.005);
}

TEST_F(StackBoardTest, SoIsWhatAYoungProcessDoesNow) {
  const StackId a = stack(first_stacks_, {"main"});
  for (int i = 0; i < 5; ++i) {
    time_s_ += 1;
    board_.observe(time_s_, {delta(first_, first_stacks_, {{a, 40}})});
  }
  EXPECT_NEAR(board_.unusual(1)[0].now_cores, 0.4, 0.01);
}

TEST_F(StackBoardTest, WhoIsGoneIsForgottenAndAnotherTableIsAnotherLife) {
  const StackId a = stack(first_stacks_, {"main"});
  time_s_ = 1;
  board_.observe(time_s_, {delta(first_, first_stacks_, {{a, 5}})});
  EXPECT_EQ(board_.entries(), 1U);
  board_.forget(first_);
  EXPECT_EQ(board_.entries(), 0U);
  board_.observe(time_s_, {delta(first_, first_stacks_, {{a, 5}})});
  const StackId b = stack(second_stacks_, {"other"});
  time_s_ = 2;
  board_.observe(time_s_, {delta(first_, second_stacks_, {{b, 5}})});
  EXPECT_EQ(board_.entries(), 1U);
}

TEST_F(StackBoardTest, OtherProbesAreNotCpuTime) {
  const StackId a = stack(first_stacks_, {"main"});
  NamedDelta blocked = delta(first_, first_stacks_, {{a, 1'000'000}});
  blocked.probe = ProbeKind::kBlocked;
  board_.observe(1, {blocked});
  EXPECT_EQ(board_.entries(), 0U);
}

TEST_F(StackBoardTest, ItIsBoundedAndKeepsTheHeaviest) {
  std::vector<std::unique_ptr<StackTable>> tables;
  const int processes = static_cast<int>(StackBoard::kMaxEntries / 4000) + 2;
  time_s_ = 1;
  for (int p = 0; p < processes; ++p) {
    tables.push_back(std::make_unique<StackTable>());
    std::vector<NamedDelta::Value> values;
    for (int i = 0; i < 4000; ++i) {
      values.push_back({stack(*tables.back(), {"main", "f" + std::to_string(i)}), i == 7 ? 1000 : 1});
    }
    board_.observe(time_s_, {delta({100 + p, 10'000'000}, *tables.back(), values)});
  }
  EXPECT_LE(board_.entries(), StackBoard::kMaxEntries);
  const auto rows = board_.unusual(1);
  EXPECT_THAT(names(rows[0]), ElementsAre("main", "f7"));
  EXPECT_EQ(rows[0].processes.size(), StackBoard::kMaxProcessesPerRow);
}

}  // namespace
}  // namespace stackwatch
