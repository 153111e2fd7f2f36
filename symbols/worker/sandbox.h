// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "core/result.h"

namespace stackwatch {

/// Address space of the worker: the tables it may keep (server.h: 64 MB and 128 MB of debug information), what loading
/// the largest object takes beside them, and its libraries.
inline constexpr uint64_t kWorkerAddressSpaceBytes = 768ULL << 20;
/// One descriptor per object that the daemon may know at a time, with its debug file and dwz's, and a few of its own.
inline constexpr uint64_t kWorkerOpenFiles = 3 * 1024 + 64;
/// The only files it writes are in memory: a copy of the vDSO, and unpacked MiniDebugInfo (worker/debug_links.h).
inline constexpr uint64_t kWorkerFileBytes = (64ULL << 20) + (1 << 20);

/// Gives up everything that reading given files does not need, for good: capabilities, user and groups (nobody, where
/// it was root), new privileges, core dumps, being traced, memory and files without end. Also dies with the thread
/// that started it. Fails only where privileges would have been kept.
///
/// Last a system call filter: reading the files and the socket it has, memory that is not code, files in memory, the
/// clock. What libraries try and can do without (opening files, above all) is refused with EPERM; everything else, such
/// as a socket or a program, ends the process with SIGSYS. Not with sanitizers, which need much more.
Result<void> enter_sandbox();

/// The last step alone, for its test. Fails where the kernel has no seccomp filters.
Result<void> filter_system_calls();

}  // namespace stackwatch
