// SPDX-License-Identifier: Apache-2.0
#include "core/kernel_entry.h"

#include <gtest/gtest.h>

namespace stackwatch {
namespace {

TEST(KernelEntry, SystemCallsOfEachMachineComeInByTheirDoors) {
  for (const char* frame :
       {"entry_SYSCALL_64_after_hwframe_[k]", "do_syscall_64_[k]", "x64_sys_call_[k]", "entry_SYSENTER_compat_[k]",
        "entry_INT80_compat_[k]", "asm_int80_emulation_[k]", "do_int80_emulation_[k]", "__do_fast_syscall_32_[k]",
        "asm_fred_entrypoint_user_[k]", "fred_entry_from_user_[k]", "el0t_64_sync_[k]", "el0t_64_sync_handler_[k]",
        "el0t_32_sync_[k]", "el0_svc_[k]", "el0_sync_[k]", "do_el0_svc_[k]", "invoke_syscall_[k]"}) {
    EXPECT_TRUE(is_system_call_entry(frame)) << frame;
    EXPECT_TRUE(is_kernel_entry(frame)) << frame;
  }
}

TEST(KernelEntry, InterruptsAndFaultsAndThreadsHaveTheirs) {
  for (const char* frame : {"asm_exc_page_fault_[k]", "exc_page_fault_[k]", "asm_sysvec_apic_timer_interrupt_[k]",
                            "sysvec_apic_timer_interrupt_[k]", "asm_common_interrupt_[k]", "ret_from_fork_asm_[k]",
                            "asm_fred_entrypoint_kernel_[k]", "el0_da_[k]", "el0_sve_acc_[k]", "el1h_64_irq_[k]"}) {
    EXPECT_FALSE(is_system_call_entry(frame)) << frame;
    EXPECT_TRUE(is_kernel_entry(frame)) << frame;
  }
}

TEST(KernelEntry, WhatLiesBehindIsNone) {
  for (const char* frame : {"__x64_sys_read_[k]", "ksys_read_[k]", "vfs_read_[k]", "schedule_[k]", "el0_svc", "",
                            "do_syscall_64", "_[k]"}) {
    EXPECT_FALSE(is_system_call_entry(frame)) << frame;
    EXPECT_FALSE(is_kernel_entry(frame)) << frame;
  }
}

}  // namespace
}  // namespace stackwatch
