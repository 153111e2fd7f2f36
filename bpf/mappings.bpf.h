/* SPDX-License-Identifier: GPL-2.0-or-later */
/* mmap, munmap and mremap of processes for which it was asked. Only told to user space, which knows what lies where: a
 * part of a mapping may be unmapped, and the kernel side has no ordered table. The order in the ring is the order in
 * which addresses change hands: one that goes is told before the call, one that came after it. Included by
 * memory.bpf.c. */
#ifndef STACKWATCH_BPF_MAPPINGS_BPF_H
#define STACKWATCH_BPF_MAPPINGS_BPF_H

/* Set by user space: the numbers of the three on this machine, and its page size. */
volatile __u64 number_mmap = ~0ULL;
volatile __u64 number_munmap = ~0ULL;
volatile __u64 number_mremap = ~0ULL;
volatile __u64 page_bytes = 4096;

/* Of linux/mman.h and asm-generic/mman-common.h. */
enum { kMapFixed = 0x10, kMapHuge = 0x40000, kMapHugeShift = 26, kMapHugeMask = 0x3f, kHugeShift = 21 };
enum { kRemapFixed = 2, kRemapDontUnmap = 4 };
/* TS_COMPAT: a call with the numbers of 32-bit programs. */
enum { kCompatCall = 2 };

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct thread_info {
  __u32 status;
};
struct task_struct___status {
  struct thread_info thread_info;
};
#pragma clang attribute pop

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, 16384);
  __type(key, __u64);
  __type(value, struct mapping_call);
} mapping_calls SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_RINGBUF);
  __uint(max_entries, 1 << 19);
} mapping_events SEC(".maps");

static __always_inline __u64 whole_pages(__u64 bytes, __u64 page) { return (bytes + page - 1) & ~(page - 1); }

static __always_inline int is_mapping_call(__u64 number) {
  return number == number_mmap || number == number_munmap || number == number_mremap;
}

static __always_inline int is_compat_call(void) {
  struct task_struct___status* task = (void*)bpf_get_current_task();
  if (!bpf_core_field_exists(task->thread_info.status)) return 0;
  return BPF_CORE_READ(task, thread_info.status) & kCompatCall;
}

/* As begin(), from the registers with which the call came. Others pay for one look-up and nothing else. */
static __always_inline int begin_call(struct context* c, struct pt_regs* user, struct pt_regs* registers) {
  c->tgid = bpf_get_current_pid_tgid() >> 32;
  struct memory_process* process = bpf_map_lookup_elem(&processes, &c->tgid);
  if (!process || !process->mappings || is_compat_call()) return 0;
  return bpf_probe_read_kernel(registers, sizeof(*registers), user) == 0 && begin(c, registers);
}

static __always_inline int returns_to(__u64 sp, __u64 caller) {
  __u64 slot = 0;
  return caller && bpf_probe_read_user(&slot, sizeof(slot), (void*)sp) == 0 && slot == caller;
}

/* Whether the thread is within a function of the allocator: what that maps is what it hands out, and is counted there.
 */
static __always_inline int in_allocator(struct context* c) {
  struct memory_call* call = bpf_map_lookup_elem(&calls, &c->pid_tgid);
  if (!call) return 0;
  if (call->role && call->image == c->image && c->sp < call->sp) {
    __u64 caller = call->role == kMemoryNew ? call->caller : trampoline();
    if (!caller || !RETURN_SLOT_BYTES || returns_to(call->sp, caller)) return 1;
  }
  return c->sp < call->free_sp && returns_to(call->free_sp, call->free_caller);
}

static __always_inline int tell_mapping(struct context* c, struct mapping_event* event) {
  event->key.process.tgid = c->tgid;
  event->key.process.start_ticks = c->process->start_ticks;
  event->thread = c->pid_tgid;
  event->image = c->image;
  __u64 waiting = bpf_ringbuf_query(&mapping_events, BPF_RB_AVAIL_DATA);
  __u64 room = bpf_ringbuf_query(&mapping_events, BPF_RB_RING_SIZE);
  return bpf_ringbuf_output(&mapping_events, event, sizeof(*event),
                            waiting > room / 8 ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP) == 0;
}

SEC("tp_btf/sys_enter")
int BPF_PROG(enter_call, struct pt_regs* user, long number) {
  if (!is_mapping_call((__u64)number)) return 0;
  struct pt_regs registers;
  struct context c;
  if (!begin_call(&c, user, &registers)) return 0;
  struct mapping_call call = {.number = (__u64)number,
                              .address = PT_REGS_PARM1_SYSCALL(&registers),
                              .length = PT_REGS_PARM2_SYSCALL(&registers)};
  if (call.number == number_mmap) call.flags = PT_REGS_PARM4_SYSCALL(&registers);
  if (call.number == number_mremap) {
    call.new_length = PT_REGS_PARM3_SYSCALL(&registers);
    call.flags = PT_REGS_PARM4_SYSCALL(&registers);
  }
  int own = in_allocator(&c);
  if (own && call.number != number_munmap) return 0;
  call.length = whole_pages(call.length, page_bytes);
  if (bpf_map_update_elem(&mapping_calls, &c.pid_tgid, &call, BPF_ANY)) {
    lose(&c, call.number == number_mremap ? whole_pages(call.new_length, page_bytes) : call.length);
    return 0;
  }
  if (call.number == number_mmap || !call.length) return 0;
  if (call.number == number_mremap && (call.flags & kRemapDontUnmap)) return 0;
  struct mapping_event event = {.address = call.address, .length = call.length, .kind = kMappingLeaving};
  if (own) event.flags = kMappingOwnFree;
  if (!tell_mapping(&c, &event)) __sync_fetch_and_add(&c.process->lost_frees, call.length);
  return 0;
}

static __always_inline void enter_mapping(struct context* c, __u64 address, __u64 length, int fixed, __u64 ip) {
  struct watched_process* process = bpf_map_lookup_elem(&watched, &c->tgid);
  struct scratch* s = get_scratch();
  if (!process || !s || process->start_ticks != c->process->start_ticks) return;
  struct mapping_event event = {.address = address, .length = length, .kind = kMappingEntered};
  if (fixed) event.flags = kMappingFixed;
  if (!read_user_stack(c, s, process, ip, &event.key)) return lose(c, length);
  struct stack_count* count = get_count(&event.key);
  if (!count || !tell_mapping(c, &event)) return lose(c, length);
  tell_frames_once(c, s, process, count);
}

static __always_inline __u64 page_of(const struct mapping_call* call) {
  if (call->number != number_mmap || !(call->flags & kMapHuge)) return page_bytes;
  __u64 shift = (call->flags >> kMapHugeShift) & kMapHugeMask;
  return 1ULL << (shift ? shift : kHugeShift);
}

SEC("tp_btf/sys_exit")
int BPF_PROG(leave_call, struct pt_regs* user, long result) {
#if defined(__TARGET_ARCH_x86)
  /* Spares the other calls the look-up; elsewhere the number is not kept. */
  if (!is_mapping_call(user->orig_rax)) return 0;
#endif
  __u64 pid_tgid = bpf_get_current_pid_tgid();
  struct mapping_call* found = bpf_map_lookup_elem(&mapping_calls, &pid_tgid);
  if (!found) return 0;
  struct mapping_call call = *found;
  bpf_map_delete_elem(&mapping_calls, &pid_tgid);
  struct pt_regs registers;
  struct context c;
  if (!begin_call(&c, user, &registers)) return 0;
  const __s64 kMostError = 4095;
  int failed = result < 0 && result >= -kMostError;
  if (call.number != number_mmap) {
    struct mapping_event event = {.kind = failed ? kMappingStays : kMappingLeft};
    if (!tell_mapping(&c, &event) && failed) lose(&c, call.length);
  }
  if (failed || call.number == number_munmap) return 0;
  if (call.number == number_mmap) {
    enter_mapping(&c, (__u64)result, whole_pages(call.length, page_of(&call)), (call.flags & kMapFixed) != 0,
                  PT_REGS_IP(&registers));
  } else {
    enter_mapping(&c, (__u64)result, whole_pages(call.new_length, page_bytes), (call.flags & kRemapFixed) != 0,
                  PT_REGS_IP(&registers));
  }
  return 0;
}

#endif
