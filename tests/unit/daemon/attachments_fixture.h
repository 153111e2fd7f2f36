// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "daemon/attachments.h"
#include "tests/fakes/fake_clock.h"
#include "tests/fakes/fake_namer.h"
#include "tests/fakes/fake_probe.h"

namespace stackwatch {

inline constexpr ProcessKey kRedis{4711, 10'000'000};
inline constexpr ProcessKey kNginx{99, 20'000'000};

/// Attachments over fake engines and a fake namer.
class AttachmentsTest : public testing::Test {
 protected:
  AttachmentsTest() { make({}); }
  void make(const AttachmentLimits& limits) {
    attachments_.emplace(Attachments::Engines{&engine_, &blocked_}, namer_, functions_, clock_, limits);
  }

  static ProcessIdentity identity(const ProcessKey& process) {
    return {process,        process.pid, "redis-server", "/usr/bin/redis-server", "/system.slice/redis.service",
            "redis.service"};
  }
  ProcessSample sample(const ProcessKey& process) {
    ProcessSample sample;
    sample.key = process;
    sample.pid_in_ns = process.pid;
    sample.exec = ExecId{7};
    sample.on_cpu_ns = on_cpu_ns_;
    return sample;
  }
  Result<void> attach(const ProcessKey& process, ProbeOptions options = {},
                      std::vector<ProbeKind> probes = {ProbeKind::kOnCpu}) {
    return attachments_->attach(identity(process), sample(process),
                                {process, std::move(probes), options, {AttachReason::Kind::kRule, "redis", "rule"}});
  }
  /// The process was seen in a stack of these functions; new ones are told as the kernel side does.
  void work(const ProcessKey& process, uint64_t leaf, int64_t samples = 1) {
    if (std::ranges::find(told_, std::pair(process, leaf)) == told_.end()) {
      engine_.tell(process, StackHash{leaf}, {.exec = ExecId{7}, .user_frames = {leaf, 1}, .kernel_frames = {}});
      told_.emplace_back(process, leaf);
    }
    engine_.count(process, StackHash{leaf}, samples);
  }
  Attachments::Ready tick(double seconds = 1) {
    clock_.advance_s(seconds);
    const auto collected = attachments_->collect(false);
    EXPECT_TRUE(collected);
    return attachments_->take();
  }
  std::vector<std::string> leaves(const NamedDelta& delta) {
    std::vector<std::string> names;
    for (const auto& value : delta.values) {
      names.push_back((*delta.functions)[(*delta.stacks)[value.stack].back()].name + "=" + std::to_string(value.value));
    }
    std::ranges::sort(names);
    return names;
  }

  FakeClock clock_;
  FunctionTable functions_;
  FakeNamer namer_{functions_};
  FakeProbeEngine engine_{clock_};
  FakeProbeEngine blocked_{clock_, ProbeKind::kBlocked};
  std::optional<Attachments> attachments_;
  std::vector<std::pair<ProcessKey, uint64_t>> told_;
  uint64_t on_cpu_ns_ = 0;
};

}  // namespace stackwatch
