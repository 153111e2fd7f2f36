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

/* Words that a walk has read, as far as they are noted: two per frame, for eight frames. */
enum { kNotedWords = 16 };

struct noted_word {
  __u64 at;
  __u64 value;
};

/* A walk under way. Kept in a map and not in registers: the verifier, which knows nothing of what maps hold, then finds
 * one turn like the other. */
struct user_walk {
  __u64 words[kStackWords];
  __u64 base; /* address of words[0] */
  __u64 size; /* bytes of `words` that were read */
  struct user_regs regs;
  __u32 count;                   /* frames so far */
  __u32 end;                     /* enum walk_end */
  __u32 exact;                   /* ip is an instruction that was under way, not one that is returned to */
  __u32 slot;                    /* 1 + place in unwind_spaces; 0: frame pointers alone */
  __u32 top;                     /* step that the search for a mapping begins with */
  __u32 guessed;                 /* enum walk_guess */
  __u64 code_pages;              /* that the process had when its mappings were read; 0: not known */
  struct unwind_mapping mapping; /* the last frame's */
  __u64 reads;                   /* words read; above kNotedWords: not all of them are in `noted` */
  struct noted_word noted[kNotedWords];
};

/* A frame was passed by its frame pointer, since ... */
enum walk_guess {
  kGuessedPending = 1,  /* its table is not there yet */
  kGuessedUnmapped = 2, /* it is in no known mapping */
};

enum walk_end {
  kWalkGoesOn = 0,
  kWalkReachedStart,
  kWalkIncomplete,
  kWalkUnmapped, /* incomplete, since code was met in no known mapping */
};

/* Those of one process: see struct unwind_mapping. */
struct unwind_space {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_INNER_MAP);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct unwind_mapping);
};
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
  __uint(max_entries, kUnwindSpaces);
  __type(key, __u32);
  __array(values, struct unwind_space);
} unwind_spaces SEC(".maps");

/* One of each object file. */
struct unwind_table {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_INNER_MAP);
  __uint(max_entries, 1);
  __uint(key_size, sizeof(__u32));
  __uint(value_size, sizeof(struct unwind_block)); /* clang leaves the struct itself out of the type information */
};
struct {
  __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
  __uint(max_entries, kUnwindTables);
  __type(key, __u32);
  __array(values, struct unwind_table);
} unwind_tables SEC(".maps");

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

/* An index below a power of two. The compiler must not find out that it is anyway, and leave out what shows it to the
 * verifier of 5.10. */
static __always_inline __u64 below(__u64 bound, __u64 index) {
  asm volatile("" : "+r"(index));
  return index & (bound - 1);
}

/* A word of the stack, from the piece that was read where it is in it. 0 where it cannot be read: bpf's reads of user
 * memory never wait for a page. What a frame needs is read from the lowest address up, so that one piece has it. */
static __always_inline int read_word(struct user_walk* walk, __u64 at, __u64* value) {
  if (at & 7) return 0;
  if (at < walk->base || at - walk->base + sizeof(__u64) > walk->size) {
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
  if (word >= kStackWords) return 0; /* cannot be: tells the verifier */
  *value = walk->words[word];
  __u64 place = below(kNotedWords, walk->reads);
  walk->noted[place].at = at;
  walk->noted[place].value = walk->words[word];
  walk->reads++;
  return 1;
}

/* By the frame pointer. A frame must lie above the one before, and not far from it. */
static __always_inline int step_by_frame(struct user_walk* walk) {
  __u64 at = walk->regs.fp;
  __u64 below = walk->regs.sp;
  if (at < below || at - below > MAX_FRAME_BYTES) return 0;
  if (!read_word(walk, at, &walk->regs.fp) || !read_word(walk, at + sizeof(__u64), &walk->regs.ip)) return 0;
  walk->regs.sp = at + kFrameWords * sizeof(__u64);
  walk->exact = 0;
  return 1;
}

/* All ones where a <= b, else 0, without a branch: a branch in each turn of a search is two ways for the verifier, and
 * 2^8 of them for a block. Both are below 2^63. */
static __always_inline __u64 mask_if_not_above(__u64 a, __u64 b) {
  __s64 difference = (__s64)(a - b - 1) >> 63;
  asm volatile("" : "+r"(difference));
  return (__u64)difference;
}

/* The mapping that an address of code is in, into `walk->mapping`. */
static __always_inline int find_mapping(struct user_walk* walk, __u64 pc) {
  if (pc >= walk->mapping.start && pc < walk->mapping.end) return 1;
  __u32 slot = walk->slot - 1;
  void* space = bpf_map_lookup_elem(&unwind_spaces, &slot);
  if (!space) return 0;
  __u32 at = 0;
  __u32 step = walk->top;
  for (__u32 i = 0; i < 12; i++) {
    if (!step) break;
    __u32 next = at + step;
    struct unwind_mapping* mapping = bpf_map_lookup_elem(space, &next);
    if (mapping) at += step & (__u32)mask_if_not_above(mapping->start, pc);
    step >>= 1;
  }
  struct unwind_mapping* mapping = at ? bpf_map_lookup_elem(space, &at) : 0;
  if (!mapping || pc >= mapping->end) return 0;
  walk->mapping = *mapping;
  return 1;
}

/* The rule for an address of the current mapping. */
static __always_inline __u32 find_rule(struct user_walk* walk, __u64 pc) {
  __u32 number = walk->mapping.table;
  __u64 address = pc - walk->mapping.base;
  void* table = bpf_map_lookup_elem(&unwind_tables, &number);
  if (!table) return kRuleUnknown; /* it went while the mapping was still known */
  __u32 depth = walk->mapping.depth;
  __u32 block_number = 0;
  for (__u32 level = 1; level <= kUnwindDepth; level++) {
    struct unwind_block* block = bpf_map_lookup_elem(table, &block_number);
    if (!block) return kRuleUnknown;
    __u64 pivot = 0;
#pragma unroll
    for (__u32 step = kUnwindPivots / 2; step; step /= 2) {
      __u64 next = below(kUnwindPivots, pivot + step);
      pivot += step & mask_if_not_above(block->pivots[next], address);
    }
    __u64 at = pivot * (kUnwindFanOut / kUnwindPivots);
#pragma unroll
    for (__u32 step = kUnwindFanOut / kUnwindPivots / 2; step; step /= 2) {
      __u64 next = below(kUnwindFanOut, at + step);
      at += step & mask_if_not_above(block->entries[next].address, address);
    }
    at = below(kUnwindFanOut, at);
    if (block->entries[at].address > address) return kRuleNone;
    if (level == depth) return block->entries[at].value;
    block_number = block->entries[at].value;
  }
  return kRuleUnknown;
}

/* Where Linux keeps the registers of code that a signal interrupted: words of struct sigcontext. */
enum { kSignalFp = 10, kSignalSp = 15, kSignalIp = 16 };

static __always_inline int step_by_rule(struct user_walk* walk, __u32 rule) {
  __u32 kind = rule & 0xf;
  __u32 frame = (rule >> 4) & 3;
  __u64 frame_bytes = ((rule >> 6) & 0x3ff) * sizeof(__u64);
  __s64 words = (__s32)rule >> 16;
  __u64 offset = (__u64)(words * (__s64)sizeof(__u64));
  __u64 cfa = walk->regs.sp + offset;
  if (kind == kRuleSignal) {
    __u64 sp = 0;
    if (!read_word(walk, cfa + kSignalFp * sizeof(__u64), &walk->regs.fp)) return 0;
    if (!read_word(walk, cfa + kSignalSp * sizeof(__u64), &sp)) return 0;
    if (!read_word(walk, cfa + kSignalIp * sizeof(__u64), &walk->regs.ip)) return 0;
    walk->regs.sp = sp;
    walk->exact = 1;
    return 1;
  }
  if (kind == kRuleFrame || kind == kRuleFrameDeref) cfa = walk->regs.fp + offset;
  if (kind == kRulePlt) {
    cfa = walk->regs.sp + sizeof(__u64);
    if ((__s64)(walk->regs.ip & 15) >= words) cfa += sizeof(__u64);
  }
  if (kind == kRuleStackDeref || kind == kRuleFrameDeref || kind == kRuleStackDerefNext) {
    if (!read_word(walk, cfa, &cfa)) return 0;
    cfa += sizeof(__u64) * (kind == kRuleStackDerefNext);
  }
  if (cfa <= walk->regs.sp) return 0; /* a stack only goes up */
  __u64 fp = walk->regs.fp;
  if (frame == kFrameSaved && !read_word(walk, cfa - frame_bytes, &fp)) return 0;
  if (frame == kFrameAt && !read_word(walk, fp, &fp)) return 0;
  if (frame == kFrameLost) fp = 0;
  if (!read_word(walk, cfa - sizeof(__u64), &walk->regs.ip)) return 0;
  walk->regs.fp = fp;
  walk->regs.sp = cfa;
  walk->exact = 0;
  return 1;
}

/* Where the kernel lets functions with a return probe return to. 0 where it does not tell. */
static __always_inline __u64 trampoline(void) {
  struct task_struct* task = (void*)bpf_get_current_task();
  struct mm_struct___uprobes* mm = (void*)BPF_CORE_READ(task, mm);
  if (!bpf_core_field_exists(mm->uprobes_state.xol_area)) return 0;
  return BPF_CORE_READ(mm, uprobes_state.xol_area, vaddr);
}

/* Functions with a return probe that a thread is in at a time. */
enum { kMostReturnProbes = 16 };

/* A return probe has put its own address in the place of the return address that was just read: the kernel remembers
 * it, with the place. */
__noinline int restore_return(void) {
  struct scratch* s = get_scratch();
  if (!s) return 0;
  struct task_struct___utask* task = (void*)bpf_get_current_task();
  if (!bpf_core_field_exists(task->utask)) return 0;
  struct return_instance* instance = BPF_CORE_READ(task, utask, return_instances);
  __u64 place = s->walk.regs.sp - sizeof(__u64);
  for (int i = 0; i < kMostReturnProbes; i++) {
    if (!instance) break;
    if (BPF_CORE_READ(instance, stack) == place) {
      s->walk.regs.ip = BPF_CORE_READ(instance, orig_ret_vaddr);
      if (!BPF_CORE_READ(instance, chained)) return 1;
    }
    instance = BPF_CORE_READ(instance, next);
  }
  return 0;
}

/* Notes the frame at `walk->regs` and goes on to its caller's. Where it does not return 1 `walk->end` says why. A
 * global function is verified once and not once for each of its calls. */
__noinline int next_user_frame(void) {
  struct scratch* s = get_scratch();
  if (!s) return 0;
  struct user_walk* walk = &s->walk;
  walk->end = kWalkReachedStart;
  if (!walk->regs.ip) return 0;
  __u64 pc = walk->regs.ip - !walk->exact;
  int known = walk->slot && find_mapping(walk, pc);
  if (walk->slot && !known && walk->count && walk->regs.ip == trampoline() && restore_return()) {
    pc = walk->regs.ip - 1;
    known = find_mapping(walk, pc);
    walk->reads = kNotedWords + 1; /* it does not follow from words of the stack alone */
  }
  walk->end = walk->slot ? kWalkUnmapped : kWalkIncomplete;
  if (walk->slot && !known && walk->count) return 0; /* no code at all: no frame */
  s->frames[walk->count & kMaxHalfStack] = walk->regs.ip;
  walk->count++;
  if (!walk->slot) return step_by_frame(walk);
  /* What was just loaded, or a table that is being made: the frame pointer is what there is. It leads right wherever
   * there are frame pointers; the stack is counted as incomplete. */
  if (!known || walk->mapping.kind == kUnwindPending) {
    walk->guessed |= known ? kGuessedPending : kGuessedUnmapped;
    return step_by_frame(walk);
  }
  walk->end = kWalkIncomplete;
  __u32 rule = kRuleNone;
  if (walk->mapping.kind == kUnwindByTable) rule = find_rule(walk, pc);
  if ((rule & 0xf) == kRuleUnknown) return 0;
  if ((rule & 0xf) == kRuleEnd) {
    walk->end = kWalkReachedStart;
    return 0;
  }
  return (rule & 0xf) == kRuleNone ? step_by_frame(walk) : step_by_rule(walk, rule);
}

/* Which tables serve the process: its own, of the program that it runs now. */
static __always_inline void choose_space(struct user_walk* walk, struct watched_process* process, __u64 exec_id) {
  if (process->exec_id != exec_id) process->exec_id = exec_id;
  walk->slot = 0;
  walk->mapping.end = 0;
  if (!process->space) return;
  __u32 slot = process->space - 1;
  void* space = bpf_map_lookup_elem(&unwind_spaces, &slot);
  __u32 zero = 0;
  struct unwind_mapping* header = space ? bpf_map_lookup_elem(space, &zero) : 0;
  if (!header || header->end != process->space_generation) return;
  if (header->start && header->start != exec_id) return;
  walk->slot = process->space;
  walk->top = header->depth;
  walk->code_pages = header->base;
}

/* Code that came in the place of other code is unwound by the table of what was there before, and that need not lead
 * nowhere. It is seen by the amount of code, unless both are equally large. Stacks of the moment are as good as they
 * are; the mappings are read again. */
static __always_inline void notice_other_code(struct user_walk* walk, struct watched_process* process) {
  if (!walk->slot || !walk->code_pages) return;
  struct task_struct* task = (void*)bpf_get_current_task();
  if (BPF_CORE_READ(task, mm, exec_vm) != walk->code_pages) __sync_fetch_and_add(&process->unwind_misses, 1);
}

/* The user frames from `s->walk.regs` on. Returns their number, at most kMaxHalfStack. What is known of them is in the
 * map when the loop ends: the verifier would go on for each end of the loop apart otherwise. */
static __always_inline __u32 walk_user_stack(struct scratch* s, struct watched_process* process, __u64 exec_id) {
  struct user_walk* walk = &s->walk;
  walk->base = 0;
  walk->size = 0;
  walk->count = 0;
  walk->reads = 0;
  walk->guessed = 0;
  walk->end = kWalkGoesOn;
  choose_space(walk, process, exec_id);
  for (__u32 i = 0; i < kMaxHalfStack; i++) {
    if (!next_user_frame()) break;
  }
  if (process->space) {
    if (!walk->slot) walk->end = kWalkUnmapped;
    if (walk->guessed || walk->end == kWalkIncomplete || walk->end == kWalkUnmapped) {
      __sync_fetch_and_add(&process->unwind_incomplete, 1);
    }
    if (walk->end == kWalkUnmapped || (walk->guessed & kGuessedUnmapped))
      __sync_fetch_and_add(&process->unwind_misses, 1);
  }
  return walk->count;
}

#endif
