// SPDX-License-Identifier: Apache-2.0
#pragma once

// Inside of bpf/ only.

#include <bpf/libbpf.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "bpf/bpf_support.h"
#include "core/result.h"

namespace stackwatch {

/// One software clock event per online CPU, each running a BPF program. CPU-wide, since task-scoped events with
/// `inherit` double the cost of a switch-heavy target and stop with the task they were opened on.
class CpuClockEvents {
 public:
  /// Opens the events in place of those of an earlier call; these go on where the kernel refuses the new ones.
  /// `between` runs when the old ones have stopped and the new ones have not begun.
  [[nodiscard]] Result<void> open(bpf_program& program, uint32_t frequency_hz, const std::function<void()>& between);
  void close();
  [[nodiscard]] bool is_open() const { return !links_.empty(); }
  [[nodiscard]] uint32_t frequency_hz() const { return frequency_hz_; }
  /// Whether CPUs went online or offline since: an event does not survive its CPU.
  [[nodiscard]] bool cpus_changed() const;

 private:
  std::vector<BpfLink> links_;
  std::string online_;
  uint32_t frequency_hz_ = 0;
};

/// Numbers in a kernel CPU list such as "0-3,8"; empty where the text is none.
[[nodiscard]] std::vector<int> parse_cpu_list(const std::string& text);

}  // namespace stackwatch
