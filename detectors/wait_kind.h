// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "core/stacks.h"

namespace stackwatch {

/// Why a thread waits, judged by the functions on its stack.
enum class WaitKind : uint8_t {
  kIdle,     ///< for work to come: epoll, poll, select, sleep, accept, a condition variable, a child
  kWork,     ///< in the middle of work: a disk, a lock, memory
  kUnknown,  ///< the names do not tell: a futex without user frames, a socket, a pipe
};

/// By the leaf-most function that tells. Kernel functions are named as in captures, ending in _[k]; both those of the
/// kernel and of the C and C++ libraries are known, so that one of them is enough. Compiler suffixes (.isra.0) do not
/// matter.
[[nodiscard]] WaitKind wait_kind(std::span<const FunctionId> root_first, const FunctionTable& functions);

/// Whether a function only does the waiting, and so explains nothing: the kernel's own, and the C library's locks.
[[nodiscard]] bool is_wait_primitive(std::string_view name);

}  // namespace stackwatch
