// SPDX-License-Identifier: Apache-2.0
#include "config/rule.h"

#include <gtest/gtest.h>

#include <cmath>

namespace stackwatch {
namespace {

WatchRule named(std::string name) {
  WatchRule rule;
  rule.name = std::move(name);
  return rule;
}

std::string message_for(const WatchRule& rule) {
  const Result<WatchRule> checked = checked_rule(rule);
  if (checked) return "accepted";
  EXPECT_EQ(checked.error().kind, ErrorKind::kUsage);
  return checked.error().message();
}

TEST(CheckedRule, NeedsAMatcher) {
  EXPECT_EQ(message_for(WatchRule{}),
            "a watch rule without a matcher (give it one of name, exe, cmdline, cgroup, unit, user, pid)");
}

TEST(CheckedRule, RefusesWhatCannotMatch) {
  EXPECT_EQ(message_for(named("")), "name: \"\" is no pattern: it is empty");
  EXPECT_EQ(message_for(named("a[")), "name: \"a[\" is no pattern: the [ at character 2 has no closing ]");
  WatchRule rule;
  rule.exe = "redis-server";
  EXPECT_EQ(message_for(rule),
            "exe: \"redis-server\" never matches, because it is compared with the whole path (write "
            "\"*/redis-server\")");
  rule = {};
  rule.cgroup = "system.slice/*";
  EXPECT_NE(message_for(rule).find("never matches"), std::string::npos);
  rule = {};
  rule.unit = "redis.servce";
  EXPECT_EQ(message_for(rule), "unit: \"redis.servce\" is no unit that has processes (did you mean \".service\"?)");
  rule.unit = "redis.timer";
  EXPECT_NE(message_for(rule).find("no unit that has processes"), std::string::npos);
  rule = {};
  for (const int32_t pid : {0, -1, -2147483647, 4194305}) {
    rule.pid = pid;
    EXPECT_NE(message_for(rule).find("pid: "), std::string::npos) << pid;
  }
}

TEST(CheckedRule, RefusesAbsurdFrequencies) {
  WatchRule rule = named("x");
  for (const double frequency :
       {0.0, -99.0, 0.5, 4000.5, 1e9, static_cast<double>(NAN), static_cast<double>(INFINITY)}) {
    rule.frequency_hz = frequency;
    EXPECT_NE(message_for(rule).find("frequency: "), std::string::npos) << frequency;
  }
  for (const double frequency : {1.0, 19.0, 99.0, 4000.0}) {
    rule.frequency_hz = frequency;
    EXPECT_EQ(message_for(rule), "accepted");
  }
}

TEST(CheckedRule, RefusesBadIdsAndNoProbes) {
  WatchRule rule = named("x");
  for (const char* id : {"a b", "a/b", "ä", "\n"}) {
    rule.id = id;
    EXPECT_NE(message_for(rule).find("id: "), std::string::npos) << id;
  }
  rule.id = std::string(65, 'a');
  EXPECT_NE(message_for(rule).find("id: "), std::string::npos);
  rule.id = "My_rule-1.x";
  EXPECT_EQ(message_for(rule), "accepted");
  rule.probes.clear();
  EXPECT_NE(message_for(rule).find("probes: "), std::string::npos);
}

TEST(CheckedRule, CompletesABareUnit) {
  WatchRule rule;
  const auto completed = [&rule](const char* unit) {
    rule.unit = unit;
    return checked_rule(rule).value().unit.value();
  };
  EXPECT_EQ(completed("redis"), "redis.service");
  EXPECT_EQ(completed("redis@6379"), "redis@6379.service");
  EXPECT_EQ(completed("redis*"), "redis*");
  EXPECT_EQ(completed("redis.*"), "redis.*");
  EXPECT_EQ(completed("session-*.scope"), "session-*.scope");
  EXPECT_EQ(completed("user-*.slice"), "user-*.slice");
}

TEST(CheckedRule, TheIdComesFromTheMatchersAlone) {
  WatchRule rule = named("redis-server");
  const std::string id = checked_rule(rule).value().id;
  EXPECT_EQ(id, "rule-1b55378aa4d8");  // the same in every version
  rule.frequency_hz = 19;
  rule.children = true;
  rule.probes = {ProbeKind::kMemory};
  rule.source = "elsewhere:1";
  EXPECT_EQ(checked_rule(rule).value().id, id);
  rule.user = "redis";
  EXPECT_NE(checked_rule(rule).value().id, id);
  WatchRule exe_alike;
  exe_alike.cmdline = "redis-server";
  EXPECT_NE(checked_rule(exe_alike).value().id, id);
}

TEST(CheckedRule, MappingsAreAPartOfTheProbeMemory) {
  WatchRule rule = named("x");
  rule.mmap = true;
  const auto refused = checked_rule(rule);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().what, "mmap");
  rule.probes = {ProbeKind::kOnCpu, ProbeKind::kMemory};
  EXPECT_TRUE(checked_rule(rule));
}

TEST(CheckedRule, SortsProbes) {
  WatchRule rule = named("x");
  rule.probes = {ProbeKind::kMemory, ProbeKind::kOnCpu, ProbeKind::kMemory};
  EXPECT_EQ(checked_rule(rule).value().probes, (std::vector{ProbeKind::kOnCpu, ProbeKind::kMemory}));
}

TEST(Describe, OneLineOfMatchers) {
  WatchRule rule = named("a\nb");
  rule.user = "redis";
  rule.pid = 12;
  EXPECT_EQ(describe(rule), "name=a\\x0ab user=redis pid=12");
}

}  // namespace
}  // namespace stackwatch
