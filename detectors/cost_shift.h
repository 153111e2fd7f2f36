// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/finding.h"
#include "detectors/stack_counts.h"

namespace stackwatch {

struct ShiftOptions {
  double dispersion = 1;           ///< of the shares
  double min_change_share = 0.02;  ///< smallest change worth telling: absolute, …
  double min_relative_change = 0;  ///< … as a part of the share before, …
  double min_change_cores = 0;     ///< … and in CPU time, where that is known
};

/// What a predecessor of the process did and the process has not done yet, so that its index has no stacks of it: after
/// a restart what vanished is nowhere else.
struct PastStacks {
  struct Stack {
    std::vector<uint32_t> frames;  ///< root first: numbers in the index, from index.functions() on those in `names`
    double count = 0;              ///< belongs to what was before
  };
  std::vector<Stack> stacks;
  std::vector<uint64_t> names;               ///< of functions that only the predecessor had (name_of())
  const FunctionTable* functions = nullptr;  ///< where a function of such a name is looked for; may be null
};

/// Whether a change of shares only moved cost: nothing takes more than before, but it has another name or another
/// caller (the "cost shifts" of FBDetect, SOSP 2024).
///
/// A *reading* of the two sets of counts is tried: functions that vanished and functions that appeared under the same
/// caller with the same share are one function with two names; what vanished or appeared without such a partner is
/// taken for a part of its caller (inlined, or no longer). If under that reading no function's inclusive share and no
/// function's own share differs by what would be worth telling (or is beyond noise, 3.5 standard errors), it is a
/// shift. What took part is held to more: it differs by at most half of its size, or by no more than its own noise. In
/// the latter case the shift is not `certain`, and with more samples it may turn out to be a change. Else, where no
/// function's own share has changed: a function is called by another one than before, and whatever else changed lies
/// above it: moved.
///
/// Shares add up to 1, so "the caller is unchanged" alone proves nothing near the root. Something must have stayed
/// beside what changed: at least kReference of all samples. Where there is less, the CPU time tells: it must not have
/// changed by more than a quarter. What appeared without a partner must have left as much to its caller and its callees
/// by themselves as they had: had they grown by half of what everything else made room, it would be new cost. (Likewise
/// what vanished.) And where only a part of the calls moved, who lost them must have lost at least
/// twice what it would have lost by others' growth, or a regression would look like a move from whoever had most. A
/// function that only a predecessor had has an id where another process, or itself, was seen with it: else the shift
/// has none in its place.
/// Bounded: kMaxRenamed functions; where more vanish or appear the program does other work now.
/// Nothing where it is no shift, or where it cannot be told from a change.
[[nodiscard]] std::optional<CostShift> find_cost_shift(StackIndex& index, const StackCounts& before,
                                                       const StackCounts& after, const ShiftOptions& options,
                                                       const PastStacks& past = {});

/// For callers who bound what they keep.
inline constexpr size_t kMaxRenamed = 8;
inline constexpr double kReference = 0.1;

}  // namespace stackwatch
