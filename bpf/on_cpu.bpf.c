// SPDX-License-Identifier: GPL-2.0-or-later
// Samples of watched processes, by a clock event on every CPU. Kept in the kernel: a count per (process, hash of all
// frames). The frames of a stack go to user space once, through a ring buffer, and count as told only when delivered.
#include <linux/bpf.h>
#include <linux/bpf_perf_event.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "bpf/abi.h"
#include "bpf/kernel_types.h"

char LICENSE[] SEC("license") = "GPL";

/* Thousandths of a hertz: the rate of the clock events. Set before they are opened. */
volatile __u32 base_rate_mhz = 1;
/* As far as kernel.perf_event_max_stack lets stacks be read. */
volatile __u32 max_half_stack = kMaxHalfStack;
/* Whether any watched process has kWatchChildren: else nobody's ancestors need looking at. */
volatile __u32 adopting = 0;

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

struct scratch {
  struct stack_frames header;
  __u64 frames[2 * kMaxHalfStack];
  __u64 clock; /* events so far on this CPU */
};

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct scratch);
} scratch_map SEC(".maps");

static __always_inline __u32 start_ticks_of(struct task_struct* leader) {
  return (__u32)(BPF_CORE_READ(leader, start_boottime) / kStartTickNs);
}

// A process is taken in at its first sample if an ancestor is watched with its children. That needs no hook on fork, so
// it costs the rest of the machine nothing, and misses only processes that never hit a sample.
static __always_inline struct watched_process* adopt(__u32 tgid, struct task_struct* leader) {
  struct task_struct* ancestor = leader;
  for (int i = 0; i < kMaxAncestors; i++) {
    ancestor = BPF_CORE_READ(ancestor, real_parent, group_leader);
    __u32 ancestor_tgid = BPF_CORE_READ(ancestor, tgid);
    if (ancestor_tgid <= 1) return 0;
    struct watched_process* parent = bpf_map_lookup_elem(&watched, &ancestor_tgid);
    if (!parent || !(parent->flags & kWatchChildren)) continue;
    if (parent->start_ticks != start_ticks_of(ancestor)) continue;
    struct watched_process child = {
        .start_ticks = start_ticks_of(leader),
        .flags = kWatchChildren | kWatchAdopted,
        .rate_mhz = parent->rate_mhz,
        .parent = {.tgid = ancestor_tgid, .start_ticks = parent->start_ticks},
    };
    // BPF_NOEXIST: another CPU may be at the same; both then find the one entry.
    long failed = bpf_map_update_elem(&watched, &tgid, &child, BPF_NOEXIST);
    struct watched_process* self = bpf_map_lookup_elem(&watched, &tgid);
    if (failed && !self) __sync_fetch_and_add(&parent->watch_full, 1);
    return self;
  }
  return 0;
}

// Of the n-th events of a clock with rate `base`, exactly those that make a clock of rate `rate`. The phase differs by
// process, so that processes of one rate are not always thinned at the same events.
static __always_inline int is_due(__u64 n, __u32 tgid, __u32 rate, __u32 base) {
  if (rate >= base) return 1;
  if (!base) return 0;
  __u64 at = n + tgid;
  return (at + 1) * rate / base != at * rate / base;
}

static __always_inline __u64 hash_stack(struct scratch* s, __u32 frames, __u64 seed) {
  __u64 hash = seed * 0x9e3779b97f4a7c15ULL + frames;
  for (__u32 i = 0; i < 2 * kMaxHalfStack; i++) {
    if (i >= frames) break;
    hash = (hash ^ s->frames[i]) * 0xff51afd7ed558ccdULL;
    hash ^= hash >> 32;
  }
  return hash;
}

static __always_inline __u32 frames_of(long bytes) { return bytes > 0 ? (__u32)bytes / sizeof(__u64) : 0; }

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

static __always_inline void count_sample(struct scratch* s, struct watched_process* process) {
  struct stack_count* count = bpf_map_lookup_elem(&counts, &s->header.key);
  if (!count) {
    struct stack_count zero = {};
    bpf_map_update_elem(&counts, &s->header.key, &zero, BPF_NOEXIST);
    count = bpf_map_lookup_elem(&counts, &s->header.key);
    if (!count) {
      __sync_fetch_and_add(&process->lost_map_full, 1);
      return;
    }
  }
  __sync_fetch_and_add(&count->count, 1);
  if (!count->delivered) tell_frames(s, process, count);
}

SEC("perf_event")
int sample_on_cpu(struct bpf_perf_event_data* ctx) {
  __u32 zero = 0;
  struct scratch* s = bpf_map_lookup_elem(&scratch_map, &zero);
  if (!s) return 0;
  __u64 n = s->clock++;

  __u32 tgid = bpf_get_current_pid_tgid() >> 32;
  if (!tgid) return 0; /* idle */
  struct task_struct* task = (void*)bpf_get_current_task();
  struct task_struct* leader = BPF_CORE_READ(task, group_leader);
  struct watched_process* process = bpf_map_lookup_elem(&watched, &tgid);
  if (!process) {
    if (!adopting) return 0;
    process = adopt(tgid, leader);
    if (!process) return 0;
  }
  if (process->start_ticks != start_ticks_of(leader)) return 0; /* another process had this pid */
  if (!is_due(n, tgid, process->rate_mhz, base_rate_mhz)) return 0;

  long user_bytes = bpf_get_stack(ctx, s->frames, kMaxHalfStack * sizeof(__u64), BPF_F_USER_STACK);
  __u32 user = frames_of(user_bytes);
  if (user > kMaxHalfStack) return 0; /* cannot be: tells the verifier */
  long kernel_bytes = bpf_get_stack(ctx, &s->frames[user], kMaxHalfStack * sizeof(__u64), 0);
  __u32 kernel = frames_of(kernel_bytes);
  if (kernel > kMaxHalfStack) return 0;
  if (user == 0 && !(BPF_CORE_READ(task, flags) & kKernelThread)) __sync_fetch_and_add(&process->unwind_failed, 1);
  if (user >= max_half_stack || kernel >= max_half_stack) __sync_fetch_and_add(&process->truncated, 1);

  s->header.exec_id = BPF_CORE_READ(task, self_exec_id);
  s->header.user = user;
  s->header.kernel = kernel;
  s->header.key.process.tgid = tgid;
  s->header.key.process.start_ticks = process->start_ticks;
  s->header.key.hash = hash_stack(s, user + kernel, s->header.exec_id * 256 + user);
  count_sample(s, process);
  return 0;
}
