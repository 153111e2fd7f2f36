// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cli/count_options.h"
#include "core/clock.h"
#include "core/result.h"

namespace stackwatch {

/// `stackwatch record`: writes what the daemon's detectors would see of processes, of a command or of all into a
/// capture, tick by tick, until they have ended, the time is over or a signal comes. The exit code: as of run_count().
/// Where the file cannot be written any more it ends with an error; what was complete before is kept.
[[nodiscard]] Result<int> run_record(const TargetOptions& options, bool pipe_ignored, const Clock& clock);

}  // namespace stackwatch
