// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/census.h"

namespace stackwatch {

/// A machine whose processes a test makes up.
class FakeCensus final : public Census {
 public:
  /// A process that is alive from now on. The reference is valid until the next start() or end().
  ProcessSample& start(int32_t pid, std::string comm, int32_t parent_pid = 1, uint64_t start_time_ns = 0) {
    ProcessSample& sample = alive_.emplace_back();
    // Each start has its own time, so that a pid that comes round is another process.
    sample.key = {pid, start_time_ns != 0 ? start_time_ns : ++starts_ * kStartTimeGranularityNs};
    sample.pid_in_ns = pid;
    sample.parent_pid = parent_pid;
    sample.comm = std::move(comm);
    sample.cgroup = "/user.slice";
    sample.exec = ExecId{starts_ + 1};
    sample.threads = 1;
    sample.uid = 1000;
    return sample;
  }
  void end(int32_t pid) {
    std::erase_if(alive_, [pid](const ProcessSample& sample) { return sample.key.pid == pid; });
  }
  /// The living process of this pid.
  ProcessSample& operator[](int32_t pid) {
    return *std::ranges::find_if(alive_, [pid](const ProcessSample& sample) { return sample.key.pid == pid; });
  }
  [[nodiscard]] ProcessKey key(int32_t pid) { return (*this)[pid].key; }
  /// Another program in the same process.
  void execute(int32_t pid, std::string comm) {
    ProcessSample& sample = (*this)[pid];
    sample.exec = ExecId{sample.exec.value + 1'000'000};
    sample.comm = std::move(comm);
  }
  /// The next passes fail, until nothing is given.
  void fail_with(std::optional<Error> error) { error_ = std::move(error); }
  [[nodiscard]] int passes() const { return passes_; }

  Result<std::vector<ProcessSample>> take() override {
    ++passes_;
    if (error_) return Failure(*error_);
    std::vector<ProcessSample> samples = alive_;
    std::ranges::sort(samples, {}, &ProcessSample::key);
    return samples;
  }
  [[nodiscard]] std::string_view method() const override { return "fake"; }

 private:
  std::vector<ProcessSample> alive_;
  std::optional<Error> error_;
  uint64_t starts_ = 0;
  int passes_ = 0;
};

}  // namespace stackwatch
