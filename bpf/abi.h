/* SPDX-License-Identifier: GPL-2.0-or-later OR Apache-2.0 */
/* What kernel and user side of the BPF programs share: every struct that crosses the border. C and C++. */
#ifndef STACKWATCH_BPF_ABI_H
#define STACKWATCH_BPF_ABI_H

#include <linux/types.h>

#ifdef __cplusplus
#include <cstddef>
namespace stackwatch::abi {
#endif

enum {
  /* Linux's own limit (kernel.perf_event_max_stack) is 127 for each of the two halves of a stack. */
  kMaxHalfStack = 127,
  /* The base rate comes in thousandths of a hertz: rates below 1 Hz stay exact. */
  kMilliHertz = 1000,
  /* Values that one program counts per stack. */
  kValuesPerStack = 2,
};

/* Hashes that stand for no frames at all; those of frames are above. */
enum {
  kBeforeAttachingHash = 1, /* a wait that had begun before its process was attached */
  kLastReservedHash = 15,
};

/* PF_KTHREAD in task flags. */
enum { kKernelThread = 0x00200000 };

/* ---- census ---- */

enum census_kind {
  kCensusProcess = 1,
  kCensusThread = 2,
};

/* One per thread that is no group leader. */
struct census_thread {
  __u32 kind;
  __s32 tgid; /* initial pid namespace */
  __s32 tid;
  __u32 reserved;
  __u64 on_cpu_ns;
  __u64 run_queue_ns;
  __u64 voluntary_switches;
  __u64 involuntary_switches;
  __u64 minor_faults;
  __u64 major_faults;
  __u64 read_bytes;
  __u64 write_bytes;
};

/* One per group leader: its own counters, and in `dead` those of the group's threads that have ended. */
struct census_process {
  struct census_thread self;
  struct {
    __u64 on_cpu_ns;
    __u64 voluntary_switches;
    __u64 involuntary_switches;
    __u64 minor_faults;
    __u64 major_faults;
    __u64 read_bytes;
    __u64 write_bytes;
  } dead;
  __u64 start_boottime_ns;
  __u64 exec_id;
  __u64 cgroup_set; /* address of the css_set: a token that changes with any cgroup of the process; never shown */
  __u64 cgroup_id;  /* of the v2 hierarchy; 1 is its root, which all v1 processes are in */
  __u64 rss_pages;
  __s32 parent_tgid;
  __s32 pid_in_ns; /* in the pid namespace of the reader */
  __s32 nice;
  __u32 policy;
  __u32 threads;
  __u32 euid;
  __u32 flags; /* task flags: PF_* */
  __u32 reserved;
  char comm[16];
};

/* ---- programs that begin ---- */

struct exec_event {
  __s32 tgid; /* initial pid namespace */
  char comm[16];
};

/* ---- counting stacks ---- */

/* Identity of a process on both sides: see ProcessKey. */
struct process_id {
  __u32 tgid;
  __u32 start_ticks; /* start_boottime / 10 ms, lower 32 bits: come round after 497 days */
};

enum { kStartTickNs = 10000000 };

enum watch_flags {
  kWatchChildren = 1, /* descendants are watched too */
  kWatchAdopted = 2,  /* put there by the kernel side because its parent has kWatchChildren */
  kWatchMappings = 4, /* memory: what it maps itself is counted too */
};

/* Value of the map of watched processes; key: tgid. Counters are totals. */
struct watched_process {
  __u32 start_ticks;
  __u32 flags;
  __u32 rate_mhz;           /* sampling: samples per 1000 s */
  __u32 counted;            /* 1 once anything was counted in it */
  struct process_id parent; /* where adopted: by whom */
  __u64 since_ns;           /* CLOCK_MONOTONIC: attached at */
  __u64 lost_map_full;      /* in the unit of the values */
  __u64 frames_late;
  __u64 truncated;
  __u64 unwind_failed;
  __u64 watch_full;
  __u64 unwind_incomplete; /* stacks that end before the thread's start */
  __u64 unwind_misses;     /* stacks that tell that the mappings are not known any more */
  __u64 exec_id;           /* of the program that was seen last */
  __u32 space;             /* 1 + its place in unwind_spaces; 0: none */
  __u32 space_generation;  /* that place may be another process's by now */
};

struct stack_key {
  struct process_id process;
  __u64 hash;
};

struct stack_count {
  __u64 values[kValuesPerStack];
  __u64 delivered; /* the frames went through the ring buffer */
};

/* Header of a ring buffer record; `user + kernel` addresses follow, user frames first, leaf first in each half. */
struct stack_frames {
  struct stack_key key;
  __u64 exec_id;
  __u32 user;
  __u32 kernel;
};

/* ---- unwinding ---- */

enum {
  kUnwindSpaces = 4096, /* processes: as many as can be attached */
  kUnwindTables = 4096, /* object files */
  kUnwindFanOut = 256,  /* entries of a block */
  kUnwindPivots = 16,   /* of a block: each stands for as many entries */
  kUnwindDepth = 3,     /* levels of blocks: 16 million rows */
  kUnwindMostMappings = 4095,
};

/* A table is a tree of blocks, block 0 its root: an entry of a leaf holds a rule (core/unwind_table.h), one of another
 * block the number of a block. Ascending addresses; unused entries at the end have the highest. */
struct unwind_entry {
  __u32 address;
  __u32 value;
};
/* The pivots are the addresses of every 16th entry: a search then reads three cache lines of a block and not six, and
 * at 99 Hz none of them is in a cache. */
struct unwind_block {
  __u32 pivots[kUnwindPivots];
  struct unwind_entry entries[kUnwindFanOut];
};

enum unwind_mapping_kind {
  kUnwindByFrame = 0, /* code without a file: frame pointers */
  kUnwindByTable = 1,
  kUnwindPending = 2, /* there is no table yet */
};

/* Executable mappings of a process, ascending. The first is none: its `start` is the exec id (0: any), its `end` the
 * generation, its `base` the pages of code that the process had (mm->exec_vm; 0: not known), its `depth` the largest
 * power of two that is not above the number of mappings. */
struct unwind_mapping {
  __u64 start;
  __u64 end;
  __u64 base; /* address in the table = address - base */
  __u32 table;
  __u16 kind;
  __u16 depth; /* of its table */
};

/* As UnwindKind and FrameKind in core/unwind_table.h. */
enum unwind_kind {
  kRuleNone = 0,
  kRuleEnd,
  kRuleStack,
  kRuleFrame,
  kRuleStackDeref,
  kRuleFrameDeref,
  kRulePlt,
  kRuleSignal,
  kRuleStackDerefNext,
  kRuleUnknown,
};
enum frame_kind {
  kFrameSame = 0,
  kFrameSaved,
  kFrameLost,
  kFrameAt,
};

/* ---- off-CPU time ---- */

enum wait_flags {
  kWaitPreempted = 1, /* wanted to go on: all of its wait is for a CPU */
};

/* A thread's last wait; key: tid. */
struct thread_wait {
  struct stack_key key;
  __u64 start_ns;     /* CLOCK_MONOTONIC; 0: there was none yet */
  __u64 total_ns;     /* its length; 0: it goes on */
  __u64 run_delay_ns; /* sched_info.run_delay when it began */
  __u32 flags;
  __u32 reserved;
};

/* What the iterator tells of each wait that is not in the counts. */
struct open_wait {
  struct stack_key key;
  __u64 blocked_ns;
  __u64 run_queue_ns;
};

/* ---- memory ---- */

/* As AllocatorRole, moved up by one: 0 is no call in flight. */
enum memory_role {
  kMemoryMalloc = 1,
  kMemoryCalloc,
  kMemoryAligned,
  kMemoryPosixMemalign,
  kMemoryRealloc,
  kMemoryReallocarray,
  kMemoryFree,
  kMemoryNew,
  kMemoryNewReturn,
};

/* A process whose probes are all in; key: tgid. Counters are totals. */
struct memory_process {
  __u32 start_ticks;
  __u32 execs; /* other programs that it has executed */
  __u64 exec_id;
  __u64 calls;       /* entries seen */
  __u64 returns;     /* seen by return probes */
  __u64 new_returns; /* seen by probes on `ret` instructions */
  __u64 spent_ns;    /* in our programs, estimated from one run in 64 */
  __u64 unknown_frees;
  __u64 missed_frees;  /* addresses that were returned again while they were live */
  __u64 abandoned;     /* calls into the allocator that did not return */
  __u64 lost_map_full; /* bytes that were allocated and are not counted */
  __u64 lost_frees;    /* bytes that were freed and could not be taken away */
  __u64 mappings;      /* 1: what it maps itself is counted too */
};

struct memory_address {
  __u32 tgid;
  __u32 image; /* changes with exec */
  __u64 address;
};

/* A live allocation. */
struct memory_block {
  __u64 hash; /* of its stack */
  __u64 size;
};

/* The call into the allocator that a thread is in. */
struct memory_call {
  __u32 role; /* 0: none */
  __u32 image;
  __u32 old_known;
  __u32 nested; /* calls within it so far */
  __u32 epoch;  /* when it was used last */
  __u32 reserved;
  __u64 sp; /* at its first instruction */
  __u64 size;
  __u64 result; /* posix_memalign: where the address is written to */
  __u64 old;    /* realloc: the address that it was given */
  __u64 freed;  /* the last address that was taken away: operator delete may pass it on to free */
  struct memory_block old_block;
  /* Only where mappings are counted: functions that have no return probe are known by what they return to. */
  __u64 caller;      /* of operator new */
  __u64 free_sp;     /* at the last free */
  __u64 free_caller; /* of it */
};

/* ---- mappings ---- */

enum mapping_kind {
  kMappingEntered = 1, /* there now: replaces what was there */
  kMappingLeaving,     /* asked to go; may go to others from now on */
  kMappingLeft,        /* what the thread asked for was done */
  kMappingStays,       /* … was refused */
};

enum mapping_flags {
  kMappingFixed = 1,   /* meant to replace what was there */
  kMappingOwnFree = 2, /* the allocator's own: nobody expects it to be known */
};

/* What the kernel side tells of calls of mmap, munmap and mremap, in the order in which they came. */
struct mapping_event {
  struct stack_key key; /* the hash only of what entered */
  __u64 thread;         /* pid_tgid */
  __u64 address;
  __u64 length; /* whole pages */
  __u32 image;
  __u16 kind;
  __u16 flags;
};

/* A call of one of the three that is in flight; key: pid_tgid. */
struct mapping_call {
  __u64 number;
  __u64 address;
  __u64 length;
  __u64 new_length; /* mremap */
  __u64 flags;
};

#ifdef __cplusplus
}  // namespace stackwatch::abi

namespace stackwatch::abi {
static_assert(sizeof(census_thread) == 80);
static_assert(sizeof(census_process) == 80 + 56 + 40 + 32 + 16);
static_assert(offsetof(census_process, comm) == 208);
static_assert(sizeof(watched_process) == 104);
static_assert(sizeof(unwind_block) == 2048 + 64);
static_assert(sizeof(unwind_mapping) == 32);
static_assert(offsetof(watched_process, lost_map_full) == 32);
static_assert(sizeof(exec_event) == 20);
static_assert(sizeof(stack_key) == 16);
static_assert(sizeof(stack_count) == 24);
static_assert(sizeof(stack_frames) == 32);
static_assert(sizeof(thread_wait) == 48);
static_assert(sizeof(open_wait) == 32);
static_assert(sizeof(memory_process) == 96);
static_assert(sizeof(memory_address) == 16);
static_assert(sizeof(memory_block) == 16);
static_assert(sizeof(memory_call) == 104);
static_assert(sizeof(mapping_event) == 48);
static_assert(sizeof(mapping_call) == 40);
}  // namespace stackwatch::abi
#endif

#endif
