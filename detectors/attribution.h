// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <vector>

#include "core/finding.h"
#include "detectors/stack_counts.h"

namespace stackwatch {

/// Which function is to blame for a change of shares.
struct Cause {
  std::optional<uint32_t>
      function;               ///< index in the StackIndex; none where no function's share changed, only a stack's
  bool calls_kernel = false;  ///< `function` is named in the place of a way into the kernel
  uint32_t stack = 0;         ///< the stack that changed most in the cause's direction among those that contain it
  double before = 0;          ///< shares: of the function, or of the stack where there is none
  double after = 0;
  std::vector<Contributor> contributors;

  [[nodiscard]] double change() const { return after - before; }
};

struct AttributionOptions {
  double explains = 0.8;  ///< part of the change that the named function must explain by itself
  double dispersion = 1;  ///< of the shares, for what is significant
  double min_change = 0;  ///< contributors are not smaller than this
  const FunctionTable* names =
      nullptr;  ///< of the index's functions; where given, who called the kernel is named in place of the way there
  std::optional<uint32_t> function =
      std::nullopt;  ///< the cause where it is settled already; the rest is brought up to date
};

/// Names the deepest function that explains the change.
///
/// 1. The largest significant change of an inclusive share is the change to explain. Growth is preferred to shrinkage
///    unless it is less than half as large: what grew is what someone did, what shrank mostly made room for it. Where
///    CPU time is known, shares that moved only because everything else did (their cores went the other way or not at
///    all) do not count.
/// 2. Among all functions that carry at least `explains` of this change, by themselves and together with the first one
///    on the same stacks, the one farthest from the root is named. Callers carry all of it but lie higher; helpers
///    that lie deeper carry too little. What every program calls to get into the kernel (pthread_mutex_lock, write,
///    do_syscall_64: kernel_way.h) says nothing about who does: where one function called it for as much of the change,
///    and changed by as much, that is named.
/// 3. The same, again and again, over what the cause does not explain gives the contributors.
/// What the share of [other] may hide is no change: where it grew, a function may have lost as much to it, where it
/// shrank, have gained as much from it. At least half of a change must be beyond that, and significant.
///
/// Nothing where no function and no stack changed significantly.
[[nodiscard]] std::optional<Cause> find_cause(StackIndex& index, const StackCounts& before, const StackCounts& after,
                                              const AttributionOptions& options);

}  // namespace stackwatch
