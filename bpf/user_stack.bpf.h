/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The user half of a stack, walked by ourselves. The kernel's own walk (bpf_get_stack) costs three times as much: it
 * reads each frame by itself, and follows any value, so that where a function without frame pointers uses the register
 * for something else (libc's start of main does) it runs into a page fault, which costs more than all the rest. */
#ifndef STACKWATCH_BPF_USER_STACK_BPF_H
#define STACKWATCH_BPF_USER_STACK_BPF_H

#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "bpf/abi.h"
#include "bpf/kernel_types.h"
#include "bpf/user_regs.bpf.h"

/* A piece of the stack as it was read. One read of this size costs as much as one of a frame. */
enum { kStackWords = 128, kFrameWords = 2 };

/* A walk under way. Kept in a map and not in registers: the verifier, which knows nothing of what maps hold, then finds
 * one turn like the other. */
struct user_walk {
  __u64 words[kStackWords];
  __u64 base; /* address of words[0] */
  __u64 size; /* bytes of `words` that were read */
  struct user_regs regs;
  __u32 count; /* frames so far */
  __u32 reserved;
};

/* Where a stack is read into. One per CPU: a program that can be preempted by another task of the same program (uprobes
 * on a preemptible kernel) must see to it that only one at a time uses it. */
struct scratch {
  struct stack_frames header;
  __u64 frames[2 * kMaxHalfStack];
  __u64 clock; /* events so far on this CPU */
  struct user_walk walk;
};

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct scratch);
} scratch_map SEC(".maps");

static __always_inline struct scratch* get_scratch(void) {
  __u32 zero = 0;
  return bpf_map_lookup_elem(&scratch_map, &zero);
}

/* Frames on one stack are at most this far from each other. */
#define MAX_FRAME_BYTES (1ULL << 20)

/* Two words of the stack, from the piece that was read where they are in it. 0 where they cannot be read: bpf's reads
 * of user memory never wait for a page. */
static __always_inline int read_frame(struct user_walk* walk, __u64 at, __u64* first, __u64* second) {
  if (at < walk->base || at - walk->base + kFrameWords * sizeof(__u64) > walk->size) {
    walk->base = at;
    walk->size = sizeof(walk->words);
    if (bpf_probe_read_user(walk->words, sizeof(walk->words), (void*)at)) {
      /* Near the end of the stack, or of what is in memory. */
      walk->size = kFrameWords * sizeof(__u64);
      if (bpf_probe_read_user(walk->words, kFrameWords * sizeof(__u64), (void*)at)) {
        walk->size = 0;
        return 0;
      }
    }
  }
  __u64 word = (at - walk->base) / sizeof(__u64);
  asm volatile("" : "+r"(word));
  if (word > kStackWords - kFrameWords) return 0; /* cannot be: tells the verifier */
  *first = walk->words[word];
  *second = walk->words[word + 1];
  return 1;
}

/* Notes the frame at `walk->regs` and goes on to its caller's. 0 where the stack ends or goes on to nowhere. A frame
 * must lie above the one before, and not far from it. A global function is verified once and not once for each of its
 * calls: one turn more than doubles what the verifier has to look at otherwise. */
__noinline int next_user_frame(void) {
  struct scratch* s = get_scratch();
  if (!s || !s->walk.regs.ip) return 0;
  struct user_walk* walk = &s->walk;
  s->frames[walk->count & kMaxHalfStack] = walk->regs.ip;
  walk->count++;
  __u64 at = walk->regs.fp;
  __u64 below = walk->regs.sp;
  if (at < below || at - below > MAX_FRAME_BYTES || (at & 7)) return 0;
  if (!read_frame(walk, at, &walk->regs.fp, &walk->regs.ip)) return 0;
  walk->regs.sp = at + kFrameWords * sizeof(__u64);
  return 1;
}

/* The user frames from `s->walk.regs` on, whose ip is the first. Returns their number, at most kMaxHalfStack. What is
 * known of them is in the map when the loop ends: the verifier would go on for each end of the loop apart otherwise. */
static __always_inline __u32 walk_user_stack(struct scratch* s) {
  struct user_walk* walk = &s->walk;
  walk->base = 0;
  walk->size = 0;
  walk->count = 0;
  for (__u32 i = 0; i < kMaxHalfStack; i++) {
    if (!next_user_frame()) break;
  }
  return walk->count;
}

#endif
