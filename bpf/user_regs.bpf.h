/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where the current task left user space. The only place that knows the registers of an architecture. */
#ifndef STACKWATCH_BPF_USER_REGS_BPF_H
#define STACKWATCH_BPF_USER_REGS_BPF_H

#include <linux/bpf.h>
#include <linux/bpf_perf_event.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "bpf/kernel_types.h"

struct user_regs {
  __u64 ip;
  __u64 sp;
  __u64 fp;
};

/* Words of the struct pt_regs that the kernel saves, as far as they are needed. */
#if defined(__TARGET_ARCH_x86)
enum { kRegsFp = 4, kRegsIp = 16, kRegsCodeSegment = 17, kRegsSp = 19, kRegsWords = 21 };
/* The code segment of 32-bit programs. */
enum { kUser32Segment = 0x23 };
/* 16 kB kernel stacks, with the registers at their very end: until bpf_task_pt_regs (5.15) that is where they are. */
#define KERNEL_STACK_BYTES (16 * 1024)
#else
enum { kRegsFp = 29, kRegsSp = 31, kRegsIp = 32, kRegsWords = 33 };
#endif

/* Whether an event hit while the task was in user space: then the kernel half of its stack is empty, and asking for it
 * costs 2 us. */
static __always_inline int hit_user_mode(const struct bpf_perf_event_data* event) {
#if defined(__TARGET_ARCH_x86)
  return (event->regs.cs & 3) == 3;
#else
  return (event->regs.pstate & 0xf) == 0;
#endif
}

/* 0 where the task has no user registers that are understood (32-bit programs, kernels that do not tell). */
static __always_inline int read_user_regs(struct user_regs* regs) {
  __u64 words[kRegsWords];
  const void* saved = 0;
  if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs)) {
    saved = (const void*)bpf_task_pt_regs(bpf_get_current_task_btf());
#if defined(__TARGET_ARCH_x86)
  } else {
    struct task_struct* task = (void*)bpf_get_current_task();
    saved = BPF_CORE_READ(task, stack) + KERNEL_STACK_BYTES - sizeof(words);
#endif
  }
  if (bpf_probe_read_kernel(words, sizeof(words), saved)) return 0;
#if defined(__TARGET_ARCH_x86)
  if (words[kRegsCodeSegment] == kUser32Segment) return 0;
#endif
  regs->ip = words[kRegsIp];
  regs->sp = words[kRegsSp];
  regs->fp = words[kRegsFp];
  return 1;
}

#endif
