// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <functional>
#include <iterator>
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
  explicit FakeProbeEngine(const Clock& clock, ProbeKind kind = ProbeKind::kOnCpu) : clock_(clock), kinds_{kind} {}

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
  void refuse_attach(Error error) {
    refuse_attach_if(std::move(error), [](const auto&, const auto&) { return true; });
  }
  void refuse_attach_if(Error error, std::function<bool(const ProcessKey&, const ProbeOptions&)> refuses) {
    refusal_ = std::move(error);
    refuses_ = std::move(refuses);
  }
  void fail_collect(Error error) { collect_error_ = std::move(error); }
  /// As if its program were being loaded, for as long.
  void hold_loading(bool hold) { loading_ = hold; }
  void stop_failing() { collect_error_ = no_error(); }
  [[nodiscard]] size_t refused() const { return refused_; }
  [[nodiscard]] size_t attached() const { return attached_.size(); }
  [[nodiscard]] bool is_attached(const ProcessKey& process) const { return attached_.contains(process); }
  [[nodiscard]] ProbeOptions options(const ProcessKey& process) { return attached_[process].options; }

  // What the engine does.
  [[nodiscard]] std::span<const ProbeKind> kinds() const override { return kinds_; }
  [[nodiscard]] bool load_beside() override { return !loading_; }
  std::unique_ptr<Probe> make_probe(ProbeKind kind) override { return std::make_unique<FakeProbe>(*this, kind); }
  [[nodiscard]] int poll_fd() const override { return -1; }
  void drain() override {}
  Result<void> collect() override {
    if (collect_error_.kind != ErrorKind::kUsage) return Failure(collect_error_);
    for (auto& [key, state] : attached_) {
      // Adds to what nobody read yet: an adopted process is counted before it has a probe.
      StackDelta fresh = std::exchange(state.waiting, {});
      StackDelta& all = state.collected;
      all.values.insert(all.values.end(), fresh.values.begin(), fresh.values.end());
      std::ranges::move(fresh.new_stacks, std::back_inserter(all.new_stacks));
      all.lost += fresh.lost;
      all.time_ns = clock_.monotonic_ns();
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
    FakeProbe(FakeProbeEngine& engine, ProbeKind kind) : engine_(engine), kind_(kind) {}
    ~FakeProbe() override { FakeProbe::detach(); }
    [[nodiscard]] ProbeKind kind() const override { return kind_; }
    Result<void> attach(const ProcessKey& process, const ProbeOptions& options) override {
      if (attached_) return fail("attach a probe", "it is attached to a process already");
      if (engine_.refuses_(process, options)) {
        ++engine_.refused_;
        return Failure(engine_.refusal_);
      }
      State& state = engine_.attached_[process];
      state.options = options;
      state.begun_ns = engine_.clock_.monotonic_ns();
      process_ = process;
      attached_ = true;
      return {};
    }
    Result<void> change(const ProbeOptions& options) override {
      if (!attached_) return fail("change a probe", "it is not attached");
      if (engine_.refuses_(process_, options)) {
        ++engine_.refused_;
        return Failure(engine_.refusal_);
      }
      engine_.attached_[process_].options = options;
      return {};
    }
    Result<StackDelta> read() override {
      if (!attached_) return fail("read a probe", "it is not attached");
      const auto found = engine_.attached_.find(process_);
      if (found == engine_.attached_.end()) return fail("read a probe", "its process is not attached");
      State& state = found->second;
      StackDelta delta = std::exchange(state.collected, {});
      delta.process = process_;
      delta.probe = kind_;
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
    ProbeKind kind_;
    ProcessKey process_;
    bool attached_ = false;
  };

  static Error no_error() { return {ErrorKind::kUsage, "", "", ""}; }

  const Clock& clock_;
  std::array<ProbeKind, 1> kinds_;
  std::unordered_map<ProcessKey, State> attached_;
  std::vector<Adopted> adopted_;
  Error refusal_ = no_error();
  std::function<bool(const ProcessKey&, const ProbeOptions&)> refuses_ = [](const auto&, const auto&) { return false; };
  size_t refused_ = 0;
  bool loading_ = false;
  Error collect_error_ = no_error();
};

}  // namespace stackwatch
