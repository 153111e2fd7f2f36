/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The user half of a stack, known again without walking it. Which frames a walk by tables finds follows from the
 * registers, the tables of the program and the words of the stack that it reads. A thread that waits where it has
 * waited before has the same registers and the same words: to compare them costs a third of the walk. */
#ifndef STACKWATCH_BPF_USER_MEMO_BPF_H
#define STACKWATCH_BPF_USER_MEMO_BPF_H

#include "bpf/stack_counting.bpf.h"

/* Walks remembered per CPU, each at the place that its registers choose: what comes there later takes it. Some 20 kB
 * per CPU. */
enum { kUserMemos = 64 };

/* Counted up at each collect: a walk is remembered until the next one. Where mappings have changed the same words may
 * be other frames by other tables, and only walks notice that (notice_other_code). To fill the places of a CPU again
 * takes some 0.1 ms. */
__u32 memo_epoch;

struct user_memo {
  struct process_id process;
  __u64 exec_id;
  struct user_regs regs;
  __u64 hash; /* of the frames */
  __u32 frames;
  __u32 epoch;
  __u64 reads;
  struct noted_word noted[kNotedWords];
};

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, kUserMemos);
  __type(key, __u32);
  __type(value, struct user_memo);
} user_memos SEC(".maps");

static __always_inline struct user_memo* memo_of(const struct user_regs* regs) {
  __u64 mixed = (regs->ip ^ (regs->sp >> 3)) * 0x9e3779b97f4a7c15ULL;
  __u32 place = mixed >> 58; /* below kUserMemos */
  return bpf_map_lookup_elem(&user_memos, &place);
}

/* Whether the stack still holds what the walk read that is remembered for the current registers. */
__noinline int has_same_words(void) {
  struct scratch* s = get_scratch();
  struct user_memo* memo = s ? memo_of(&s->walk.regs) : 0;
  if (!memo) return 0;
  s->walk.base = 0;
  s->walk.size = 0;
  for (__u32 i = 0; i < kNotedWords; i++) {
    __u64 value = 0;
    if (i >= memo->reads) break;
    if (!read_word(&s->walk, memo->noted[i].at, &value) || value != memo->noted[i].value) return 0;
  }
  return 1;
}

/* Walks from the current registers. */
__noinline int walk_again(void) {
  struct scratch* s = get_scratch();
  if (!s) return 0;
  __u32 tgid = s->header.key.process.tgid;
  struct watched_process* process = bpf_map_lookup_elem(&watched, &tgid);
  if (!process) return 0;
  s->walk.exact = 1;
  __u32 frames = walk_user_stack(s, process, s->header.exec_id);
  notice_other_code(&s->walk, process);
  return frames;
}

static __always_inline int is_of(const struct user_memo* memo, const struct scratch* s) {
  return memo->epoch == memo_epoch && memo->regs.ip == s->walk.regs.ip && memo->regs.sp == s->walk.regs.sp &&
         memo->regs.fp == s->walk.regs.fp && memo->exec_id == s->header.exec_id &&
         memo->process.tgid == s->header.key.process.tgid &&
         memo->process.start_ticks == s->header.key.process.start_ticks;
}

/* After a walk from `regs` that began in `epoch`. What was walked by guess may be walked better later. */
static __always_inline void remember_walk(struct user_memo* memo, const struct scratch* s, const struct user_regs* regs,
                                          __u32 epoch, __u64 hash) {
  const struct user_walk* walk = &s->walk;
  memo->frames = 0; /* none */
  if (walk->end != kWalkReachedStart || walk->guessed || walk->reads > kNotedWords) return;
  memo->process = s->header.key.process;
  memo->exec_id = s->header.exec_id;
  memo->epoch = epoch;
  memo->regs = *regs;
  memo->hash = hash;
  memo->reads = walk->reads;
  __builtin_memcpy(memo->noted, walk->noted, sizeof(memo->noted));
  memo->frames = walk->count;
}

#endif
