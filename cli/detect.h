// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cli/options.h"
#include "core/result.h"

namespace stackwatch {

/// `stackwatch detect`: a series in CSV from `in_fd`, for each row a line `timestamp,score` to `out_fd`, written before
/// more is read. Error: a line that cannot be read (the answers to those before it are out), a column that is not
/// there.
[[nodiscard]] Result<void> run_detect(const Options& options, int in_fd, int out_fd);

}  // namespace stackwatch
