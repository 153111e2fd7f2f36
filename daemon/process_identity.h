// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/alert.h"
#include "core/process.h"
#include "daemon/procfs.h"

namespace stackwatch {

/// What a census tells of a process; without the path of its program, which has to be read.
[[nodiscard]] ProcessIdentity identity_in_census(const ProcessSample& sample);
/// With it, where it can be read.
[[nodiscard]] ProcessIdentity identity_of(const ProcessSample& sample, const Procfs& procfs);

}  // namespace stackwatch
