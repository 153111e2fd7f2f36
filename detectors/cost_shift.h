// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "core/finding.h"
#include "detectors/stack_counts.h"

namespace stackwatch {

struct ShiftOptions {
  double dispersion = 1;           ///< of the shares
  double min_change_share = 0.02;  ///< smallest change worth telling: absolute, …
  double min_relative_change = 0;  ///< … and as a part of the share before
};

/// Whether a change of shares only moved cost: nothing takes more than before, but it has another name or another
/// caller (the "cost shifts" of FBDetect, SOSP 2024).
///
/// A *reading* of the two sets of counts is tried: functions that vanished and functions that appeared under the same
/// caller with the same share are one function with two names; what vanished or appeared without such a partner is
/// taken for a part of its caller (inlined, or no longer). If under that reading no function's inclusive share and no
/// function's own share differs by what would be worth telling (or is beyond noise, 3 standard errors), it is a shift.
/// Else, where no function's own share has changed: what one function (or chain of them) lost another one gained,
/// because it calls a function that the first one called: moved.
///
/// Shares add up to 1, so "the caller is unchanged" alone proves nothing near the root. Something must have stayed
/// beside what changed: at least kReference of all samples. Where there is less, the CPU time tells: it must not have
/// changed by more than a quarter. And a loser must have lost at least twice what it would have lost by others' growth,
/// or a regression would look like a move from whoever had most.
/// Bounded: kMaxRenamed functions; where more vanish or appear the program does other work now.
/// Nothing where it is no shift, or where it cannot be told from a change.
[[nodiscard]] std::optional<CostShift> find_cost_shift(StackIndex& index, const StackCounts& before,
                                                       const StackCounts& after, const ShiftOptions& options);

/// For callers who bound what they keep.
inline constexpr size_t kMaxRenamed = 8;
inline constexpr double kReference = 0.1;

}  // namespace stackwatch
