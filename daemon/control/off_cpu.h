// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "daemon/status.h"

namespace stackwatch {

/// `blocked` and `run_queue` of one process, asked for with the same parameters, as one report: values, series and
/// losses of equal stacks are summed; the rows are ordered anew, largest first.
[[nodiscard]] StacksReport off_cpu_report(StacksReport blocked, StacksReport run_queue);

}  // namespace stackwatch
