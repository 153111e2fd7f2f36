// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace stackwatch {

/// The mark of kernel functions in stacks.
inline constexpr std::string_view kKernelSuffix = "_[k]";

[[nodiscard]] constexpr bool is_in_kernel(std::string_view frame) { return frame.ends_with(kKernelSuffix); }

/// Whether a kernel function is only the door that everything goes through: by which a program gets into the kernel on
/// x86 and arm64, on Linux 5.10 to 7.2. How many of them a stack has differs: el0t_64_sync, el0t_64_sync_handler,
/// el0_svc, do_el0_svc, invoke_syscall on arm64, two or three on x86.
[[nodiscard]] bool is_kernel_entry(std::string_view frame);

/// Of these, those that the program itself asks to come in: no interrupt, no fault where it has a door of its own.
[[nodiscard]] bool is_system_call_entry(std::string_view frame);

}  // namespace stackwatch
