// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <initializer_list>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "daemon/alerting/alert_policy.h"
#include "tests/fakes/fake_clock.h"

namespace stackwatch {

/// A policy, a clock, and the functions of one imaginary program: main → serve → {lookup → compare, encode, compress}.
class PolicyTest : public testing::Test {
 protected:
  static constexpr ProcessKey kRedis{4711, 10'000'000};
  static constexpr ProcessKey kNginx{99, 20'000'000};

  PolicyTest() { make_policy({}); }

  void make_policy(const AlertPolicyOptions& options) {
    policy_.emplace(
        options, clock_, sequential_alert_ids(),
        AlertContext{[this](const ProcessKey& p) { return identify(p); },
                     [this](const ProcessKey&, ProbeKind) { return lost_; },
                     [this](const ProcessKey& p, ProbeKind probe, std::string_view detector) {
                       return remembers_ && p == kRedis && probe == ProbeKind::kOnCpu && detector == "composition";
                     },
                     [this](const ProcessKey& p, ProbeKind probe, std::string_view detector) {
                       return remembers_each_ && p == kRedis && probe == ProbeKind::kOnCpu && detector == "composition";
                     }});
  }

  ProcessIdentity identify(const ProcessKey& p) const {
    const auto it = identities_.find(p);
    if (it != identities_.end()) return it->second;
    return {p, p.pid, "redis-server", "/usr/bin/redis-server", "/system.slice/redis.service", "redis.service"};
  }

  FunctionId function(const std::string& name) { return functions_.intern("object", name); }
  StackId stack(std::initializer_list<const char*> names) {
    std::vector<FunctionId> frames;
    for (const char* name : names) frames.push_back(function(name));
    return stacks_.intern(frames);
  }

  [[nodiscard]] double now_s() const { return static_cast<double>(clock_.monotonic_ns()) * 1e-9; }

  /// The stack's leaf grew or shrank `age_s` ago.
  Finding composition(std::initializer_list<const char*> names, double before = 0.1, double after = 0.3,
                      double onset_s = -1) {
    Finding f;
    f.detector = "composition";
    f.frame = function(*(names.end() - 1));
    f.stack = stack(names);
    f.before = before;
    f.after = after;
    f.unit_of_measure = "share of samples";
    f.change_cores = after - before;
    f.onset_s = onset_s < 0 ? onset_s_ : onset_s;
    f.score = 20;
    f.threshold = 15;
    return f;
  }

  Finding rate(double before = 0.31, double after = 0.93, double onset_s = -1) {
    Finding f;
    f.detector = "rate";
    f.before = before;
    f.after = after;
    f.unit_of_measure = "cores";
    f.change_cores = after - before;
    f.onset_s = onset_s < 0 ? onset_s_ : onset_s;
    f.score = 30;
    return f;
  }

  Observation observation(const ProcessKey& process, std::vector<Finding> findings) {
    return {process, ProbeKind::kOnCpu, now_s(), std::move(findings), &stacks_, &functions_};
  }

  /// One second passes, then a tick with these observations.
  std::vector<Alert> tick(std::vector<Observation> observations, std::vector<ProcessKey> exits = {}) {
    for (Observation& o : observations) o.time_s += 1;
    clock_.advance_s(1);
    return policy_->tick(now_s(), observations, exits);
  }
  std::vector<Alert> tick_with(std::vector<Finding> findings) {
    return tick({observation(kRedis, std::move(findings))});
  }

  /// `seconds` ticks that all say the same; everything that changed in them.
  std::vector<Alert> run(int seconds, const std::vector<Finding>& findings) {
    std::vector<Alert> changed;
    for (int i = 0; i < seconds; ++i) {
      for (Alert& alert : tick_with(findings)) changed.push_back(std::move(alert));
    }
    return changed;
  }

  FakeClock clock_;
  FunctionTable functions_;
  StackTable stacks_;
  Losses lost_;
  bool remembers_ = false;  // `composition` of kRedis: what was before the daemon was restarted
  bool remembers_each_ = false;
  std::map<ProcessKey, ProcessIdentity> identities_;
  double onset_s_ = static_cast<double>(clock_.monotonic_ns()) * 1e-9 - 10;
  std::optional<AlertPolicy> policy_;
};

}  // namespace stackwatch
