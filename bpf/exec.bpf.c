// SPDX-License-Identifier: GPL-2.0-or-later
// Tells of every process that executes a program, at once.
#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "bpf/abi.h"
#include "bpf/kernel_types.h"

char LICENSE[] SEC("license") = "GPL";

/* Events that found the ring full. */
__u64 lost = 0;

struct {
  __uint(type, BPF_MAP_TYPE_RINGBUF);
  __uint(max_entries, 1 << 17);
} execs SEC(".maps");

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct* task) {
  struct exec_event* event = bpf_ringbuf_reserve(&execs, sizeof(*event), 0);
  if (!event) {
    __sync_fetch_and_add(&lost, 1);
    return 0;
  }
  event->tgid = task->tgid;
  BPF_CORE_READ_INTO(&event->comm, task, comm);
  bpf_ringbuf_submit(event, 0);
  return 0;
}
