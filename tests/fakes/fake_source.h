// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "core/kernel_entry.h"
#include "daemon/delta_source.h"

namespace stackwatch {

/// Deltas that a test makes up: processes that are sampled 100 times per second in functions whose numbers it says.
class FakeSource final : public DeltaSource {
 public:
  /// Samples per tick, by the function that main calls; a folded stack where that calls others: "load;ksys_read_[k]".
  using Counts = std::map<std::string, int64_t>;

  // What the test says: what each process does in every tick from now on.
  void does(const ProcessKey& process, Counts counts) { processes_[process].counts = std::move(counts); }
  void exits(const ProcessKey& process) { exits_.push_back(process); }
  void detaches(const ProcessKey& process) { detached_.push_back(process); }
  void replaces(const ProcessKey& process) { replaced_.push_back(process); }
  void runs(const ProcessKey& process, std::string exe) { exes_[process] = std::move(exe); }
  void end() { ended_ = true; }
  void fail_with(std::optional<Error> error) { error_ = std::move(error); }

  /// One second passes; the last delta of who exits is in it.
  TickBatch batch() {
    time_s_ += 1;
    TickBatch batch;
    batch.time_s = time_s_;
    for (auto& [key, process] : processes_) batch.deltas.push_back(delta(key, process));
    batch.exits = std::exchange(exits_, {});
    batch.detached = std::exchange(detached_, {});
    batch.replaced = std::exchange(replaced_, {});
    for (const auto& key : batch.exits) gone_.push_back(processes_.extract(key));
    for (const auto& key : batch.detached) gone_.push_back(processes_.extract(key));
    return batch;
  }

  Result<std::optional<TickBatch>> next() override {
    if (error_) return Failure(*error_);
    if (ended_) return std::optional<TickBatch>();
    return std::optional(batch());
  }
  [[nodiscard]] ProcessIdentity identify(const ProcessKey& process) const override {
    ProcessIdentity identity;
    identity.key = process;
    identity.pid_in_ns = process.pid;
    identity.comm = "program";
    if (const auto exe = exes_.find(process); exe != exes_.end()) identity.exe = exe->second;
    return identity;
  }
  [[nodiscard]] Losses losses(const ProcessKey& /*process*/, ProbeKind /*probe*/) const override { return {}; }

 private:
  struct Process {
    Counts counts;
    std::unique_ptr<StackTable> stacks = std::make_unique<StackTable>();
  };

  NamedDelta delta(const ProcessKey& key, Process& process) {
    NamedDelta delta;
    delta.process = key;
    delta.time_s = time_s_;
    delta.interval_s = 1;
    delta.frequency_hz = 100;
    delta.stacks = process.stacks.get();
    delta.functions = &functions_;
    int64_t total = 0;
    for (const auto& [folded, samples] : process.counts) {
      std::vector frames = {functions_.intern("program", "main")};
      std::istringstream names(folded);
      for (std::string name; std::getline(names, name, ';');) {
        frames.push_back(functions_.intern(is_in_kernel(name) ? "[kernel]" : "program", name));
      }
      delta.values.push_back({process.stacks->intern(frames), samples});
      total += samples;
    }
    delta.exposure_s = static_cast<double>(total) / delta.frequency_hz;
    return delta;
  }

  FunctionTable functions_;
  std::map<ProcessKey, Process> processes_;
  std::vector<std::map<ProcessKey, Process>::node_type> gone_;  // their tables outlive the batch
  std::map<ProcessKey, std::string> exes_;
  std::vector<ProcessKey> exits_;
  std::vector<ProcessKey> detached_;
  std::vector<ProcessKey> replaced_;
  std::optional<Error> error_;
  double time_s_ = 1000;
  bool ended_ = false;
};

}  // namespace stackwatch
