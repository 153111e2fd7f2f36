// SPDX-License-Identifier: GPL-2.0-or-later
// The least that a probe can do: for finding out whether probes work here, and what they cost.
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "GPL";

__u64 entries = 0;
__u64 returns = 0;

SEC("uprobe")
int count_entry(void* ctx) {
  __sync_fetch_and_add(&entries, 1);
  return 0;
}

SEC("uretprobe")
int count_return(void* ctx) {
  __sync_fetch_and_add(&returns, 1);
  return 0;
}
