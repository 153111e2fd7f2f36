// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cli/options.h"
#include "core/result.h"

namespace stackwatch {

/// `stackwatch import perf-script`: the text of `perf script` as a capture. Says on standard error what it made of it,
/// and what it left out.
[[nodiscard]] Result<void> run_import(const Options& options);

}  // namespace stackwatch
