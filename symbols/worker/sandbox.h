// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/result.h"

namespace stackwatch {

/// Address space of the worker: the tables it may keep (server.h) plus what loading the largest object takes.
inline constexpr uint64_t kWorkerAddressSpaceBytes = 512ULL << 20;
/// One descriptor per object that the daemon may know at a time, and a few of its own.
inline constexpr uint64_t kWorkerOpenFiles = 1024 + 64;

/// Gives up everything that reading given files does not need, for good: capabilities, user and groups (nobody, where
/// it was root), new privileges, core dumps, being traced, memory and files without end. Also dies with the thread
/// that started it. Fails only where privileges would have been kept.
Result<void> enter_sandbox();

}  // namespace stackwatch
