// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/clock.h"
#include "core/probe.h"

namespace stackwatch {

/// An engine without a kernel: a test says what its processes did.
class FakeProbeEngine final : public ProbeEngine {
 public:
  explicit FakeProbeEngine(const Clock& clock) : clock_(clock) {}

  // What the test says.
  void count(const ProcessKey& process, StackHash stack, int64_t value) {
    if (attached_.contains(process)) attached_[process].waiting.values.push_back({stack, value});
  }
  void tell(const ProcessKey& process, StackHash stack, RawStack frames) {
    if (attached_.contains(process)) attached_[process].waiting.new_stacks.push_back({stack, std::move(frames)});
  }
  void lose(const ProcessKey& process, LossReason reason, uint64_t count) {
    if (attached_.contains(process)) attached_[process].waiting.lost[reason] += count;
  }
  void adopt(const ProcessKey& process, const ProcessKey& parent) {
    attached_[process].options = attached_[parent].options;
    attached_[process].begun_ns = clock_.monotonic_ns();
    adopted_.push_back({process, parent});
  }
  void refuse_attach(Error error) { refusal_ = std::move(error); }
  void fail_collect(Error error) { collect_error_ = std::move(error); }
  [[nodiscard]] bool is_attached(const ProcessKey& process) const { return attached_.contains(process); }
  [[nodiscard]] ProbeOptions options(const ProcessKey& process) { return attached_[process].options; }

  // What the engine does.
  std::unique_ptr<Probe> make_probe() override { return std::make_unique<FakeProbe>(*this); }
  [[nodiscard]] int poll_fd() const override { return -1; }
  void drain() override {}
  Result<void> collect() override {
    if (collect_error_.kind != ErrorKind::kUsage) return Failure(collect_error_);
    for (auto& [key, state] : attached_) {
      state.collected = std::exchange(state.waiting, {});
      state.collected.time_ns = clock_.monotonic_ns();
    }
    return {};
  }
  std::vector<Adopted> take_adopted() override { return std::exchange(adopted_, {}); }
  void forget(const ProcessKey& process) override { attached_.erase(process); }
  [[nodiscard]] Cost cost() const override {
    return {.map_bytes = 4096, .runs = 0, .run_ns = 0, .recursion_misses = 0};
  }

 private:
  struct State {
    ProbeOptions options;
    StackDelta waiting;
    StackDelta collected;
    uint64_t begun_ns = 0;
  };

  class FakeProbe final : public Probe {
   public:
    explicit FakeProbe(FakeProbeEngine& engine) : engine_(engine) {}
    ~FakeProbe() override { FakeProbe::detach(); }
    [[nodiscard]] ProbeKind kind() const override { return ProbeKind::kOnCpu; }
    Result<void> attach(const ProcessKey& process, const ProbeOptions& options) override {
      if (attached_) return fail("attach a probe", "it is attached to a process already");
      if (engine_.refusal_.kind != ErrorKind::kUsage) return Failure(engine_.refusal_);
      State& state = engine_.attached_[process];
      state.options = options;
      state.begun_ns = engine_.clock_.monotonic_ns();
      process_ = process;
      attached_ = true;
      return {};
    }
    Result<StackDelta> read() override {
      if (!attached_) return fail("read a probe", "it is not attached");
      State& state = engine_.attached_[process_];
      StackDelta delta = std::exchange(state.collected, {});
      delta.process = process_;
      if (delta.time_ns == 0) delta.time_ns = state.begun_ns;
      delta.interval_ns = delta.time_ns - state.begun_ns;
      state.begun_ns = delta.time_ns;
      return delta;
    }
    void detach() override {
      if (attached_) engine_.attached_.erase(process_);
      attached_ = false;
    }

   private:
    FakeProbeEngine& engine_;
    ProcessKey process_;
    bool attached_ = false;
  };

  static Error no_error() { return {ErrorKind::kUsage, "", "", ""}; }

  const Clock& clock_;
  std::unordered_map<ProcessKey, State> attached_;
  std::vector<Adopted> adopted_;
  Error refusal_ = no_error();
  Error collect_error_ = no_error();
};

}  // namespace stackwatch
