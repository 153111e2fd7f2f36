// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cli/options.h"
#include "cli/table.h"
#include "core/result.h"

namespace stackwatch {

/// `stackwatch replay`: a capture through the detectors and the alert policy of a configuration, as fast as it can.
/// Prints each alert that began to fire or was resolved as a JSON line, or at the end all alerts as a table. Alerts of
/// what is before an error of the capture are printed before it is returned. The same bytes in, the same bytes out.
[[nodiscard]] Result<void> run_replay(const Options& options, const Style& style);

}  // namespace stackwatch
