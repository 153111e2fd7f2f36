/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The kernel half of a stack, known again without walking it. The kernel walks its own stacks by tables (ORC), at some
 * 130 ns per frame: two thirds of what a switch cost. Threads wait in few places, again and again.
 *
 * Which frames a walk finds follows from where it begins and from words of the stack alone: return addresses, saved
 * stack and frame pointers. So two stacks of one depth in which all words that could be one of these are the same, at
 * the same places, have the same frames. All such words are hashed to a print, at a twentieth of a walk's cost, and the
 * hash of the frames is remembered by it. A print that is not known means a walk, no more. */
#ifndef STACKWATCH_BPF_KERNEL_STACK_BPF_H
#define STACKWATCH_BPF_KERNEL_STACK_BPF_H

#include "bpf/stack_counting.bpf.h"

enum {
  /* Prints per CPU, each at the place that it chooses itself: what comes there later takes it. Threads of a CPU wait in
   * some dozens of places of the kernel. */
  kKernelPrints = 512,
  /* Words of the kernel stack above the hook. Waits are some 100 words deep, those of file systems 300; deeper ones are
   * walked. */
  kKernelStackWords = 384,
  /* Of these one call looks at so many. */
  kWordsAtATime = 32,
};

struct kernel_print {
  __u64 print;
  __u64 hash; /* of the frames */
};

struct kernel_memory {
  __u64 hook;  /* address that the hook's arguments have: on the kernel stack */
  __u64 stack; /* where that stack begins */
  __u64 size;  /* of what is read of it, in bytes */
  __u64 words[kKernelStackWords];
  __u64 at; /* index of the next word that is looked at */
  __u64 print;
  struct kernel_print known[kKernelPrints];
};

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct kernel_memory);
} kernel_memories SEC(".maps");

#if defined(__TARGET_ARCH_x86)

/* All code of the kernel, of modules and of BPF programs is above (Documentation/arch/x86/x86_64/mm.rst). */
#define KERNEL_CODE_BEGIN 0xffffffff80000000ULL

/* Where a tracer has put its own address in the place of return addresses, words do not tell the frames. */
static __always_inline int returns_are_traced(struct task_struct* task) {
  struct task_struct___traced* traced = (void*)task;
  if (bpf_core_field_exists(traced->ret_stack) && BPF_CORE_READ(traced, ret_stack)) return 1;
  if (bpf_core_field_exists(traced->rethooks) && BPF_CORE_READ(traced, rethooks.first)) return 1;
  return 0;
}

/* Adds some words to the print. A global function is verified once and not once for each of its calls. */
__noinline int print_words(void) {
  __u32 zero = 0;
  struct kernel_memory* m = bpf_map_lookup_elem(&kernel_memories, &zero);
  if (!m) return 0;
  __u64 hook = m->hook;
  __u64 size = m->size;
  __u64 print = m->print;
  __u64 at = m->at;
  asm volatile("" : "+r"(at));
  if (at > kKernelStackWords - kWordsAtATime) return 0;
  __u64* words = &m->words[at];
  __u64 left = size / sizeof(__u64) - at;
  for (__u32 i = 0; i < kWordsAtATime; i++) {
    if (i >= left) break;
    __u64 word = words[i];
    /* Pointers into the stack are told by where they lead to in it. */
    if (word < KERNEL_CODE_BEGIN && (word -= hook) > size) continue;
    print = (print ^ (word + i)) * 0xff51afd7ed558ccdULL;
    print ^= print >> 32;
  }
  m->print = print * 0x9e3779b97f4a7c15ULL;
  m->at = at + kWordsAtATime;
  return m->at * sizeof(__u64) < size;
}

/* 0 where there is none: the stack is to be walked. */
static __always_inline __u64 print_kernel_stack(void* ctx, struct task_struct* task, struct kernel_memory* m) {
  /* The verifier does not calculate with pointers; what is read from a map is a number. */
  *(volatile __u64*)&m->hook = (__u64)ctx;
  *(volatile __u64*)&m->stack = (__u64)task->stack;
  __u64 hook = *(volatile __u64*)&m->hook;
  /* The user's registers at its end are not looked at. */
  __u64 size = *(volatile __u64*)&m->stack + KERNEL_STACK_BYTES - kRegsWords * sizeof(__u64) - hook;
  asm volatile("" : "+r"(size));
  if (size > (kKernelStackWords - kWordsAtATime) * sizeof(__u64) || returns_are_traced(task)) return 0;
  if (bpf_probe_read_kernel(m->words, size, (void*)hook)) return 0;
  m->size = size;
  m->print = size;
  m->at = 0;
  for (int i = 0; i < kKernelStackWords / kWordsAtATime; i++) {
    if (!print_words()) break;
  }
  return m->print;
}

#else

/* Elsewhere kernels have frame pointers, and a walk costs little. */
static __always_inline __u64 print_kernel_stack(void* ctx, struct task_struct* task, struct kernel_memory* m) {
  return 0;
}

#endif

static __always_inline struct kernel_print* print_place(struct kernel_memory* m, __u64 print) {
  return &m->known[below(kKernelPrints, print)];
}

#endif
