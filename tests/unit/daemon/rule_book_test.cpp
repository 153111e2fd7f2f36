// SPDX-License-Identifier: Apache-2.0
#include "daemon/rule_book.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "tests/fakes/proc_tree.h"

namespace stackwatch {
namespace {

WatchRule named(const std::string& id, const std::string& name) {
  WatchRule rule;
  rule.id = id;
  rule.name = name;
  return rule;
}

class RuleBookTest : public testing::Test {
 protected:
  RuleBookTest() {
    sample_.key = {10, 10'000'000};
    sample_.pid_in_ns = 10;
    sample_.comm = "redis-server";
    sample_.cgroup = "/system.slice/redis.service";
    sample_.exec = ExecId{1};
    sample_.uid = 33;
  }
  std::string matching() {
    const WatchRule* found = book_.rule_of(sample_);
    return found == nullptr ? "" : found->id;
  }

  ProcTree tree_;
  RuleBook book_{Procfs(tree_.root())};
  ProcessSample sample_;
};

TEST_F(RuleBookTest, WithoutRulesNobodyFallsUnderOne) {
  EXPECT_EQ(book_.rule_of(sample_), nullptr);
  book_.end_tick();
  EXPECT_EQ(book_.find(""), nullptr);
}

TEST_F(RuleBookTest, WhatCannotBeReadDoesNotMatch) {
  WatchRule rule;
  rule.id = "by exe";
  rule.exe = "*";
  book_.set_rules({rule});
  EXPECT_EQ(book_.rule_of(sample_), nullptr);
}

TEST_F(RuleBookTest, TheFirstRuleThatMatches) {
  book_.set_rules({named("nginx", "nginx"), named("first", "redis*"), named("second", "redis-server")});
  EXPECT_EQ(matching(), "first");
  ASSERT_NE(book_.find("second"), nullptr);
  EXPECT_EQ(book_.find("second")->name, "redis-server");
  EXPECT_EQ(book_.find("third"), nullptr);
  EXPECT_EQ(book_.rules().size(), 3U);
}

TEST_F(RuleBookTest, IsNotComparedAtEveryTick) {
  WatchRule rule;
  rule.id = "by exe";
  rule.exe = "/usr/bin/redis*";
  book_.set_rules({rule});
  tree_.link("10/exe", "/usr/bin/redis-server");
  EXPECT_EQ(matching(), "by exe");
  book_.end_tick();
  tree_.link("10/exe", "/usr/bin/other");
  EXPECT_EQ(matching(), "by exe") << "reading /proc for every process in every tick is what must not be";
}

TEST_F(RuleBookTest, AnotherProgramIsComparedAnew) {
  WatchRule rule;
  rule.id = "by exe";
  rule.exe = "/usr/bin/redis*";
  book_.set_rules({rule});
  tree_.link("10/exe", "/bin/sh");
  EXPECT_EQ(matching(), "");
  tree_.link("10/exe", "/usr/bin/redis-server");
  EXPECT_EQ(matching(), "");
  sample_.exec = ExecId{2};
  EXPECT_EQ(matching(), "by exe");
  tree_.link("10/exe", "/bin/sh");
  sample_.exec = ExecId{3};
  EXPECT_EQ(matching(), "");
}

TEST_F(RuleBookTest, AnotherNameIsComparedAnew) {
  book_.set_rules({named("redis", "redis-*")});
  EXPECT_EQ(matching(), "redis");
  sample_.comm = "other";
  EXPECT_EQ(matching(), "");
  sample_.comm = "redis-bgsave";
  EXPECT_EQ(matching(), "redis");
}

TEST_F(RuleBookTest, AnotherCgroupIsComparedAnew) {
  WatchRule rule;
  rule.id = "by unit";
  rule.unit = "redis.service";
  book_.set_rules({rule});
  EXPECT_EQ(matching(), "by unit");
  sample_.cgroup = "/system.slice/other.service";
  EXPECT_EQ(matching(), "");
}

TEST_F(RuleBookTest, AnotherUserIsComparedAnew) {
  WatchRule rule;
  rule.id = "by user";
  rule.user = "4242";
  book_.set_rules({rule});
  EXPECT_EQ(matching(), "");
  sample_.uid = 4242;
  EXPECT_EQ(matching(), "by user") << "a daemon that gives up root after its start";
  sample_.uid = 33;
  EXPECT_EQ(matching(), "");
}

TEST_F(RuleBookTest, NewRulesAreForEverybody) {
  book_.set_rules({named("old", "redis*")});
  EXPECT_EQ(matching(), "old");
  book_.set_rules({named("new", "redis*")});
  EXPECT_EQ(matching(), "new");
  book_.set_rules({});
  EXPECT_EQ(book_.rule_of(sample_), nullptr);
}

TEST_F(RuleBookTest, ForgetsWhoWasNotLookedUp) {
  WatchRule rule;
  rule.id = "by exe";
  rule.exe = "/usr/bin/redis*";
  book_.set_rules({rule});
  tree_.link("10/exe", "/usr/bin/redis-server");
  EXPECT_EQ(matching(), "by exe");
  book_.end_tick();
  book_.end_tick();  // a tick without it
  tree_.link("10/exe", "/bin/sh");
  EXPECT_EQ(matching(), "");
}

TEST_F(RuleBookTest, APidThatComesRoundIsAnotherProcess) {
  book_.set_rules({named("redis", "redis*")});
  EXPECT_EQ(matching(), "redis");
  ProcessSample other = sample_;
  other.key.start_time_ns += kStartTimeGranularityNs;
  other.comm = "sh";
  EXPECT_EQ(book_.rule_of(other), nullptr);
  EXPECT_EQ(matching(), "redis");
}

// Against a plain comparison: processes come, go and change, and are looked up in order, in part and out of order.
TEST_F(RuleBookTest, EverybodyHasTheirOwnRuleWhoeverComesAndGoes) {
  std::mt19937 random(5);
  std::map<int32_t, ProcessSample> alive;
  uint64_t starts = 0;
  const auto expected = [](const ProcessSample& sample, bool reloaded) {
    return sample.comm == "redis" ? (reloaded ? "second" : "first") : sample.comm == "nginx" ? "other" : "";
  };
  book_.set_rules({named("first", "redis"), named("other", "nginx")});
  for (int tick = 0; tick < 300; ++tick) {
    for (int i = 0; i < 5; ++i) {
      const auto pid = static_cast<int32_t>(random() % 60);
      alive.erase(pid);
      if (random() % 3 == 0) continue;
      ProcessSample& sample = alive[pid] = sample_;
      sample.key = {pid, ++starts * kStartTimeGranularityNs};
      sample.comm = std::vector<std::string>{"redis", "nginx", "sh"}[random() % 3];
    }
    if (!alive.empty() && random() % 4 == 0) alive.begin()->second.comm = "nginx";
    const bool reloaded = tick >= 150;
    std::vector<ProcessSample> order;
    for (const auto& [pid, sample] : alive) order.push_back(sample);
    if (tick % 3 == 0) order.resize(order.size() / 2);  // between two ticks
    if (tick % 5 == 0) std::ranges::shuffle(order, random);
    if (tick == 150) book_.set_rules({named("second", "redis"), named("other", "nginx")});
    if (tick % 3 == 0) {
      for (const auto& [pid, sample] : alive) order.push_back(sample);
    }
    for (const ProcessSample& sample : order) {
      const WatchRule* rule = book_.rule_of(sample);
      ASSERT_EQ(rule == nullptr ? "" : rule->id, expected(sample, reloaded)) << tick;
    }
    book_.end_tick();
  }
}

TEST_F(RuleBookTest, ThePidIsTheOneOfTheDaemonsNamespace) {
  WatchRule rule;
  rule.id = "by pid";
  rule.pid = 77;
  book_.set_rules({rule});
  sample_.pid_in_ns = 77;
  EXPECT_EQ(matching(), "by pid");
}

TEST(UserNameOf, NobodyHasThisId) {
  EXPECT_EQ(user_name_of(std::numeric_limits<uint32_t>::max() - 7), std::nullopt);
  EXPECT_EQ(user_name_of(0), "root");
}

}  // namespace
}  // namespace stackwatch
