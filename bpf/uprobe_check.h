// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/clock.h"
#include "core/result.h"

namespace stackwatch {

/// How this kernel takes probes on user code.
struct UprobeCheck {
  bool multi = true;    ///< many places in one link (Linux 6.6); else a perf event for each, with CAP_SYS_ADMIN
  double entry_ns = 0;  ///< what a probe with an empty program costs a call
};

/// Tries it on functions of our own; takes some 100 ms. Error: kUnsupported where it takes none.
[[nodiscard]] Result<UprobeCheck> check_uprobes(const Clock& clock);

}  // namespace stackwatch
