// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cli/options.h"
#include "core/clock.h"
#include "core/result.h"

namespace stackwatch {

/// Does what the command line asks for; the output goes to standard output.
[[nodiscard]] Result<void> run_verb(const Options& options, const Clock& clock);

/// The whole program but for its name: reads the command line, runs the verb, says on standard error what went wrong.
/// The exit code.
[[nodiscard]] int run_stackwatch(int argc, const char* const* argv);

}  // namespace stackwatch
