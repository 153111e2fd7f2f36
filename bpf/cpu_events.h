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

/// A software event of the kernel and how often it is told.
struct CpuEvent {
  uint64_t config = 0;        ///< PERF_COUNT_SW_*
  uint32_t frequency_hz = 0;  ///< a clock: so often a second; 0 where `period` counts
  uint32_t period = 0;        ///< every so many occurrences
  bool operator==(const CpuEvent&) const = default;
};

/// One software event per online CPU, each running a BPF program. CPU-wide, since task-scoped events with `inherit`
/// double the cost of a switch-heavy target and stop with the task they were opened on.
class CpuEvents {
 public:
  /// Opens the events in place of those of an earlier call; these go on where the kernel refuses the new ones.
  /// `between` runs when the old ones have stopped and the new ones have not begun.
  [[nodiscard]] Result<void> open(bpf_program& program, const CpuEvent& event, const std::function<void()>& between);
  void close();
  [[nodiscard]] bool is_open() const { return !links_.empty(); }
  /// What is open; meaningless where nothing is.
  [[nodiscard]] const CpuEvent& event() const { return event_; }
  /// Whether CPUs went online or offline since: an event does not survive its CPU.
  [[nodiscard]] bool cpus_changed() const;

 private:
  std::vector<BpfLink> links_;
  std::string online_;
  CpuEvent event_;
};

/// Numbers in a kernel CPU list such as "0-3,8"; empty where the text is none.
[[nodiscard]] std::vector<int> parse_cpu_list(const std::string& text);

}  // namespace stackwatch
