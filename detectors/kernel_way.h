// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "core/stacks.h"

namespace stackwatch {

/// Whether a function has the name of one that is only on the way into the kernel: the entry of system calls, but no
/// function behind it, and what C libraries and Go call their system calls, locks and waits.
[[nodiscard]] bool is_way_into_kernel(std::string_view name);

/// Who went that way: the function nearest above frame `at` (root first, so at a smaller index) that is none of these,
/// or `at` itself. A program's own function may be called `select`: what is in the same file as who calls it is no way,
/// unless no program calls a function of its own like this. Nothing where that function has no name of its own.
[[nodiscard]] std::optional<FunctionId> who_went(std::span<const FunctionId> root_first, size_t at,
                                                 const FunctionTable& functions);

}  // namespace stackwatch
