// SPDX-License-Identifier: Apache-2.0
#include "daemon/daemon.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <sstream>

#include "daemon/detector_schema.h"
#include "tests/fakes/fake_sink.h"
#include "tests/fakes/proc_tree.h"
#include "tests/unit/daemon/machine_fixture.h"

namespace stackwatch {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

/// The whole daemon but its process: a made-up machine below, a sink above.
class DaemonTest : public MachineTest {
 protected:
  DaemonTest() {
    config_.watch = {rule("redis*")};
    config_.limits.cpu_percent = 100;  // a made-up second takes real milliseconds of a slow build
    log_.set_pattern("%l %v");
  }

  Daemon& daemon() {
    if (daemon_) return *daemon_;
    make_source();
    detection_.emplace(detection_policy(config_), detector_settings(config_));
    policy_.emplace(alert_policy_options(config_), clock_, sequential_alert_ids(),
                    AlertContext{[this](const ProcessKey& p) { return source_->identify(p); },
                                 [this](const ProcessKey& p, ProbeKind k) { return source_->losses(p, k); }});
    pipeline_.emplace(*source_, *detection_, *policy_);
    pipeline_->add_sink(sink_);
    daemon_.emplace(Daemon::Parts{clock_,
                                  census_,
                                  {&engine_},
                                  namer_,
                                  functions_,
                                  *attachments_,
                                  *source_,
                                  *detection_,
                                  *policy_,
                                  *pipeline_,
                                  log_,
                                  Procfs(tree_.root())},
                    config_);
    return *daemon_;
  }
  bool step(uint64_t missed = 0) {
    clock_.advance_s(1);
    return daemon().tick(missed);
  }
  void steps(int ticks) {
    for (int i = 0; i < ticks; ++i) ASSERT_TRUE(step());
  }
  std::vector<std::string> log_lines() {
    std::vector<std::string> lines;
    std::istringstream in(log_text_.str());
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    return lines;
  }
  size_t logged(const std::string& text) {
    return static_cast<size_t>(
        std::ranges::count_if(log_lines(), [&](const std::string& line) { return line.find(text) != line.npos; }));
  }
  /// redis works for some ticks: 80 of 100 samples in f5, 20 in f6, or what is said.
  void work_for(int ticks, int64_t parse = 80, int64_t render = 20) {
    for (int i = 0; i < ticks; ++i) {
      const ProcessKey key = census_.key(10);
      work(key, 5, parse);
      work(key, 6, render);
      census_[10].on_cpu_ns += 1'000'000'000;
      ASSERT_TRUE(step());
    }
  }

  ProcTree tree_;
  std::ostringstream log_text_;
  spdlog::logger log_{"test", std::make_shared<spdlog::sinks::ostream_sink_mt>(log_text_)};
  FakeSink sink_{"sink"};
  std::optional<Detection> detection_;
  std::optional<AlertPolicy> policy_;
  std::optional<Pipeline> pipeline_;
  std::optional<Daemon> daemon_;
};

TEST_F(DaemonTest, ATickThatFailsIsLoggedOnceUntilItWorksAgain) {
  census_.fail_with(Error{ErrorKind::kFailed, "take a census", "the iterator is gone", "restart"});
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(step());
  EXPECT_THAT(log_lines(), ElementsAre("error take a census: the iterator is gone (restart)"));
  EXPECT_EQ(daemon().status().ticks, 0U) << "not completed";
  census_.fail_with(std::nullopt);
  steps(2);
  EXPECT_EQ(logged("working again"), 1U);
  census_.fail_with(Error{ErrorKind::kFailed, "take a census", "gone for good", ""});
  EXPECT_FALSE(step());
  EXPECT_EQ(logged("gone for good"), 1U);
  EXPECT_EQ(daemon().status().ticks, 2U);
}

TEST_F(DaemonTest, EveryWarningOnceAndNotWithoutEnd) {
  daemon().warn("one");
  daemon().warn("one");
  daemon().warn("two");
  EXPECT_THAT(daemon().status().warnings, ElementsAre("one", "two"));
  EXPECT_EQ(logged("one"), 1U);
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 1000; ++i) daemon().warn("warning " + std::to_string(i));
  }
  EXPECT_LE(daemon().status().warnings.size(), 32U);
  EXPECT_LE(log_lines().size(), 40U) << "the journal is not filled with them";
  EXPECT_EQ(logged("further warnings"), 1U);
}

TEST_F(DaemonTest, WarningsAreMadeHarmlessForTheLog) {
  daemon().warn("a name with\n<3>a line of its own \x1b[31m");
  ASSERT_EQ(log_lines().size(), 1U);
  EXPECT_THAT(log_text_.str(), Not(HasSubstr("\x1b")));
}

TEST_F(DaemonTest, WhatTheWorkerTellsIsAWarning) {
  namer_.tell({ErrorKind::kFailed, "name stacks", "the worker died", ""});
  steps(1);
  namer_.tell({ErrorKind::kFailed, "name stacks", "the worker died", ""});
  steps(1);
  EXPECT_EQ(logged("the worker died"), 1U);
  EXPECT_THAT(daemon().status().warnings, ElementsAre(HasSubstr("the worker died")));
}

TEST_F(DaemonTest, ASinkThatFailsIsAWarningAndAlertsGoOn) {
  sink_.fail_with(Error{ErrorKind::kFailed, "write to the journal", "no room", ""});
  std::vector<Alert> told;
  census_.start(10, "redis").threads = 4;
  daemon().set_on_alert([&](const Alert& alert) { told.push_back(alert); });
  work_for(120);
  work_for(60, 40, 60);
  ASSERT_FALSE(told.empty());
  EXPECT_EQ(logged("write to the journal: no room"), 1U);
  EXPECT_THAT(daemon().status().warnings, Contains(HasSubstr("no room")));
}

TEST_F(DaemonTest, TooManyToWatchIsInStatusAndOnceInTheLog) {
  config_.limits.attachments = 1;
  census_.start(10, "redis-a");
  census_.start(11, "redis-b");
  steps(20);
  EXPECT_EQ(logged("attachments"), 1U);
  EXPECT_THAT(daemon().status().warnings, ElementsAre(HasSubstr("attachments")));
  for (int i = 0; i < 10; ++i) {
    census_.end(11);
    steps(2);
    EXPECT_THAT(daemon().status().warnings, IsEmpty());
    census_.start(11, "redis-b");
    steps(2);
  }
  EXPECT_EQ(logged("attachments"), 1U) << "a host that hovers around a limit";
}

TEST_F(DaemonTest, StatusOfAnIdleDaemon) {
  const Status status = daemon().status();
  EXPECT_FALSE(status.version.empty());
  EXPECT_EQ(status.pid, getpid());
  EXPECT_EQ(status.ticks, 0U);
  EXPECT_EQ(status.uptime_s, 0);
  EXPECT_EQ(status.attachments, 0U);
  EXPECT_EQ(status.census_method, "fake");
  EXPECT_EQ(status.worker_resident_bytes, 0U);
  EXPECT_THAT(status.warnings, IsEmpty());
  EXPECT_THAT(daemon().attachments(), IsEmpty());
  EXPECT_THAT(daemon().alerts(std::nullopt, std::nullopt), IsEmpty());
  EXPECT_EQ(daemon().alert("none"), std::nullopt);
}

TEST_F(DaemonTest, StatusTellsWhatItDoesAndWhatWasLost) {
  config_.tick_s = 2;
  census_.start(10, "redis").threads = 4;
  census_.start(11, "nginx").threads = 2;
  namer_.set_worker(77);
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  tree_.write("77/statm", "100 50 0 0 0 0 0\n");
  tree_.write(std::to_string(getpid()) + "/statm", "100 70 0 0 0 0 0\n");
  steps(2);
  work(census_.key(10), 5, 3);
  engine_.lose(census_.key(10), LossReason::kMapFull, 4);
  ASSERT_TRUE(step(3));
  const Status status = daemon().status();
  EXPECT_EQ(status.tick_s, 2);
  EXPECT_EQ(status.ticks, 3U);
  EXPECT_EQ(status.missed_ticks, 3U);
  EXPECT_NEAR(status.uptime_s, 3, 1.01);
  EXPECT_EQ(status.processes, 2U);
  EXPECT_EQ(status.tasks, 6U);
  EXPECT_EQ(status.attachments, 1U);
  EXPECT_EQ(status.watch_rules, 1U);
  EXPECT_GE(status.functions, 2U);
  EXPECT_EQ(status.resident_bytes, 70 * page);
  EXPECT_EQ(status.worker_resident_bytes, 50 * page);
  EXPECT_EQ(status.bpf_map_bytes, 4096U);
  EXPECT_EQ(status.lost[LossReason::kMapFull], 4U);
  EXPECT_EQ(status.lost[LossReason::kMissedTick], 1U);
  const std::string summary = daemon().summary();
  EXPECT_THAT(summary, HasSubstr("1 of 2 processes"));
  EXPECT_THAT(summary, HasSubstr("0 alerts firing"));
}

TEST_F(DaemonTest, FromAChangeToAnAlertAndBack) {
  std::vector<Alert> told;
  census_.start(10, "redis").threads = 4;
  daemon().set_on_alert([&](const Alert& alert) { told.push_back(alert); });
  work_for(120);
  EXPECT_THAT(told, IsEmpty());
  work_for(60, 40, 60);
  ASSERT_EQ(told.size(), 1U);
  EXPECT_EQ(told[0].process.comm, "redis");
  EXPECT_THAT(told[0].frame, ::testing::AnyOf("f5", "f6"));
  EXPECT_EQ(sink_.alerts().size(), 1U);
  EXPECT_EQ(daemon().status().alerts_firing, 1U);
  EXPECT_THAT(daemon().summary(), HasSubstr("1 alerts firing"));
  ASSERT_TRUE(daemon().alert(told[0].id));
  EXPECT_EQ(daemon().alerts(std::nullopt, AlertState::kFiring).size(), 1U);
  EXPECT_THAT(daemon().alerts(std::nullopt, AlertState::kResolved), IsEmpty());
  EXPECT_THAT(daemon().alerts(clock_.realtime_ns() + 1, std::nullopt), IsEmpty());
  EXPECT_EQ(daemon().alerts(told[0].updated_ns, std::nullopt).size(), 1U);

  // The rule goes, the alert stands: somebody will want to see how it ends.
  Config config = config_;
  config.watch = {};
  daemon().reconfigure(config);
  work_for(5, 40, 60);
  EXPECT_EQ(daemon().status().attachments, 1U);
  const ProcessKey key = census_.key(10);
  census_.end(10);
  steps(1);
  ASSERT_EQ(told.size(), 2U);
  EXPECT_EQ(told[1].state, AlertState::kResolved);
  EXPECT_EQ(told[1].resolution, "the process exited");
  EXPECT_EQ(told[1].process.key, key);
  steps(2);
  EXPECT_EQ(engine_.attached(), 0U);
}

TEST_F(DaemonTest, AReloadForgetsNothing) {
  census_.start(10, "redis").threads = 4;
  work_for(120);
  Config config = config_;
  config.tick_s = 1;
  config.watch = {rule("redis*", false, 199)};
  config.warnings = {"line 3: this is probably not meant"};
  config.alerts.persistence_s = 1;
  daemon().reconfigure(config);
  EXPECT_EQ(logged("probably not meant"), 1U);
  daemon().reconfigure(config);
  EXPECT_EQ(logged("probably not meant"), 1U);
  work_for(60, 40, 60);
  EXPECT_EQ(sink_.alerts().size(), 1U) << "judged against what was learned before";
  EXPECT_EQ(engine_.options(census_.key(10)).frequency_hz, 199);
}

TEST_F(DaemonTest, StacksOfWhoIsNotThereAndOfWhoIsNotAttached) {
  census_.start(10, "redis");
  census_.start(11, "nginx");
  steps(2);
  const auto nobody = daemon().stacks(4711, ProbeKind::kOnCpu, 0, false);
  ASSERT_FALSE(nobody);
  EXPECT_EQ(nobody.error().kind, ErrorKind::kUsage);
  const auto unwatched = daemon().stacks(11, ProbeKind::kOnCpu, 0, false);
  ASSERT_FALSE(unwatched);
  EXPECT_EQ(unwatched.error().kind, ErrorKind::kFailed);
  work_for(3);
  const auto stacks = daemon().stacks(10, ProbeKind::kOnCpu, 0, false);
  ASSERT_TRUE(stacks);
  EXPECT_EQ(stacks->total, 300);
  ASSERT_EQ(daemon().attachments().size(), 1U);
  EXPECT_EQ(daemon().attachments()[0].samples, 300U);
  EXPECT_EQ(daemon().ranking(10, "")->size(), 2U);
  EXPECT_FALSE(daemon().ranking(10, "beauty"));
}

TEST(AlertPolicyOptionsOf, TheConfiguration) {
  Config config;
  config.alerts.persistence_s = 7;
  config.alerts.cooldown_s = 77;
  config.alerts.false_alarm_budget = "3 per 1d";
  config.detectors["composition"].values["adopt_after"] = 500;
  config.detectors["rate"].values["adopt_after"] = 400;
  const AlertPolicyOptions options = alert_policy_options(config);
  EXPECT_EQ(options.persistence_s, 7);
  EXPECT_EQ(options.cooldown_s, 77);
  EXPECT_EQ(options.false_alarm_budget, "3 per 1d");
  EXPECT_EQ(options.adopt_after_s, 400);
}

}  // namespace
}  // namespace stackwatch
