// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "core/result.h"
#include "daemon/procfs.h"

namespace stackwatch {

/// Whether the pids (as `procfs` shows them) are processes that can be counted. Errors, of kind kFailed: there is no
/// such process; it is a thread of one; it has ended and is a zombie; it belongs to the kernel.
[[nodiscard]] Result<void> check_pids(const Procfs& procfs, std::span<const int32_t> pids);

}  // namespace stackwatch
