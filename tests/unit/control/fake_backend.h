// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "daemon/status.h"

namespace stackwatch {

/// A daemon with two processes, of which one is attached, and the alerts that it is given.
class FakeBackend final : public ControlBackend {
 public:
  static constexpr int32_t kAttachedPid = 4711;
  static constexpr int32_t kOtherPid = 4712;

  [[nodiscard]] static ProcessIdentity process(int32_t pid, std::string comm) {
    return {{pid + 100000, 990'000'000},
            pid,
            std::move(comm),
            "/usr/bin/redis-server",
            "/system.slice/redis.service",
            "redis.service"};
  }

  [[nodiscard]] static Alert make_alert(std::string id, AlertState state, uint64_t opened_ns) {
    Alert alert;
    alert.id = std::move(id);
    alert.state = state;
    alert.opened_ns = alert.onset_ns = alert.updated_ns = opened_ns;
    if (state == AlertState::kResolved) {
      alert.resolved_ns = opened_ns + 60'000'000'000;
      alert.resolution = "back to its baseline";
    }
    alert.process = process(kAttachedPid, "redis-server");
    alert.detector = "composition";
    alert.frame = "dictFind";
    alert.stack = {"main", "aeMain", "dictFind"};
    alert.before = 0.011;
    alert.after = 0.043;
    alert.unit_of_measure = "share of samples";
    alert.change_cores = 0.03;
    alert.score = 21.4;
    alert.false_alarm_budget = "1 per 30d";
    alert.lost[LossReason::kUnwindFailed] = 3;
    alert.contributors = {{"aeMain", 0.5, 0.6}};
    return alert;
  }

  [[nodiscard]] Status status() const override {
    Status status;
    status.version = "0.1.0";
    status.pid = 77;
    status.uptime_s = 12.5;
    status.tick_s = 1;
    status.ticks = 12;
    status.census_method = "fake";
    status.processes = 200;
    status.attachments = 1;
    status.surveyed = 17;
    status.warnings = warnings;
    return status;
  }
  [[nodiscard]] Result<std::vector<RankingRow>> ranking(size_t limit, const std::string& by) const override {
    last_by = by;
    std::vector<RankingRow> rows;
    for (const int32_t pid : {kAttachedPid, kOtherPid}) {
      if (rows.size() == limit) break;
      RankingRow row;
      row.process = process(pid, comm);
      row.score = 7.5;
      row.suspect = pid == kAttachedPid;
      row.reason = "3.1x its usual CPU";
      row.on_cpu_cores = 0.93;
      row.rss_bytes = 12'345'678;
      row.threads = 4;
      rows.push_back(row);
    }
    return rows;
  }
  [[nodiscard]] std::vector<UnusualStack> unusual_stacks(size_t limit) const override {
    UnusualStack stack;
    stack.frames = {"main", "aeMain", "dictFind"};
    stack.score = 5.5;
    stack.before_cores = 0.1;
    stack.now_cores = 0.3;
    stack.processes = {{process(kAttachedPid, "redis-server"), 0.1, 0.3}};
    return std::vector(std::min<size_t>(limit, 1), stack);
  }
  [[nodiscard]] Result<std::string> add_watch(WatchRule rule, std::optional<uint64_t> start_time_ns) override {
    start_times_ns.push_back(start_time_ns);
    if (refuse_watches) return Failure(*refuse_watches);
    if (rule.pid == 1) return fail("add a watch rule", "no room");
    if (rule.frequency_hz > 1000) return fail(ErrorKind::kUsage, "watch rule, frequency", "too high");
    if (rule.id.empty()) rule.id = "added-1";
    watches_.push_back({rule, false, 1});
    return rule.id;
  }
  [[nodiscard]] Result<void> remove_watch(const std::string& id) override {
    if (std::erase_if(watches_, [&id](const WatchRow& row) { return row.rule.id == id; }) > 0) return {};
    return fail(ErrorKind::kUsage, "remove a watch rule", "there is no rule " + id);
  }
  [[nodiscard]] std::vector<WatchRow> watches() const override { return watches_; }
  [[nodiscard]] std::vector<AttachmentRow> attachments() const override {
    AttachmentRow row;
    row.process = process(kAttachedPid, comm);
    row.probes = {ProbeKind::kOnCpu};
    row.loading = {ProbeKind::kMemory};
    row.frequency_hz = 99;
    row.since_ns = 1'790'000'000'000'000'000;
    row.reason = "watch rule \"redis-server\"";
    row.samples = 1234;
    row.stacks = 56;
    row.problem = "attach off_cpu: the map is full";
    return {row};
  }
  [[nodiscard]] Result<StacksReport> stacks(int32_t pid, ProbeKind probe, double since_s, bool series) const override {
    if (pid != kAttachedPid && pid != kOtherPid) {
      return fail(ErrorKind::kUsage, "show the stacks of " + std::to_string(pid), "there is no such process");
    }
    if (pid != kAttachedPid) {
      return fail("show the stacks of " + std::to_string(pid), "it is not attached", "add a watch rule");
    }
    if (probe == missing_probe) return fail("show stacks", "it has no such probe");
    StacksReport report = stacks_report;
    report.process = process(kAttachedPid, comm);
    report.probe = probe;
    report.window_s = since_s > 0 ? since_s : 600;
    report.step_s = series ? 1 : 0;
    return report;
  }
  [[nodiscard]] std::vector<Alert> alerts(std::optional<uint64_t> since_ns,
                                          std::optional<AlertState> state) const override {
    std::vector<Alert> chosen;
    for (const Alert& alert : all_alerts) {
      if ((!since_ns || alert.updated_ns >= *since_ns) && (!state || alert.state == *state)) chosen.push_back(alert);
    }
    return chosen;
  }
  [[nodiscard]] std::optional<Alert> alert(const std::string& id) const override {
    const auto found = std::ranges::find(all_alerts, id, &Alert::id);
    if (found == all_alerts.end()) return std::nullopt;
    return *found;
  }

  std::string comm = "redis-server";
  std::vector<std::string> warnings;
  std::vector<Alert> all_alerts;  ///< newest first
  StacksReport stacks_report = {
      {},  ProbeKind::kOnCpu,
      0,   0,
      100, {{{"main", "work"}, 70, {30, 40}, {"", "work.c:7"}}, {{"main", "idle"}, 30, {20, 10}}},
      {},  {}};
  mutable std::string last_by;
  std::optional<ProbeKind> missing_probe;
  std::vector<std::optional<uint64_t>> start_times_ns;  ///< of the calls of add_watch()
  std::optional<Error> refuse_watches;
  std::vector<WatchRow> watches_;
};

}  // namespace stackwatch
