// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/alert.h"
#include "core/finding.h"
#include "core/stacks.h"

namespace stackwatch {

/// An alert and what the policy must know besides to follow its cause.
struct AlertRecord {
  /// An earlier alert of the same cause, resolved so short a time ago that this one must not be a new one.
  struct Predecessor {
    uint64_t opened_ns = 0;
    double cool_until_s = 0;
    double largest_change = 0;
    std::string unit_of_measure;
  };

  Alert alert;
  uint64_t sequence = 0;  ///< order in which alerts began
  std::optional<Predecessor> predecessor;

  /// From an earlier run: its functions have no ids here until a finding about the same names comes.
  bool restored = false;
  std::optional<FunctionId> frame;
  std::vector<FunctionId> stack;       ///< of the finding, whole, root first
  std::vector<FunctionId> companions;  ///< the finding's contributors

  // Times on the findings' time line.
  double first_s = 0;  ///< first finding
  double onset_s = 0;
  /// What an earlier run told: who remembers the past sees the change again from the restart on, which is no onset.
  std::optional<double> told_onset_s;
  double seen_s = 0;      ///< last finding
  double observed_s = 0;  ///< last delta, with or without a finding
  double resolved_s = 0;
  double silent_since_s = 0;       ///< of a restored one: its detector remembers the past and sees no change since then
  int64_t realtime_offset_ns = 0;  ///< as of the first finding: the onset is near it, later jumps do not move it
  double largest_change = 0;       ///< largest |after - before| so far

  [[nodiscard]] bool grows() const { return alert.after >= alert.before; }
  [[nodiscard]] bool is_pending() const { return alert.state == AlertState::kPending; }
  /// Shown as its resolved predecessor, until it fires.
  [[nodiscard]] bool is_hidden() const { return predecessor.has_value() && is_pending(); }
};

/// What a record takes in memory, about.
[[nodiscard]] size_t bytes_of(const AlertRecord& record);

}  // namespace stackwatch
