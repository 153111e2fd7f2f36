// SPDX-License-Identifier: GPL-2.0-or-later
// Time that threads of watched processes spend off the CPU, by the stack they left it with: values[0] blocked,
// values[1] run queue, in nanoseconds. A switch of anybody else costs a look-up for the task that leaves and one for
// the task that comes.
#include "bpf/stack_counting.bpf.h"
#include "bpf/user_memo.bpf.h"

char LICENSE[] SEC("license") = "GPL";

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 16384);
  __type(key, __u32);
  __type(value, struct thread_wait);
} waits SEC(".maps");

/* CLOCK_MONOTONIC minus the clock of the scheduler's own records, renewed all the time: they drift apart slowly. */
__u64 clock_offset_ns = 0;

enum { kRunning = 0, kDead = 0x80 };

static __always_inline __u32 state_of(struct task_struct* task) {
  if (bpf_core_field_exists(task->__state)) return task->__state;
  struct task_struct___until_5_13* older = (void*)task;
  return (__u32)BPF_CORE_READ(older, state);
}

/* How much of a wait was spent awake, waiting for a CPU: the kernel sums that up itself, in the task, when the task
 * gets a CPU. What is queued at the moment comes on top. */
static __always_inline __u64 queued_ns(struct task_struct* task, const struct thread_wait* wait, __u64 total) {
  if (wait->flags & kWaitPreempted) return total;
  __u64 queued = task->sched_info.run_delay - wait->run_delay_ns;
  __u64 since = task->sched_info.last_queued;
  __u64 offset = clock_offset_ns;
  if (!wait->total_ns && since && offset) {
    __u64 now = bpf_ktime_get_ns() - offset;
    if (now > since) queued += now - since;
  }
  return queued < total ? queued : total;
}

/* The wait is over, and what the kernel knows about it is there only after this switch: it is counted when the thread
 * leaves the CPU again. Until then the iterator tells it. */
static __always_inline void come(struct task_struct* task) {
  __u32 tid = task->pid;
  struct thread_wait* wait = bpf_map_lookup_elem(&waits, &tid);
  if (!wait || !wait->start_ns || wait->total_ns) return;
  __u64 now = bpf_ktime_get_ns();
  if (now > wait->start_ns) wait->total_ns = now - wait->start_ns;
}

static __always_inline void count_wait(struct thread_wait* wait, struct task_struct* task,
                                       struct watched_process* process) {
  __u64 total = wait->total_ns;
  __u64 queued = queued_ns(task, wait, total);
  clock_offset_ns = wait->start_ns + total - task->sched_info.last_arrival;
  wait->start_ns = 0;
  wait->total_ns = 0;
  struct stack_count* count = get_count(&wait->key);
  if (count) {
    __sync_fetch_and_add(&count->values[0], total - queued);
    __sync_fetch_and_add(&count->values[1], queued);
  } else {
    __sync_fetch_and_add(&process->lost_map_full, total);
  }
}

/* The user half, where nothing but its hash may be known: then 1. */
static __always_inline int find_user_half(void* ctx, struct scratch* s, __u64* hash) {
  struct user_memo* memo = read_user_regs(&s->walk.regs) ? memo_of(&s->walk.regs) : 0;
  if (memo && memo->frames && is_of(memo, s) && has_same_words()) {
    s->header.user = memo->frames;
    *hash = memo->hash;
    return 1;
  }
  struct user_regs regs = s->walk.regs;
  __u32 epoch = memo_epoch;
  s->header.user =
      memo ? walk_again() : frames_of(bpf_get_stack(ctx, s->frames, kMaxHalfStack * sizeof(__u64), BPF_F_USER_STACK));
  *hash = hash_user_half();
  if (memo) remember_walk(memo, s, &regs, epoch, *hash);
  return 0;
}

/* The stack that the current task leaves with, entered. */
static __always_inline void enter_wait(void* ctx, struct scratch* s, struct watched_process* process,
                                       const struct task_facts* facts) {
  begin_stack(s, process, facts);
  __u64 hash = 0;
  int known = 0;
  if (!facts->kernel_thread) known = find_user_half(ctx, s, &hash);
  end_stack(ctx, s, process, facts, hash, 1);
  struct stack_count* count = get_count(&s->header.key);
  if (!count) return;
  if (!process->counted) process->counted = 1;
  if (count->delivered) return;
  /* Now the frames are needed. */
  if (!known || walk_again() == s->header.user) tell_frames(s, process, count);
}

static __always_inline void leave(void* ctx, struct task_struct* task, int preempted) {
  struct task_facts facts = TYPED_TASK_FACTS(task);
  struct watched_process* process = find_watched(&facts);
  if (!process) return;
  __u32 tid = task->pid;
  struct thread_wait* wait = bpf_map_lookup_elem(&waits, &tid);
  if (wait && wait->total_ns) count_wait(wait, task, process);
  __u32 state = state_of(task);
  if (state & kDead) {
    bpf_map_delete_elem(&waits, &tid);
    return;
  }
  struct scratch* s = get_scratch();
  if (!s) return;
  enter_wait(ctx, s, process, &facts); /* the value comes when the wait ends */
  if (!wait) {
    struct thread_wait none = {};
    bpf_map_update_elem(&waits, &tid, &none, BPF_NOEXIST);
    wait = bpf_map_lookup_elem(&waits, &tid);
    if (!wait) {
      __sync_fetch_and_add(&process->watch_full, 1);
      return;
    }
  }
  wait->start_ns = 0;
  wait->key = s->header.key;
  wait->total_ns = 0;
  wait->run_delay_ns = task->sched_info.run_delay;
  wait->flags = preempted || state == kRunning ? kWaitPreempted : 0;
  wait->start_ns = bpf_ktime_get_ns(); /* the walk above was no wait of the thread's */
}

SEC("tp_btf/sched_switch")
int BPF_PROG(on_switch, int preempted, struct task_struct* prev, struct task_struct* next) {
  if (next->pid) come(next);
  if (prev->pid) leave(ctx, prev, preempted);
  return 0;
}

/* A thread that has not run since its process was attached waits since then. */
static __always_inline struct thread_wait* begin_unseen(struct task_struct* task, struct watched_process* process) {
  __u32 tid = task->pid;
  struct thread_wait begun = {
      .key = {.process = {.tgid = task->tgid, .start_ticks = process->start_ticks}, .hash = kBeforeAttachingHash},
      .start_ns = process->since_ns,
      .run_delay_ns = task->sched_info.run_delay,
  };
  bpf_map_update_elem(&waits, &tid, &begun, BPF_NOEXIST);
  struct scratch* s = get_scratch();
  struct stack_count* count = get_count(&begun.key);
  if (!process->counted) process->counted = 1;
  if (s && count && !count->delivered) {
    s->header = (struct stack_frames){.key = begun.key};
    tell_frames(s, process, count);
  }
  return bpf_map_lookup_elem(&waits, &tid);
}

/* Tells each wait that is not in the counts: those that go on, up to now, and those of threads that run. */
SEC("iter/task")
int tell_waits(struct bpf_iter__task* ctx) {
  struct task_struct* task = ctx->task;
  if (!task) return 0;
  __u32 tid = task->pid;
  struct task_facts facts = TYPED_TASK_FACTS(task);
  struct watched_process* process = find_watched(&facts);
  if (!process || task->exit_state || (state_of(task) & kDead)) return 0;
  struct thread_wait* wait = bpf_map_lookup_elem(&waits, &tid);
  if (!wait && !task->on_cpu) wait = begin_unseen(task, process);
  if (!wait) return 0;
  struct open_wait open = {.key = wait->key};
  __u64 start = wait->start_ns;
  __u64 now = bpf_ktime_get_ns();
  if (!start || now <= start) return 0;
  __u64 total = wait->total_ns;
  if (!total) total = now - start;
  open.run_queue_ns = queued_ns(task, wait, total);
  open.blocked_ns = total - open.run_queue_ns;
  if (wait->start_ns == start) bpf_seq_write(ctx->meta->seq, &open, sizeof(open));
  return 0;
}
