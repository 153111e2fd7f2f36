// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "core/process.h"

namespace stackwatch {

/// The processes of the last census. Pointers that it gives are valid until the next one.
class ProcessList {
 public:
  /// By ascending key, as a census gives them.
  void set(std::vector<ProcessSample> samples);

  [[nodiscard]] const std::vector<ProcessSample>& samples() const { return samples_; }
  [[nodiscard]] size_t size() const { return samples_.size(); }
  [[nodiscard]] uint64_t tasks() const { return tasks_; }
  /// nullptr where it is not among them: it has ended, or began since.
  [[nodiscard]] const ProcessSample* find(const ProcessKey& process) const;
  /// By its pid as the daemon's own pid namespace shows it. Looks at all of them.
  [[nodiscard]] const ProcessSample* find_pid_in_ns(int32_t pid_in_ns) const;
  [[nodiscard]] const ProcessSample* parent_of(const ProcessSample& sample);

 private:
  [[nodiscard]] const ProcessSample* find_pid(int32_t pid) const;

  std::vector<ProcessSample> samples_;
  std::pair<int32_t, const ProcessSample*> last_parent_{};
  uint64_t tasks_ = 0;
};

}  // namespace stackwatch
