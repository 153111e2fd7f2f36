// SPDX-License-Identifier: Apache-2.0
#pragma once

// Inside of bpf/ only.

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "core/unique_fd.h"

namespace stackwatch {

/// What probes cost one process, as a share of the CPU time that it would take without them.
class MemoryRate {
 public:
  /// An overhead this large (in multiples of the limit) is acted on at once, any other after kWindowNs.
  static constexpr double kAtOnce = 4;
  static constexpr uint64_t kShortestNs = 900'000'000;
  static constexpr uint64_t kWindowNs = 5'000'000'000;
  /// Cost below this share of one CPU hurts nobody, whatever share of a nearly idle process it is.
  static constexpr double kNegligible = 0.001;

  struct Totals {
    uint64_t calls = 0;
    double cost_ns = 0;
  };

  explicit MemoryRate(std::string proc_root = "/proc") : proc_root_(std::move(proc_root)) {}

  /// `pid` as /proc shows it.
  void begin(pid_t pid, uint64_t now_ns);
  /// Whether the process is slowed down by more than `limit_percent`.
  [[nodiscard]] bool is_too_slow(const Totals& totals, uint64_t now_ns, double limit_percent);

  [[nodiscard]] double calls_per_s() const { return calls_per_s_; }
  [[nodiscard]] double ns_per_call() const { return ns_per_call_; }
  [[nodiscard]] double overhead_percent() const { return overhead_percent_; }

 private:
  [[nodiscard]] std::optional<uint64_t> cpu_ns() const;

  std::string proc_root_;
  UniqueFd stat_;
  uint64_t begun_ns_ = 0;
  uint64_t begun_cpu_ns_ = 0;
  Totals begun_;
  double calls_per_s_ = 0;
  double ns_per_call_ = 0;
  double overhead_percent_ = 0;
};

}  // namespace stackwatch
