// SPDX-License-Identifier: Apache-2.0
#include "core/kernel_entry.h"

#include <algorithm>
#include <array>
#include <span>

namespace stackwatch {
namespace {

// How the names begin. On arm64, and on x86 with FRED, system calls and faults come in at the same door.
constexpr auto kSystemCalls = std::to_array<std::string_view>({"entry_SYS",
                                                               "entry_INT80",
                                                               "asm_int80_",
                                                               "int80_emulation",
                                                               "do_int80_",
                                                               "do_syscall_64",
                                                               "do_fast_syscall_32",
                                                               "__do_fast_syscall_32",
                                                               "x64_sys_call",
                                                               "ia32_sys_call",
                                                               "asm_fred_entrypoint_user",
                                                               "asm_fred_exit_user",
                                                               "fred_entry_from_user",
                                                               "fred_other",
                                                               "el0t_64_sync",
                                                               "el0t_32_sync",
                                                               "el0_svc",
                                                               "el0_sync",
                                                               "do_el0_svc",
                                                               "invoke_syscall"});
constexpr auto kOthers = std::to_array<std::string_view>(
    {"entry_", "asm_exc_", "exc_", "asm_sysvec_", "sysvec_", "asm_common_interrupt", "common_interrupt", "asm_fred_",
     "fred_", "ret_from_fork", "el0t_", "el0_", "el1h_", "el1_", "do_mem_abort"});

bool begins_with_one_of(std::string_view frame, std::span<const std::string_view> beginnings) {
  return std::ranges::any_of(beginnings, [&](std::string_view beginning) { return frame.starts_with(beginning); });
}

}  // namespace

bool is_system_call_entry(std::string_view frame) {
  return is_in_kernel(frame) && begins_with_one_of(frame, kSystemCalls);
}

bool is_kernel_entry(std::string_view frame) {
  return is_system_call_entry(frame) || (is_in_kernel(frame) && begins_with_one_of(frame, kOthers));
}

}  // namespace stackwatch
