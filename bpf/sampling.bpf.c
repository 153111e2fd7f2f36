// SPDX-License-Identifier: GPL-2.0-or-later
// Samples of watched processes, by an event on every CPU: a clock, or every so many page faults.
#include <linux/bpf.h>
#include <linux/bpf_perf_event.h>

#include "bpf/stack_counting.bpf.h"

char LICENSE[] SEC("license") = "GPL";

/* Thousandths of a hertz: the rate of the clock events. 0 where the events are no clock. Set before they are opened. */
volatile __u32 base_rate_mhz = 0;
/* What one sample counts for. */
volatile __u32 weight = 1;

// Of the n-th events of a clock with rate `base`, exactly those that make a clock of rate `rate`. The phase differs by
// process, so that processes of one rate are not always thinned at the same events.
static __always_inline int is_due(__u64 n, __u32 tgid, __u32 rate, __u32 base) {
  if (rate >= base) return 1;
  __u64 at = n + tgid;
  return (at + 1) * rate / base != at * rate / base;
}

SEC("perf_event")
int sample(struct bpf_perf_event_data* ctx) {
  struct scratch* s = get_scratch();
  if (!s) return 0;
  __u64 n = s->clock++;
  __u32 tgid = bpf_get_current_pid_tgid() >> 32;
  if (!tgid) return 0; /* idle */
  struct task_struct* task = (void*)bpf_get_current_task();
  struct watched_process* seen = bpf_map_lookup_elem(&watched, &tgid);
  if (!seen || !is_due(n, tgid, seen->rate_mhz, base_rate_mhz)) return 0; /* before anything that costs more */
  struct task_facts facts = UNTYPED_TASK_FACTS(task);
  struct watched_process* process = find_watched(&facts);
  if (!process) return 0;
  read_stack(ctx, s, process, &facts, !hit_user_mode(ctx));
  struct stack_count* count = enter_stack(s, process);
  __sync_fetch_and_add(count ? &count->values[0] : &process->lost_map_full, weight);
  return 0;
}
