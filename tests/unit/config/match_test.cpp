// SPDX-License-Identifier: Apache-2.0
#include "config/match.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

namespace stackwatch {
namespace {

using std::string_literals::operator""s;

class FakeFacts final : public FactsProvider {
 public:
  std::optional<std::string> exe() override {
    ++exe_reads;
    return exe_value;
  }
  std::optional<std::string> cmdline() override {
    ++cmdline_reads;
    return cmdline_value;
  }
  std::optional<std::string> user_name(uint32_t uid) override {
    ++user_reads;
    const auto found = users.find(uid);
    return found == users.end() ? std::nullopt : std::optional(found->second);
  }
  [[nodiscard]] int reads() const { return exe_reads + cmdline_reads + user_reads; }

  std::optional<std::string> exe_value;
  std::optional<std::string> cmdline_value;
  std::map<uint32_t, std::string> users{{0, "root"}, {110, "redis"}};
  int exe_reads = 0;
  int cmdline_reads = 0;
  int user_reads = 0;
};

class Match : public testing::Test {
 protected:
  bool matches_now(const WatchRule& rule) {
    ProcessFacts facts(known_, fake_);
    return matches(rule, facts);
  }
  static WatchRule named(std::string pattern) {
    WatchRule rule;
    rule.name = std::move(pattern);
    return rule;
  }

  ProcessFacts::Known known_{4711, "redis-server", "/system.slice/redis.service", 110};
  FakeFacts fake_;
};

TEST_F(Match, ARuleWithoutMatchersMatchesNobody) { EXPECT_FALSE(matches_now(WatchRule{})); }

TEST_F(Match, FactsThatCannotBeReadMatchNothing) {
  WatchRule rule;
  rule.exe = "*";
  EXPECT_FALSE(matches_now(rule));
  rule = {};
  rule.cmdline = "*";
  EXPECT_FALSE(matches_now(rule));
  rule = {};
  rule.user = "*";
  known_.uid = 4242;
  EXPECT_FALSE(matches_now(rule));
  known_.cgroup.clear();
  rule = {};
  rule.unit = "?*";
  EXPECT_FALSE(matches_now(rule));
}

TEST_F(Match, EachMatcherAlone) {
  fake_.exe_value = "/usr/bin/redis-check-rdb";
  fake_.cmdline_value = "/usr/bin/redis-server\0"s + "127.0.0.1:6379\0"s;
  EXPECT_TRUE(matches_now(named("redis-*")));
  EXPECT_FALSE(matches_now(named("nginx")));
  const auto one = [this](std::optional<std::string> WatchRule::*member, const char* pattern) {
    WatchRule rule;
    rule.*member = pattern;
    return matches_now(rule);
  };
  EXPECT_TRUE(one(&WatchRule::exe, "/usr/bin/redis-*"));
  EXPECT_FALSE(one(&WatchRule::exe, "redis-*"));
  EXPECT_TRUE(one(&WatchRule::cmdline, "*redis-server 127.*"));
  EXPECT_FALSE(one(&WatchRule::cmdline, "127.*"));
  EXPECT_TRUE(one(&WatchRule::cgroup, "/system.slice/*"));
  EXPECT_FALSE(one(&WatchRule::cgroup, "/system.slice"));
  EXPECT_TRUE(one(&WatchRule::unit, "redis.service"));
  EXPECT_FALSE(one(&WatchRule::unit, "redis"));
  EXPECT_TRUE(one(&WatchRule::user, "redis"));
  EXPECT_TRUE(one(&WatchRule::user, "110"));
  EXPECT_FALSE(one(&WatchRule::user, "11"));
  EXPECT_FALSE(one(&WatchRule::user, "root"));
  WatchRule by_pid;
  by_pid.pid = 4711;
  EXPECT_TRUE(matches_now(by_pid));
  by_pid.pid = 4712;
  EXPECT_FALSE(matches_now(by_pid));
}

TEST_F(Match, AllMatchersMustHold) {
  WatchRule rule = named("redis-server");
  rule.user = "redis";
  rule.unit = "redis.service";
  rule.pid = 4711;
  EXPECT_TRUE(matches_now(rule));
  for (auto member : {&WatchRule::name, &WatchRule::user, &WatchRule::unit}) {
    WatchRule wrong = rule;
    wrong.*member = "other";
    EXPECT_FALSE(matches_now(wrong));
  }
}

TEST_F(Match, ANameNeverCausesARead) {
  EXPECT_TRUE(matches_now(named("redis-server")));
  EXPECT_FALSE(matches_now(named("postgres")));
  EXPECT_FALSE(matches_now(named("redis-server-long")));  // 12 bytes: not cut off
  known_.comm = "systemd-journal";
  EXPECT_FALSE(matches_now(named("systemd-logind")));
  EXPECT_TRUE(matches_now(named("systemd-*")));
  EXPECT_EQ(fake_.reads(), 0);
}

TEST_F(Match, WhatCostsAReadIsLeftForLast) {
  WatchRule rule = named("nginx");
  rule.exe = "*";
  rule.cmdline = "*";
  rule.user = "redis";
  EXPECT_FALSE(matches_now(rule));
  EXPECT_EQ(fake_.reads(), 0);
  rule.name = "redis-server";
  rule.user = "root";
  EXPECT_FALSE(matches_now(rule));
  EXPECT_EQ(fake_.user_reads, 1);
  EXPECT_EQ(fake_.exe_reads + fake_.cmdline_reads, 0);
}

TEST_F(Match, FactsAreReadOnceForAllRules) {
  fake_.exe_value = "/usr/bin/x";
  fake_.cmdline_value = "x\0"s;
  ProcessFacts facts(known_, fake_);
  WatchRule rule;
  rule.exe = "/nowhere";
  WatchRule other;
  other.cmdline = "nothing";
  WatchRule third;
  third.user = "nobody";
  for (int i = 0; i < 3; ++i) {
    EXPECT_FALSE(matches(rule, facts));
    EXPECT_FALSE(matches(other, facts));
    EXPECT_FALSE(matches(third, facts));
  }
  EXPECT_EQ(fake_.exe_reads, 1);
  EXPECT_EQ(fake_.cmdline_reads, 1);
  EXPECT_EQ(fake_.user_reads, 1);
}

TEST_F(Match, ACutCommStandsForTheFileName) {
  known_.comm = "systemd-journal";
  fake_.exe_value = "/usr/lib/systemd/systemd-journald";
  EXPECT_TRUE(matches_now(named("systemd-journald")));
  EXPECT_TRUE(matches_now(named("systemd-journal")));
  EXPECT_TRUE(matches_now(named("systemd-*d")));
  EXPECT_FALSE(matches_now(named("systemd-journalctl")));
}

TEST_F(Match, ACutCommStandsForAScript) {
  known_.comm = "unattended-upgr";
  fake_.exe_value = "/usr/bin/python3.11";
  fake_.cmdline_value = "/usr/bin/python3\0/usr/bin/unattended-upgrade\0--verbose\0"s;
  EXPECT_TRUE(matches_now(named("unattended-upgrade")));
  EXPECT_FALSE(matches_now(named("unattended-upgrade-shutdown")));
}

TEST_F(Match, ANameThatAProcessGaveItselfIsNotReplacedByItsFile) {
  known_.comm = "worker-thread-1";
  fake_.exe_value = "/usr/bin/worker-thread-manager";
  EXPECT_FALSE(matches_now(named("worker-thread-manager")));
}

TEST_F(Match, ACutCommAloneIsEnoughWhereNothingCanBeRead) {
  known_.comm = "systemd-journal";
  EXPECT_TRUE(matches_now(named("systemd-journald")));
  EXPECT_FALSE(matches_now(named("systemd-journal?[x]")));
  EXPECT_FALSE(matches_now(named("systemd-logind")));
}

TEST_F(Match, ADeletedExecutableIsStillTheSame) {
  fake_.exe_value = "/usr/bin/redis-server (deleted)";
  WatchRule rule;
  rule.exe = "/usr/bin/redis-server";
  EXPECT_TRUE(matches_now(rule));
}

TEST_F(Match, AnEmptyCommandLineIsNone) {
  WatchRule rule;
  rule.cmdline = "*";
  for (const std::string& text : {""s, "\0"s, "\0\0\0"s}) {
    fake_.cmdline_value = text;
    EXPECT_FALSE(matches_now(rule));
  }
}

TEST_F(Match, AnEndlessCommandLineIsCutOff) {
  fake_.cmdline_value = std::string(kMaxCmdlineBytes, 'a') + "END";
  WatchRule rule;
  rule.cmdline = "*END";
  EXPECT_FALSE(matches_now(rule));
  rule.cmdline = "a*a";
  EXPECT_TRUE(matches_now(rule));
}

TEST(UnitOfCgroup, NoneWhereThereIsNone) {
  for (const char* path : {"", "/", "//", "/docker/0123456789abcdef", "/.service", "/kubepods/pod1", "/_",
                           "/a.servicex", "/user.slice.d"}) {
    EXPECT_EQ(unit_of_cgroup(path), "") << path;
  }
  EXPECT_EQ(unit_of_cgroup("/" + std::string(300, 'a') + ".service"), "");
}

TEST(UnitOfCgroup, TheInnermostUnitThatHoldsProcesses) {
  EXPECT_EQ(unit_of_cgroup("/system.slice/redis.service"), "redis.service");
  EXPECT_EQ(unit_of_cgroup("/init.scope"), "init.scope");
  EXPECT_EQ(unit_of_cgroup("/system.slice/redis.service/worker"), "redis.service");
  EXPECT_EQ(unit_of_cgroup("/system.slice/redis.service/"), "redis.service");
  EXPECT_EQ(unit_of_cgroup("/user.slice/user-1000.slice/session-3.scope"), "session-3.scope");
  EXPECT_EQ(unit_of_cgroup("/user.slice/user-1000.slice/user@1000.service/app.slice/app-x.service"), "app-x.service");
  EXPECT_EQ(unit_of_cgroup("/system.slice/docker-12ab.scope/system.slice/nginx.service"), "nginx.service");
  EXPECT_EQ(unit_of_cgroup("/system.slice/srv-data.mount"), "srv-data.mount");
  EXPECT_EQ(unit_of_cgroup("/../other.slice/x.service"), "x.service");
}

TEST(UnitOfCgroup, ASliceOnlyWhereNothingElseIs) {
  EXPECT_EQ(unit_of_cgroup("/system.slice"), "system.slice");
  EXPECT_EQ(unit_of_cgroup("/user.slice/user-1000.slice"), "user-1000.slice");
  EXPECT_EQ(unit_of_cgroup("/a.service/b.slice"), "a.service");
}

TEST(UnitOfCgroup, EscapesAndSuffixes) {
  EXPECT_EQ(unit_of_cgroup("/system.slice/dev-disk\\x2dby.mount"), "dev-disk\\x2dby.mount");
  EXPECT_EQ(unit_of_cgroup("/system.slice/_cpu.service"), "cpu.service");
  EXPECT_EQ(unit_of_cgroup("/system.slice/old.service (deleted)"), "old.service");
}

}  // namespace
}  // namespace stackwatch
