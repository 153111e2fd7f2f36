// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cli/options.h"
#include "core/clock.h"
#include "core/result.h"

namespace stackwatch {

/// `stackwatch run`: starts the command when the daemon has attached it, passes signals on, and takes the rule back at
/// its end. The command's exit code, 128 and the signal that ended it, or 127 and 126 where it could not be executed.
/// Errors: the daemon does not answer or refuses the rule; not an instruction of the command has run then.
/// `pipe_ignored` tells how SIGPIPE was inherited.
[[nodiscard]] Result<int> run_watched(const Options& options, bool pipe_ignored, const Clock& clock);

}  // namespace stackwatch
