// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "daemon/live_source.h"
#include "tests/fakes/fake_census.h"
#include "tests/fakes/fake_clock.h"
#include "tests/fakes/fake_namer.h"
#include "tests/fakes/fake_probe.h"

namespace stackwatch {

/// A made-up machine under a live source: a test says which processes there are and what they do.
class MachineTest : public testing::Test {
 protected:
  MachineTest() {
    config_.ranking.max_suspects = 0;
    config_.survey.enabled = false;
  }

  /// With `config_`; before the first tick.
  void make_source() {
    attachments_.emplace(Attachments::Engines{&engine_}, namer_, functions_, clock_, AttachmentLimits{});
    source_.emplace(LiveSource::Parts{census_, *attachments_, Procfs("/nonexistent"), Entitlement(4)}, clock_, config_);
  }

  static WatchRule rule(const std::string& name, bool children = false, double frequency_hz = 99) {
    WatchRule rule;
    rule.id = "rule-" + name;
    rule.name = name;
    rule.children = children;
    rule.frequency_hz = frequency_hz;
    return rule;
  }

  /// One second passes and what happened in it is in the batch.
  TickBatch tick() {
    if (!source_) make_source();
    clock_.advance_s(1);
    auto batch = source_->next();
    if (!batch || !*batch) {
      ADD_FAILURE() << (batch ? "the source ended" : batch.error().message());
      return {};
    }
    return std::move(**batch);
  }
  TickBatch run(int ticks) {
    for (int i = 1; i < ticks; ++i) tick();
    return tick();
  }

  /// A process was seen in a stack that ends in this leaf, and used CPU time.
  void work(const ProcessKey& process, uint64_t leaf, int64_t samples = 1) {
    if (!engine_.is_attached(process)) return;
    // The kernel side tells a stack once per attachment; telling it more often is allowed.
    engine_.tell(process, StackHash{leaf}, {.exec = {}, .user_frames = {leaf, 1}, .kernel_frames = {}});
    engine_.count(process, StackHash{leaf}, samples);
  }

  [[nodiscard]] bool is_attached(int32_t pid) { return attachments_->contains(census_.key(pid)); }
  [[nodiscard]] AttachReason reason(int32_t pid) {
    const AttachReason* reason = attachments_->reason(census_.key(pid));
    return reason == nullptr ? AttachReason{AttachReason::Kind::kSuspect, "none", "none"} : *reason;
  }
  static std::vector<std::string> leaves(const NamedDelta& delta) {
    std::vector<std::string> names;
    for (const auto& value : delta.values) {
      names.push_back((*delta.functions)[(*delta.stacks)[value.stack].back()].name + "=" + std::to_string(value.value));
    }
    std::ranges::sort(names);
    return names;
  }
  static const NamedDelta* delta_of(const TickBatch& batch, const ProcessKey& process) {
    const auto found = std::ranges::find(batch.deltas, process, &NamedDelta::process);
    return found == batch.deltas.end() ? nullptr : &*found;
  }

  FakeClock clock_;
  FunctionTable functions_;
  FakeNamer namer_{functions_};
  FakeProbeEngine engine_{clock_};
  FakeCensus census_;
  Config config_;
  std::optional<Attachments> attachments_;
  std::optional<LiveSource> source_;
};

}  // namespace stackwatch
