// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "daemon/alerting/journal_sink.h"
#include "daemon/alerting/message.h"
#include "systemd/message_ids.h"
#include "tests/unit/alerting/sample_alert.h"

namespace stackwatch {
namespace {

std::string value_of(const std::vector<std::string>& fields, const std::string& name) {
  for (const std::string& field : fields) {
    if (field.starts_with(name + "=")) return field.substr(name.size() + 1);
  }
  return "(no such field)";
}

TEST(JournalFields, HostileTextStaysText) {
  Alert alert = sample_alert();
  alert.process.comm = "a\nPRIORITY=0";
  alert.process.exe = "/tmp/\xff\x1b[2J";
  alert.process.cgroup = "/x\r";
  alert.process.unit = std::string("u\0v", 3);
  alert.frame = "f;g\n";
  alert.stack = {"main;x", "f;g\n"};
  for (const std::string& field : journal_fields(alert, true)) {
    EXPECT_TRUE(std::ranges::none_of(field, [](unsigned char c) { return c < 0x20 || c == 0x7f; })) << field;
    EXPECT_EQ(printable(field, 100'000), field) << "valid UTF-8";
  }
  const auto fields = journal_fields(alert, false);
  EXPECT_EQ(value_of(fields, "STACKWATCH_STACK"), "main\\x3bx;f\\x3bg\\x0a") << "a ; always parts two frames";
  EXPECT_EQ(value_of(fields, "PRIORITY"), "4");
}

TEST(JournalFields, AreTheContractsAndNoOthers) {
  EXPECT_THAT(journal_fields(sample_alert(), false),
              testing::ElementsAre(
                  testing::StartsWith("MESSAGE=redis-server[4711]: dictFind takes 4.3 % of its CPU time, was 1.1 %"),
                  std::string("MESSAGE_ID=") + kMessageIdAlertFiring, "PRIORITY=4", "STACKWATCH_ALERT_ID=0123456789ab",
                  "STACKWATCH_STATE=firing", "STACKWATCH_PID=4711", "STACKWATCH_COMM=redis-server",
                  "STACKWATCH_EXE=/usr/bin/redis-server", "STACKWATCH_CGROUP=/system.slice/redis.service",
                  "STACKWATCH_UNIT=redis.service", "STACKWATCH_DETECTOR=composition", "STACKWATCH_PROBE=on_cpu",
                  "STACKWATCH_FRAME=dictFind", "STACKWATCH_STACK=main;aeMain;call;dictFind", "STACKWATCH_BEFORE=0.011",
                  "STACKWATCH_AFTER=0.043", "STACKWATCH_ONSET=2026-11-22T12:03:20.000000Z", "STACKWATCH_SCORE=21.4"));
}

TEST(JournalFields, OfSeveralWorkersAllPids) {
  Alert alert = sample_alert();
  for (const int pid : {4711, 4712}) {
    Alert::Member member;
    member.process = alert.process;
    member.process.pid_in_ns = pid;
    alert.processes.push_back(member);
  }
  const auto fields = journal_fields(alert, false);
  EXPECT_EQ(value_of(fields, "STACKWATCH_PIDS"), "4711 4712");
  EXPECT_EQ(value_of(fields, "STACKWATCH_PID"), "4711");
  EXPECT_THAT(value_of(fields, "MESSAGE"), testing::HasSubstr("redis-server[4711] and 1 more: dictFind takes 4.3 %"));
}

TEST(JournalFields, ResolvedOnesHaveTheirOwnIdAndPriority) {
  Alert alert = sample_alert();
  alert.state = AlertState::kResolved;
  alert.resolution = kBackToBaseline;
  const auto fields = journal_fields(alert, false);
  EXPECT_EQ(value_of(fields, "MESSAGE_ID"), kMessageIdAlertResolved);
  EXPECT_EQ(value_of(fields, "PRIORITY"), "5");
  EXPECT_EQ(value_of(fields, "STACKWATCH_STATE"), "resolved");
  EXPECT_EQ(value_of(fields, "STACKWATCH_ALERT_ID"), "0123456789ab");
}

TEST(JournalFields, PidsAreThoseOfTheDaemonsNamespace) {
  Alert alert = sample_alert();
  alert.process.pid_in_ns = 12;
  EXPECT_EQ(value_of(journal_fields(alert, true), "STACKWATCH_PID"), "12");
  EXPECT_EQ(value_of(journal_fields(alert, true), "OBJECT_PID"), "12");
  alert.process.pid_in_ns = 0;
  EXPECT_EQ(value_of(journal_fields(alert, true), "STACKWATCH_PID"), "4711");
}

TEST(JournalFields, APidThatMayBeReusedIsNoObject) {
  Alert alert = sample_alert();
  alert.state = AlertState::kResolved;
  alert.resolution = kProcessExited;
  EXPECT_EQ(value_of(journal_fields(alert, true), "OBJECT_PID"), "(no such field)");
}

TEST(JournalFields, LongStacksLoseTheirMiddle) {
  Alert alert = sample_alert();
  alert.stack.assign(300, std::string(50, 'm'));
  alert.stack.front() = "root";
  alert.stack.back() = "leaf";
  const std::string stack = value_of(journal_fields(alert, false), "STACKWATCH_STACK");
  EXPECT_TRUE(stack.starts_with("root;")) << stack;
  EXPECT_TRUE(stack.ends_with(";leaf")) << stack;
  EXPECT_NE(stack.find(";[…];"), std::string::npos);
  EXPECT_LT(stack.size() + 18, 4096U);
  EXPECT_GT(stack.size(), 3500U);
}

TEST(JournalFields, LongNamesStayUnderWhatJournalctlShows) {
  Alert alert = sample_alert();
  alert.frame = std::string(1'000'000, 'f');
  alert.stack = {alert.frame, alert.frame};
  alert.process.exe = std::string(100'000, 'e');
  for (const std::string& field : journal_fields(alert, false)) EXPECT_LT(field.size(), 4096U);
}

}  // namespace
}  // namespace stackwatch
