// SPDX-License-Identifier: GPL-2.0-or-later
// Outstanding bytes per allocating stack: the size is added when an allocator function has returned an address, and
// taken away when that address is freed. Only the outermost call of a thread into the allocator counts (calloc may call
// malloc): an entry per thread holds the call in flight. Its stack pointer, and whether the return address there is
// still the kernel's, tell a nested call from one that never came to its end (longjmp, an exception).
#include <linux/ptrace.h>

#include "bpf/stack_counting.bpf.h"

char LICENSE[] SEC("license") = "GPL";

#if defined(__TARGET_ARCH_x86)
/* `call` pushes the return address, `ret` takes it off: after the return the stack pointer is higher by this. */
#define RETURN_SLOT_BYTES 8
#else
#define RETURN_SLOT_BYTES 0
#endif

/* Goes up with every collect: which entries are in use. */
volatile __u32 epoch = 1;

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 4096);
  __type(key, __u32);
  __type(value, struct memory_process);
} processes SEC(".maps");

/* The call that a thread is in. Key: pid_tgid. */
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 16384);
  __type(key, __u64);
  __type(value, struct memory_call);
} calls SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __uint(max_entries, 1 << 20);
  __type(key, struct memory_address);
  __type(value, struct memory_block);
} live SEC(".maps");

/* What every program run begins with. */
struct context {
  __u64 pid_tgid;
  __u64 sp;
  __u64 fp;
  __u64 begun_ns; /* 0: this run is not measured */
  __u64 exec_id;
  struct memory_process* process;
  __u32 tgid;
  __u32 image;
};

static __always_inline __u32 image_of(const struct memory_process* process) {
  return (__u32)process->exec_id ^ process->start_ticks * 0x9e3779b1U;
}

enum { kMeasureOneIn = 64 };

static __always_inline int begin(struct context* c, struct pt_regs* ctx) {
  c->pid_tgid = bpf_get_current_pid_tgid();
  c->tgid = c->pid_tgid >> 32;
  c->process = bpf_map_lookup_elem(&processes, &c->tgid);
  if (!c->process) return 0;
  c->begun_ns = 0;
  c->sp = PT_REGS_SP(ctx);
  c->fp = PT_REGS_FP(ctx);
  c->exec_id = c->process->exec_id;
  if (!c->exec_id) {
    struct task_struct* task = (void*)bpf_get_current_task();
    c->exec_id = c->process->exec_id = BPF_CORE_READ(task, self_exec_id);
  }
  c->image = image_of(c->process);
  return 1;
}

/* Counts a run, and has one in so many measured. */
static __always_inline void count_run(struct context* c, __u64* runs) {
  __sync_fetch_and_add(runs, 1);
  if ((*runs & (kMeasureOneIn - 1)) == 0) c->begun_ns = bpf_ktime_get_ns();
}

static __always_inline int end(struct context* c) {
  if (c->begun_ns) __sync_fetch_and_add(&c->process->spent_ns, (bpf_ktime_get_ns() - c->begun_ns) * kMeasureOneIn);
  return 0;
}

static __always_inline void add_to(struct context* c, __u64 hash, __s64 bytes) {
  struct stack_key key = {.process = {.tgid = c->tgid, .start_ticks = c->process->start_ticks}, .hash = hash};
  struct stack_count* count = get_count(&key);
  if (count) {
    __sync_fetch_and_add(&count->values[0], bytes);
  } else {
    /* Its stack was dropped as idle and there is no room to take it up again. */
    __sync_fetch_and_add(&c->process->lost_frees, -bytes);
  }
}

static __always_inline void lose(struct context* c, __u64 bytes) {
  __sync_fetch_and_add(&c->process->lost_map_full, bytes);
}

static __always_inline void take_back(struct context* c, const struct memory_block* block) {
  add_to(c, block->hash, -(__s64)block->size);
}

/* Takes an address out of the map. 1 where it was in it. */
static __always_inline int take_address(struct context* c, __u64 address, struct memory_block* block) {
  struct memory_address key = {.tgid = c->tgid, .image = c->image, .address = address};
  struct memory_block* known = bpf_map_lookup_elem(&live, &key);
  if (!known) return 0;
  *block = *known;
  return bpf_map_delete_elem(&live, &key) == 0;
}

/* Whether an address could be entered. One that is there already was freed where we did not see it. */
static __always_inline int enter_address(struct context* c, __u64 address, const struct memory_block* block) {
  struct memory_address key = {.tgid = c->tgid, .image = c->image, .address = address};
  if (bpf_map_update_elem(&live, &key, block, BPF_NOEXIST) == 0) return 1;
  struct memory_block earlier;
  if (!take_address(c, address, &earlier)) return 0;
  __sync_fetch_and_add(&c->process->missed_frees, 1);
  take_back(c, &earlier);
  return bpf_map_update_elem(&live, &key, block, BPF_NOEXIST) == 0;
}

/* A block whose realloc failed, or never came to its end, is live as before. */
static __always_inline void restore_old(struct context* c, struct memory_call* call) {
  if (!call->old_known) return;
  call->old_known = 0;
  struct memory_block old = call->old_block;
  if (enter_address(c, call->old, &old)) return;
  take_back(c, &old);
  lose(c, old.size);
}

/* The user stack of the current task into the CPU's scratch, and its key. Tasks of this program can preempt each other
 * on a CPU, never run at the same time on it: whoever finds another's mark afterwards starts again, once. */
static __always_inline int read_user_stack(struct context* c, struct scratch* s, struct watched_process* process,
                                           __u64 caller, struct stack_key* key) {
  for (int attempt = 0; attempt < 2; attempt++) {
    *(volatile __u64*)&s->clock = c->pid_tgid;
    s->walk.regs = (struct user_regs){.ip = caller, .sp = c->sp, .fp = c->fp};
    s->walk.exact = 0;
    __u32 user = walk_user_stack(s, process, c->exec_id);
    key->process.tgid = c->tgid;
    key->process.start_ticks = process->start_ticks;
    key->hash = join_hashes(hash_frames(s->frames, user, c->exec_id), 0);
    s->header.key = *key;
    s->header.exec_id = c->exec_id;
    s->header.user = user;
    s->header.kernel = 0;
    if (*(volatile __u64*)&s->clock != c->pid_tgid) continue;
    if (user >= max_half_stack) __sync_fetch_and_add(&process->truncated, 1);
    return 1;
  }
  return 0;
}

static __always_inline void tell_frames_once(struct context* c, struct scratch* s, struct watched_process* process,
                                             struct stack_count* count) {
  if (!process->counted) process->counted = 1;
  if (count->delivered || *(volatile __u64*)&s->clock != c->pid_tgid) return;
  tell_frames(s, process, count);
  /* Somebody else's frames may have come in between: told again next time. */
  if (*(volatile __u64*)&s->clock != c->pid_tgid) count->delivered = 0;
}

/* An address was handed out to the code at `caller`. */
static __always_inline void count_block(struct context* c, __u64 address, __u64 size, __u64 caller) {
  struct watched_process* process = bpf_map_lookup_elem(&watched, &c->tgid);
  struct scratch* s = get_scratch();
  if (!process || !s || process->start_ticks != c->process->start_ticks) return;
  struct stack_key key;
  if (!read_user_stack(c, s, process, caller, &key)) return lose(c, size);
  struct stack_count* count = get_count(&key);
  if (!count) return lose(c, size);
  struct memory_block block = {.hash = key.hash, .size = size};
  if (!enter_address(c, address, &block)) return lose(c, size);
  __sync_fetch_and_add(&count->values[0], size);
  tell_frames_once(c, s, process, count);
}

/* A call that is in flight makes at most a few calls of its own; one with more than these was left for good. */
enum { kMaxNestedCalls = 64 };

/* Whether this is a call from within the call in flight. */
static __always_inline int is_nested(struct context* c, struct memory_call* call) {
  if (!call->role || call->image != c->image) return 0;
  /* Of operator new nothing has been counted yet: the allocation that it makes counts in its place. That also holds
   * where it left by an exception, which we do not see. */
  if (call->role == kMemoryNew) return 0;
  if (c->sp > call->sp || ++call->nested > kMaxNestedCalls) return 0;
#if RETURN_SLOT_BYTES
  __u64 slot = 0;
  __u64 hijacked = trampoline();
  if (hijacked && bpf_probe_read_user(&slot, sizeof(slot), (void*)call->sp) == 0) return slot == hijacked;
#endif
  return c->sp < call->sp;
}

static __always_inline struct memory_call* get_call(struct context* c) {
  struct memory_call* call = bpf_map_lookup_elem(&calls, &c->pid_tgid);
  if (call) return call;
  struct memory_call none = {};
  bpf_map_update_elem(&calls, &c->pid_tgid, &none, BPF_NOEXIST);
  return bpf_map_lookup_elem(&calls, &c->pid_tgid);
}

static __always_inline __u64 return_address(struct context* c) {
  __u64 caller = 0;
  if (bpf_probe_read_user(&caller, sizeof(caller), (void*)c->sp)) return 0;
  return caller;
}

static __always_inline void on_free(struct context* c, __u64 address) {
  if (!address) return;
  struct memory_call* call = get_call(c);
  if (call && c->process->mappings) {
    call->free_sp = c->sp;
    call->free_caller = return_address(c);
  }
  if (call && is_nested(c, call)) return;
  struct memory_block block;
  if (take_address(c, address, &block)) {
    take_back(c, &block);
    if (call) call->freed = address;
  } else if (!call || call->freed != address) {
    __sync_fetch_and_add(&c->process->unknown_frees, 1);
  }
}

/* A product that is too large for any allocator is taken as such. */
static __always_inline __u64 product(__u64 a, __u64 b) {
  __u64 most = ~0ULL;
  asm volatile("" : "+r"(most)); /* or the compiler makes a 128-bit product of it, which BPF has not */
  if (((a | b) >> 32) && a && b > most / a) return ~0ULL;
  return a * b;
}

static __always_inline void on_allocate(struct context* c, struct pt_regs* ctx, __u32 role) {
  __u64 size = PT_REGS_PARM1(ctx);
  __u64 old = 0;
  __u64 result = 0;
  if (role == kMemoryCalloc) {
    size = product(size, PT_REGS_PARM2(ctx));
  } else if (role == kMemoryAligned) {
    size = PT_REGS_PARM2(ctx);
  } else if (role == kMemoryPosixMemalign) {
    result = size;
    size = PT_REGS_PARM3(ctx);
  } else if (role == kMemoryRealloc) {
    old = size;
    size = PT_REGS_PARM2(ctx);
  } else if (role == kMemoryReallocarray) {
    old = size;
    size = product(PT_REGS_PARM2(ctx), PT_REGS_PARM3(ctx));
  }
  struct memory_call* call = get_call(c);
  if (!call) {
    /* No room for another thread: what the call does is not known. */
    if (size != ~0ULL) lose(c, size);
    return;
  }
  if (call->role) {
    if (is_nested(c, call)) return;
    if (call->role != kMemoryNew) __sync_fetch_and_add(&c->process->abandoned, 1);
    restore_old(c, call);
  }
  call->role = role;
  call->image = c->image;
  call->sp = c->sp;
  call->size = size;
  call->result = result;
  call->old = old;
  call->old_known = 0;
  call->nested = 0;
  if (role == kMemoryNew && c->process->mappings) call->caller = return_address(c);
  if (call->epoch != epoch) call->epoch = epoch;
  /* Once the allocator has freed the old address another thread may get it before this call returns. */
  if (old) call->old_known = take_address(c, old, &call->old_block);
}

/* `sp`: where the return address is or was. */
static __always_inline void on_returned(struct context* c, struct pt_regs* ctx, __u64 sp, __u64 caller, int from_new) {
  __u64 value = PT_REGS_RC(ctx);
  struct memory_call* call = bpf_map_lookup_elem(&calls, &c->pid_tgid);
  if (!call || !call->role || call->sp != sp || (call->role == kMemoryNew) != from_new) return;
  __u32 role = call->role;
  __u64 size = call->size;
  if (role == kMemoryPosixMemalign) {
    __u64 address = 0;
    if ((__u32)value == 0) bpf_probe_read_user(&address, sizeof(address), (void*)call->result);
    value = address;
  }
  if (call->old) {
    /* Nothing returned: it failed and the old block stays, unless freeing it was what was asked for. */
    if (!value && size) {
      restore_old(c, call);
    } else if (call->old_known) {
      struct memory_block old = call->old_block;
      take_back(c, &old);
    } else {
      __sync_fetch_and_add(&c->process->unknown_frees, 1);
    }
  }
  call->old_known = 0;
  call->role = 0;
  c->sp = sp + RETURN_SLOT_BYTES;
  if (value) count_block(c, value, size, caller);
}

/* At a `ret` instruction of operator new, or of what it jumps to at its end: nobody's return address is changed, so an
 * exception finds its way. The instruction belongs to the call in flight if the stack pointer is the one that it had.
 */
static __always_inline void on_new_return(struct context* c, struct pt_regs* ctx) {
  __u64 caller = 0;
  if (bpf_probe_read_user(&caller, sizeof(caller), (void*)c->sp)) return;
  on_returned(c, ctx, c->sp, caller, 1);
}

static __always_inline int on_probe(struct pt_regs* ctx, __u32 role) {
  struct context c;
  if (!begin(&c, ctx)) return 0;
  if (role == kMemoryNewReturn) {
    count_run(&c, &c.process->new_returns);
    on_new_return(&c, ctx);
    return end(&c);
  }
  count_run(&c, &c.process->calls);
  if (role == kMemoryFree) {
    on_free(&c, PT_REGS_PARM1(ctx));
  } else {
    on_allocate(&c, ctx, role);
  }
  return end(&c);
}

/* Since Linux 6.13 a program may have its stack in memory of its CPU instead of the task's. That is for programs which
 * nothing interrupts on their CPU; where the kernel can be preempted, one on user code can be, by another task in the
 * same program, which then writes over its stack. A program that can call another one has no such stack. */
struct {
  __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, __u32);
} nothing SEC(".maps");
const volatile __u32 never = 0;
#define ON_THE_STACK_OF_THE_TASK(ctx) \
  if (never) bpf_tail_call(ctx, &nothing, 0)

/* One program for all functions where the kernel passes a cookie, so that an object needs one link. */
SEC("uprobe")
int enter_any(struct pt_regs* ctx) {
  ON_THE_STACK_OF_THE_TASK(ctx);
  return on_probe(ctx, (__u32)bpf_get_attach_cookie(ctx));
}

#define PROBE(name, role)          \
  SEC("uprobe")                    \
  int name(struct pt_regs* ctx) {  \
    ON_THE_STACK_OF_THE_TASK(ctx); \
    return on_probe(ctx, role);    \
  }

PROBE(enter_malloc, kMemoryMalloc)
PROBE(enter_calloc, kMemoryCalloc)
PROBE(enter_aligned, kMemoryAligned)
PROBE(enter_posix_memalign, kMemoryPosixMemalign)
PROBE(enter_realloc, kMemoryRealloc)
PROBE(enter_reallocarray, kMemoryReallocarray)
PROBE(enter_free, kMemoryFree)
PROBE(enter_new, kMemoryNew)
PROBE(leave_new, kMemoryNewReturn)

SEC("uretprobe")
int leave(struct pt_regs* ctx) {
  ON_THE_STACK_OF_THE_TASK(ctx);
  struct context c;
  if (!begin(&c, ctx)) return 0;
  count_run(&c, &c.process->returns);
  on_returned(&c, ctx, c.sp - RETURN_SLOT_BYTES, PT_REGS_IP(ctx), 0);
  return end(&c);
}

/* Another program: other addresses. */
SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct* task) {
  __u32 tgid = task->tgid;
  struct memory_process* process = bpf_map_lookup_elem(&processes, &tgid);
  if (!process) return 0;
  process->exec_id = task->self_exec_id;
  process->execs++;
  return 0;
}

#include "bpf/mappings.bpf.h"
