/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The few fields of kernel types that our programs read, declared by hand. CO-RE finds their real offsets on the
 * kernel that runs, so the build needs no header and no BTF of the build host's kernel. */
#ifndef STACKWATCH_BPF_KERNEL_TYPES_H
#define STACKWATCH_BPF_KERNEL_TYPES_H

#include <linux/types.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct upid {
  int nr;
};

struct pid {
  unsigned int level;
  struct upid numbers[1];
};

struct sched_entity {
  __u64 sum_exec_runtime;
};

struct sched_info {
  unsigned long long run_delay;
  unsigned long long last_arrival;
  unsigned long long last_queued;
};

struct task_io_accounting {
  __u64 read_bytes;
  __u64 write_bytes;
};

typedef struct {
  int counter;
} atomic_t;

struct signal_struct {
  atomic_t live;
  int nr_threads;
  unsigned long nvcsw;
  unsigned long nivcsw;
  unsigned long min_flt;
  unsigned long maj_flt;
  struct task_io_accounting ioac;
  unsigned long long sum_sched_runtime;
};

struct kernfs_node {
  __u64 id;
};

struct cgroup {
  struct kernfs_node* kn;
};

struct css_set {
  struct cgroup* dfl_cgrp;
};

typedef struct {
  unsigned int val;
} kuid_t;

struct cred {
  kuid_t euid;
};

struct percpu_counter {
  __s64 count;
};

/* Since Linux 6.2. */
struct mm_struct {
  unsigned long exec_vm; /* pages that can be run and not written */
  struct percpu_counter rss_stat[4];
};

typedef struct {
  __s64 counter;
} atomic64_t;

typedef atomic64_t atomic_long_t;

/* Until Linux 6.1. */
struct mm_rss_stat {
  atomic_long_t count[4];
};

struct mm_struct___until_6_1 {
  struct mm_rss_stat rss_stat;
};

struct task_struct {
  unsigned int __state;
  void* stack;
  unsigned int flags;
  unsigned int on_cpu; /* int; a byte since Linux 7.2, and CO-RE narrows loads of unsigned fields alone */
  int exit_state;
  int static_prio;
  unsigned int policy;
  struct sched_entity se;
  struct sched_info sched_info;
  struct mm_struct* mm;
  int pid;
  int tgid;
  struct task_struct* real_parent;
  struct task_struct* group_leader;
  struct pid* thread_pid;
  unsigned long nvcsw;
  unsigned long nivcsw;
  __u64 start_boottime;
  unsigned long min_flt;
  unsigned long maj_flt;
  const struct cred* cred;
  char comm[16];
  struct signal_struct* signal;
  __u64 self_exec_id;
  struct task_io_accounting ioac;
  struct css_set* cgroups;
};

/* Return probes under way. */
struct return_instance {
  unsigned long stack;
  unsigned long orig_ret_vaddr;
  _Bool chained;
  struct return_instance* next;
};
struct uprobe_task {
  struct return_instance* return_instances;
};
struct task_struct___utask {
  struct uprobe_task* utask;
};
struct xol_area {
  unsigned long vaddr;
};
struct uprobes_state {
  struct xol_area* xol_area;
};
struct mm_struct___uprobes {
  struct uprobes_state uprobes_state;
};

/* Until Linux 5.13. */
struct task_struct___until_5_13 {
  long state;
};

struct seq_file;

struct bpf_iter_meta {
  struct seq_file* seq;
  __u64 seq_num; /* 0 for the first of a pass */
};

struct bpf_iter__task {
  struct bpf_iter_meta* meta;
  struct task_struct* task;
};

#pragma clang attribute pop

#endif
