// SPDX-License-Identifier: Apache-2.0
#include "core/kernel_entry.h"

#include <algorithm>
#include <array>

namespace stackwatch {
namespace {

/// How the names begin.
constexpr std::array<std::string_view, 23> kEntries{"entry_",
                                                    "do_syscall_64",
                                                    "asm_int80_",
                                                    "int80_emulation",
                                                    "do_int80_",
                                                    "do_fast_syscall_32",
                                                    "__do_fast_syscall_32",
                                                    "x64_sys_call",
                                                    "ia32_sys_call",
                                                    "asm_exc_",
                                                    "exc_",
                                                    "asm_sysvec_",
                                                    "sysvec_",
                                                    "asm_common_interrupt",
                                                    "common_interrupt",
                                                    "ret_from_fork",
                                                    "el0t_",
                                                    "el0_",
                                                    "el1h_",
                                                    "el1_",
                                                    "do_el0_svc",
                                                    "invoke_syscall",
                                                    "do_mem_abort"};

}  // namespace

bool is_kernel_entry(std::string_view frame) {
  return is_in_kernel(frame) &&
         std::ranges::any_of(kEntries, [&](std::string_view entry) { return frame.starts_with(entry); });
}

}  // namespace stackwatch
