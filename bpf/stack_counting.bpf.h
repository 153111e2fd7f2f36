/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The kernel side of every stack counter. Kept in the kernel: values per (process, hash of all frames). The frames of a
 * stack go to user space once, through a ring buffer, and count as told only when delivered. Each program that includes
 * this has its own maps. */
#ifndef STACKWATCH_BPF_STACK_COUNTING_BPF_H
#define STACKWATCH_BPF_STACK_COUNTING_BPF_H

#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "bpf/abi.h"
#include "bpf/kernel_types.h"
#include "bpf/user_stack.bpf.h"

/* As far as kernel.perf_event_max_stack lets stacks be read. */
volatile __u32 max_half_stack = kMaxHalfStack;

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 4096);
  __type(key, __u32);
  __type(value, struct watched_process);
} watched SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 65536);
  __type(key, struct stack_key);
  __type(value, struct stack_count);
} counts SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_RINGBUF);
  __uint(max_entries, 1 << 20);
} new_stacks SEC(".maps");

/* What of a task names its process and its program. Where the verifier knows a task's type it is read directly, at a
 * tenth of a helper's cost; elsewhere by helpers. */
struct task_facts {
  __u64 leader_start_ns; /* boot time */
  __u64 exec_id;
  __u32 tgid;
  __u32 kernel_thread;
};

#define TYPED_TASK_FACTS(task)                                                                                      \
  {                                                                                                                 \
    .leader_start_ns = (task)->group_leader->start_boottime, .exec_id = (task)->self_exec_id, .tgid = (task)->tgid, \
    .kernel_thread = (task)->flags & kKernelThread,                                                                 \
  }

#define UNTYPED_TASK_FACTS(task)                                                         \
  {                                                                                      \
    .leader_start_ns = BPF_CORE_READ((task), group_leader, start_boottime),              \
    .exec_id = BPF_CORE_READ((task), self_exec_id), .tgid = BPF_CORE_READ((task), tgid), \
    .kernel_thread = BPF_CORE_READ((task), flags) & kKernelThread,                       \
  }

static __always_inline __u32 start_ticks(__u64 start_ns) { return (__u32)(start_ns / kStartTickNs); }

/* The entry of a process where it is attached. */
static __always_inline struct watched_process* find_watched(const struct task_facts* facts) {
  __u32 tgid = facts->tgid;
  struct watched_process* process = bpf_map_lookup_elem(&watched, &tgid);
  if (!process || process->start_ticks != start_ticks(facts->leader_start_ns)) return 0;
  return process;
}

static __always_inline __u64 hash_frames(const __u64* frames, __u32 count, __u64 seed) {
  __u64 hash = seed * 0x9e3779b97f4a7c15ULL + count;
  for (__u32 i = 0; i < kMaxHalfStack; i++) {
    if (i >= count) break;
    hash = (hash ^ frames[i]) * 0xff51afd7ed558ccdULL;
    hash ^= hash >> 32;
  }
  return hash;
}

/* The halves are hashed apart: one may be known without its frames. */
static __always_inline __u64 join_hashes(__u64 user, __u64 kernel) {
  __u64 hash = (user ^ (kernel * 0x9e3779b97f4a7c15ULL)) * 0xff51afd7ed558ccdULL;
  hash ^= hash >> 32;
  return hash <= kLastReservedHash ? ~hash : hash;
}

static __always_inline __u32 frames_of(long bytes) { return bytes > 0 ? (__u32)bytes / sizeof(__u64) : 0; }

/* The user frames of the current task. The kernel walks those of 32-bit programs. */
static __always_inline __u32 read_user_half(void* ctx, struct scratch* s, struct watched_process* process,
                                            const struct task_facts* facts) {
  if (read_user_regs(&s->walk.regs)) {
    s->walk.exact = 1;
    __u32 frames = walk_user_stack(s, process, facts->exec_id);
    notice_other_code(&s->walk, process);
    return frames;
  }
  return frames_of(bpf_get_stack(ctx, s->frames, kMaxHalfStack * sizeof(__u64), BPF_F_USER_STACK));
}

/* The hashes of the frames that there are. Global functions are verified once and not once for each of their calls. */
__noinline __u64 hash_user_half(void) {
  struct scratch* s = get_scratch();
  return s ? hash_frames(s->frames, s->header.user, s->header.exec_id) : 0;
}
__noinline __u64 hash_kernel_half(void) {
  struct scratch* s = get_scratch();
  __u64 user = s ? s->header.user : ~0ULL;
  asm volatile("" : "+r"(user));
  if (!s || user > kMaxHalfStack) return 0; /* cannot be */
  return hash_frames(&s->frames[user], s->header.kernel, 0);
}

static __always_inline void begin_stack(struct scratch* s, struct watched_process* process,
                                        const struct task_facts* facts) {
  s->header.exec_id = facts->exec_id;
  s->header.user = 0;
  s->header.kernel = 0;
  s->header.key.process.tgid = facts->tgid;
  s->header.key.process.start_ticks = process->start_ticks;
}

/* Reads the kernel half of the current task's stack behind the `s->header.user` frames that there are, and makes the
 * key. `user_hash` is that of the user half. */
static __always_inline void end_stack(void* ctx, struct scratch* s, struct watched_process* process,
                                      const struct task_facts* facts, __u64 user_hash, int with_kernel) {
  __u64 user = s->header.user;
  __u32 kernel = 0;
  /* The compiler must not compute the place from anything but the value that the verifier has seen checked. */
  asm volatile("" : "+r"(user));
  if (user > kMaxHalfStack) return; /* cannot be */
  if (with_kernel) kernel = frames_of(bpf_get_stack(ctx, &s->frames[user], kMaxHalfStack * sizeof(__u64), 0));
  if (user == 0 && !facts->kernel_thread) __sync_fetch_and_add(&process->unwind_failed, 1);
  if (user >= max_half_stack || kernel >= max_half_stack) __sync_fetch_and_add(&process->truncated, 1);
  s->header.kernel = kernel;
  s->header.key.hash = join_hashes(user_hash, hash_kernel_half());
}

/* Reads the stack of the current task into `s`, user and kernel part joined, and makes its key. */
static __always_inline void read_stack(void* ctx, struct scratch* s, struct watched_process* process,
                                       const struct task_facts* facts, int with_kernel) {
  begin_stack(s, process, facts);
  if (!facts->kernel_thread) s->header.user = read_user_half(ctx, s, process, facts);
  end_stack(ctx, s, process, facts, hash_user_half(), with_kernel);
}

static __always_inline void tell_frames(struct scratch* s, struct watched_process* process, struct stack_count* count) {
  __u64 frames = s->header.user + s->header.kernel;
  /* The compiler must not compute the size from anything but the value that the verifier has seen checked. */
  asm volatile("" : "+r"(frames));
  if (frames > 2 * kMaxHalfStack) return;
  __u64 size = sizeof(s->header) + frames * sizeof(__u64);
  /* The reader drains the ring at every tick; it is woken in between only if the ring fills up. */
  __u64 waiting = bpf_ringbuf_query(&new_stacks, BPF_RB_AVAIL_DATA);
  __u64 room = bpf_ringbuf_query(&new_stacks, BPF_RB_RING_SIZE);
  if (bpf_ringbuf_output(&new_stacks, s, size, waiting > room / 8 ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP) == 0) {
    count->delivered = 1;
  } else {
    __sync_fetch_and_add(&process->frames_late, 1);
  }
}

static __always_inline struct stack_count* get_count(const struct stack_key* key) {
  struct stack_count* count = bpf_map_lookup_elem(&counts, key);
  if (count) return count;
  struct stack_count zero = {};
  bpf_map_update_elem(&counts, key, &zero, BPF_NOEXIST);
  return bpf_map_lookup_elem(&counts, key);
}

/* The entry of the stack in `s`, made if it is new; its frames are told. 0 where the map is full: the caller counts
 * what is lost. */
static __always_inline struct stack_count* enter_stack(struct scratch* s, struct watched_process* process) {
  struct stack_count* count = get_count(&s->header.key);
  if (!count) return 0;
  if (!process->counted) process->counted = 1;
  if (!count->delivered) tell_frames(s, process, count);
  return count;
}

/* A child of a process that is attached with its children is attached before it runs. */
SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct* parent, struct task_struct* child) {
  struct task_facts facts = TYPED_TASK_FACTS(parent);
  __u32 tgid = child->tgid;
  if (tgid == facts.tgid) return 0; /* a thread */
  struct watched_process* above = find_watched(&facts);
  if (!above || !(above->flags & kWatchChildren)) return 0;
  struct watched_process entry = {
      .start_ticks = start_ticks(child->start_boottime),
      .flags = kWatchChildren | kWatchAdopted | (above->flags & kWatchMappings),
      .rate_mhz = above->rate_mhz,
      .parent = {.tgid = facts.tgid, .start_ticks = above->start_ticks},
      .since_ns = bpf_ktime_get_ns(),
      .space = above->space,
      .space_generation = above->space_generation,
  };
  if (bpf_map_update_elem(&watched, &tgid, &entry, BPF_ANY)) __sync_fetch_and_add(&above->watch_full, 1);
  return 0;
}

/* User space hears of a child when something is counted in it; one that ends before leaves nothing behind. */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct* task) {
  struct task_facts facts = TYPED_TASK_FACTS(task);
  struct watched_process* process = find_watched(&facts);
  if (!process || !(process->flags & kWatchAdopted) || process->counted) return 0;
  if (task->signal->live.counter <= 0) bpf_map_delete_elem(&watched, &facts.tgid);
  return 0;
}

#endif
