// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "core/stacks.h"

namespace stackwatch {

/// Whether a function has the name of one that is only on the way into the kernel: the entry of system calls and the
/// stub of each, but no function behind them, and what C libraries and Go call their system calls, locks and waits.
[[nodiscard]] bool is_way_into_kernel(std::string_view name);

/// Who went the way that frame `at` is on (root first): the nearest frame above it, or itself, that is none of these
/// - kernel functions,
/// - what lies in the C library, known by the root of the stack (__libc_start_main, start_thread) or by its file name,
///   or in the vDSO,
/// - locks and waits of a library that is linked statically, and the runtime of Go,
/// - calls by name (`write`) right above the kernel: a program's own function may be called `select`, but a C library's
///   makes the system call itself.
/// Nothing where that function has no name of its own.
[[nodiscard]] std::optional<FunctionId> who_went(std::span<const FunctionId> root_first, size_t at,
                                                 const FunctionTable& functions);

}  // namespace stackwatch
