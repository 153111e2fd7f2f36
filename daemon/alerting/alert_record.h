// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/alert.h"
#include "core/finding.h"
#include "core/stacks.h"

namespace stackwatch {

/// An alert and what the policy must know besides to follow its cause.
struct AlertRecord {
  /// An earlier alert of the same cause, resolved so short a time ago that this one must not be a new one.
  struct Predecessor {
    std::string id;
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
  double restored_s = 0;  ///< when this daemon learned of it from an earlier one; 0: it did not
  double seen_s = 0;      ///< last finding
  double observed_s = 0;  ///< last delta, with or without a finding
  double resolved_s = 0;
  double silent_since_s = 0;       ///< of a restored one: its detector remembers the past and sees no change since then
  int64_t realtime_offset_ns = 0;  ///< as of the first finding: the onset is near it, later jumps do not move it
  double largest_change = 0;       ///< largest |after - before| so far
  uint32_t growths = 0;            ///< of the finding
  uint32_t told_growths = 0;       ///< when it was told last, and then:
  double told_change = 0;          ///< |after - before|
  double told_s = 0;

  // One incident: workers of one service with one cause, and what other probes of them show of it. One record is told,
  // the others stand behind it.
  AlertRecord* leader = nullptr;  ///< whose alert tells this change too; outlives this record
  size_t followers = 0;           ///< records that have this one as their leader
  bool own_over = false;          ///< its own part is over, those of followers are not
  std::string_view ended_why;     ///< why the part that ended last did
  double first_onset_s = 0;       ///< of a leader: the range of its members' onsets
  double last_onset_s = 0;
  std::vector<ProcessKey> unlisted;  ///< members without a place in alert.processes

  /// Told as cost that moved; its state is resolved then, while its finding stands.
  bool told_shift = false;

  [[nodiscard]] bool grows() const { return alert.after >= alert.before; }
  /// The record whose alert tells this change.
  [[nodiscard]] AlertRecord& told() { return leader != nullptr ? *leader : *this; }
  [[nodiscard]] const AlertRecord& told() const { return leader != nullptr ? *leader : *this; }
  [[nodiscard]] bool is_pending() const { return alert.state == AlertState::kPending; }
  /// Shown as its resolved predecessor, until it fires, or as a part of another one's alert.
  [[nodiscard]] bool is_hidden() const { return leader != nullptr || (predecessor.has_value() && is_pending()); }
};

/// The record of an alert of an earlier run. Times as in AlertPolicy::restore().
[[nodiscard]] AlertRecord restored_record(const Alert& alert, double time_s, int64_t offset_ns);

/// What a record takes in memory, about.
[[nodiscard]] size_t bytes_of(const AlertRecord& record);

}  // namespace stackwatch
