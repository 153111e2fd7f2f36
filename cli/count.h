// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cli/count_options.h"
#include "core/clock.h"
#include "core/result.h"

namespace stackwatch {

/// `stackwatch count`: counts, prints reports, and ends with the last of the processes, at the end of its time or at a
/// signal. The exit code: that of the command (128 and the signal that ended it; 126 or 127 where it could not be
/// executed), else 0. `pipe_ignored`: SIGPIPE was ignored when we were started. To be called once, with one thread.
[[nodiscard]] Result<int> run_count(const CountOptions& options, bool pipe_ignored, const Clock& clock);

}  // namespace stackwatch
