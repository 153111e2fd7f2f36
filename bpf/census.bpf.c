// SPDX-License-Identifier: GPL-2.0-or-later
// One pass over all tasks: a record per task, folded into processes by the reader. Threads that are no leaders send the
// short form. 5,000 tasks take about 4 ms; the same from /proc takes 40 times as long.
#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "bpf/abi.h"
#include "bpf/kernel_types.h"

char LICENSE[] SEC("license") = "GPL";

enum { kDefaultPriority = 120, kPagesFile = 0, kPagesAnonymous = 1, kPagesShared = 3 };

static __always_inline __u64 positive(__s64 value) { return value > 0 ? (__u64)value : 0; }

// Approximate by up to max(32, 2 x CPUs) pages per CPU on kernels with per-CPU counters: /proc/PID/stat is so too.
static __always_inline __u64 rss_pages(struct mm_struct* mm) {
  if (bpf_core_type_exists(struct mm_rss_stat)) {
    // Not by plain loads: the compiler makes one of the last ones of both kernels, at an offset that is in a register.
    struct mm_struct___until_6_1* old = (void*)mm;
    return positive(BPF_CORE_READ(old, rss_stat.count[kPagesFile].counter)) +
           positive(BPF_CORE_READ(old, rss_stat.count[kPagesAnonymous].counter)) +
           positive(BPF_CORE_READ(old, rss_stat.count[kPagesShared].counter));
  }
  return positive(mm->rss_stat[kPagesFile].count) + positive(mm->rss_stat[kPagesAnonymous].count) +
         positive(mm->rss_stat[kPagesShared].count);
}

// The pid namespace of whoever reads: 0 is the initial one. Found once a pass.
static __u32 reader_level;

static __always_inline void find_reader_level(void) {
  struct task_struct* reader = (void*)bpf_get_current_task();
  reader_level = BPF_CORE_READ(reader, thread_pid, level);
}

// The pid as the pid namespace of whoever reads this iterator shows it.
static __always_inline int pid_for_reader(struct task_struct* task) {
  if (reader_level == 0) return task->pid;
  struct pid* pid = task->thread_pid;
  int number = 0;
  if (pid) {
    bpf_probe_read_kernel(&number, sizeof(number),
                          (char*)&pid->numbers[0] + reader_level * bpf_core_type_size(struct upid));
  }
  return number;
}

static __always_inline void fill_thread(struct census_thread* out, struct task_struct* task) {
  out->tgid = task->tgid;
  out->tid = task->pid;
  out->on_cpu_ns = task->se.sum_exec_runtime;
  out->run_queue_ns = task->sched_info.run_delay;
  out->voluntary_switches = task->nvcsw;
  out->involuntary_switches = task->nivcsw;
  out->minor_faults = task->min_flt;
  out->major_faults = task->maj_flt;
  if (bpf_core_field_exists(task->ioac.read_bytes)) {
    out->read_bytes = task->ioac.read_bytes;
    out->write_bytes = task->ioac.write_bytes;
  }
}

SEC("iter/task")
int take_census(struct bpf_iter__task* ctx) {
  struct task_struct* task = ctx->task;
  if (ctx->meta->seq_num == 0) find_reader_level();
  if (!task) return 0;
  if (task->pid != task->tgid) {
    struct census_thread thread = {.kind = kCensusThread};
    fill_thread(&thread, task);
    bpf_seq_write(ctx->meta->seq, &thread, sizeof(thread));
    return 0;
  }

  // A zombie has ended; a leader that ended before its threads stands for them still.
  struct signal_struct* signal = task->signal;
  if (!signal || (task->exit_state && signal->nr_threads <= 1)) return 0;
  struct census_process process = {.self = {.kind = kCensusProcess}};
  fill_thread(&process.self, task);
  process.threads = (__u32)signal->nr_threads;
  process.dead.on_cpu_ns = signal->sum_sched_runtime;
  process.dead.voluntary_switches = signal->nvcsw;
  process.dead.involuntary_switches = signal->nivcsw;
  process.dead.minor_faults = signal->min_flt;
  process.dead.major_faults = signal->maj_flt;
  if (bpf_core_field_exists(signal->ioac.read_bytes)) {
    process.dead.read_bytes = signal->ioac.read_bytes;
    process.dead.write_bytes = signal->ioac.write_bytes;
  }
  process.start_boottime_ns = task->start_boottime;
  process.exec_id = task->self_exec_id;
  process.cgroup_set = (__u64)task->cgroups;
  process.cgroup_id = task->cgroups->dfl_cgrp->kn->id;
  struct mm_struct* mm = task->mm;
  if (mm) process.rss_pages = rss_pages(mm);
  process.parent_tgid = task->real_parent->tgid;
  process.pid_in_ns = pid_for_reader(task);
  process.nice = task->static_prio - kDefaultPriority;
  process.policy = task->policy;
  process.euid = task->cred->euid.val;
  process.flags = task->flags;
  bpf_probe_read_kernel(process.comm, sizeof(process.comm), task->comm);
  bpf_seq_write(ctx->meta->seq, &process, sizeof(process));
  return 0;
}
