// SPDX-License-Identifier: Apache-2.0
// Threads that wait, each in a function of its own: asleep, for a lock, for a pipe, for a disk; or for a CPU.
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/perf_event.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#include "programs.h"

static const char kHelp[] =
    "waiter [--seconds S] [--starve N]\n"
    "Four threads wait for S seconds: asleep, for a lock, for a pipe, for a disk.\n"
    "  --seconds S    wall time (default 3)\n"
    "  --starve N     instead: N threads burn, all on one CPU, and wait for it\n"
    "At the end one JSON line: for each thread its wall and CPU time, how long it waited as it saw it itself, and "
    "where\n"
    "the code of its function is in memory.\n"
    "Example: waiter --seconds 5\n";

// A function of ours must be the frame that enters the kernel: the C library has no frame pointers, and a walk through
// it leaves out its caller.
static inline long enter_kernel(long number, long a, long b, long c, long d) {
#if defined(__x86_64__)
  long result;
  register long r10 __asm__("r10") = d;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
  return result;
#else
  return syscall(number, a, b, c, d);
#endif
}

// Each in a section of its own, so that the linker tells where it begins and ends.
#define WAITS(name) __attribute__((noipa, section("code_" #name)))
#define RANGE(name)                  \
  extern char __start_code_##name[]; \
  extern char __stop_code_##name[];

RANGE(asleep)
RANGE(lock)
RANGE(pipe)
RANGE(disk)
RANGE(cpu)

static uint64_t end_ns;
static atomic_int lock_word;
static int pipe_fds[2];
static int disk_fd = -1;

struct waiter {
  const char* name;
  void (*wait)(struct waiter* self);
  const char *begin, *end;
  uint64_t waited_ns, wall_ns, cpu_ns, scheduler_cpu_ns, seed;
};

static uint64_t now(void) { return clock_ns(CLOCK_MONOTONIC); }

WAITS(asleep) static void wait_asleep(struct waiter* self) {
  struct timespec t = {.tv_sec = 0, .tv_nsec = (long)random_between(&self->seed, 1e6, 4e7)};
  uint64_t begin = now();
  enter_kernel(SYS_nanosleep, (long)&t, 0, 0, 0);
  self->waited_ns += now() - begin;
}

WAITS(lock) static void wait_lock(struct waiter* self) {
  uint64_t begin = now();
  while (atomic_load(&lock_word) != 0) enter_kernel(SYS_futex, (long)&lock_word, FUTEX_WAIT_PRIVATE, 1, 0);
  self->waited_ns += now() - begin;
  atomic_store(&lock_word, 1);
}

WAITS(pipe) static void wait_pipe(struct waiter* self) {
  char byte = 0;
  uint64_t begin = now();
  enter_kernel(SYS_read, pipe_fds[0], (long)&byte, 1, 0);
  self->waited_ns += now() - begin;
}

WAITS(disk) static void wait_disk(struct waiter* self) {
  static char block[65536];
  uint64_t begin = now();
  enter_kernel(SYS_pwrite64, disk_fd, (long)block, sizeof block, 0);
  enter_kernel(SYS_fdatasync, disk_fd, 0, 0, 0);
  self->waited_ns += now() - begin;
}

WAITS(cpu) static void wait_cpu(struct waiter* self) {
  (void)self;
  uint64_t until = thread_cpu_ns() + 5 * NS_PER_MS;
  WORK_UNTIL(until, 6364136223846793005ULL);
}

// The scheduler's own CPU time begins at the wake-up where that is in an interrupt on an idle CPU (it saves itself a
// second look at the clock): up to an eighth more than there is for a thread that waits for a disk all the time. A
// software counter of perf begins and ends at the switch.
static int open_task_clock(void) {
  struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE, .size = sizeof attr, .config = PERF_COUNT_SW_TASK_CLOCK};
  return (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
}

static uint64_t task_clock_ns(int fd) {
  uint64_t ns = 0;
  if (fd >= 0 && read(fd, &ns, sizeof ns) == (ssize_t)sizeof ns) return ns;
  return thread_cpu_ns();
}

static void* run(void* argument) {
  struct waiter* self = argument;
  int task_clock = open_task_clock();
  uint64_t begin = now();
  uint64_t cpu_begin = task_clock_ns(task_clock);
  while (!stopped && now() < end_ns) self->wait(self);
  self->cpu_ns = task_clock_ns(task_clock) - cpu_begin;
  self->wall_ns = now() - begin;
  self->scheduler_cpu_ns = thread_cpu_ns();
  return NULL;
}

// Opens the lock and feeds the pipe, at random times.
static void serve(void) {
  uint64_t seed = fresh_seed();
  while (!stopped && now() < end_ns) {
    sleep_until(now() + (uint64_t)random_between(&seed, 5e6, 5e7));
    atomic_store(&lock_word, 0);
    enter_kernel(SYS_futex, (long)&lock_word, FUTEX_WAKE_PRIVATE, 1, 0);
    if (write(pipe_fds[1], "x", 1) != 1) exit(1);
  }
  // Whoever still waits is let go.
  atomic_store(&lock_word, 0);
  enter_kernel(SYS_futex, (long)&lock_word, FUTEX_WAKE_PRIVATE, 1000, 0);
  if (write(pipe_fds[1], "x", 1) != 1) exit(1);
}

static void stay_on_one_cpu(void) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET((size_t)sched_getcpu(), &one);
  sched_setaffinity(0, sizeof one, &one);
}

static int temporary_file(void) {
  char path[] = "/var/tmp/waiter-XXXXXX";  // on a disk: /tmp may be none
  int fd = mkstemp(path);
  if (fd >= 0) unlink(path);
  return fd;
}

enum { kMost = 64 };
static struct waiter waiters[kMost] = {
    {.name = "asleep", .wait = wait_asleep, .begin = __start_code_asleep, .end = __stop_code_asleep},
    {.name = "lock", .wait = wait_lock, .begin = __start_code_lock, .end = __stop_code_lock},
    {.name = "pipe", .wait = wait_pipe, .begin = __start_code_pipe, .end = __stop_code_pipe},
    {.name = "disk", .wait = wait_disk, .begin = __start_code_disk, .end = __stop_code_disk},
};

static void report(int count, uint64_t begin) {
  double main_s = 1e-9 * (double)(now() - begin) - 1e-9 * (double)thread_cpu_ns();
  printf("{\"main_off_cpu_s\":%.6f,\"threads\":[", main_s);
  for (int i = 0; i < count; ++i) {
    const struct waiter* w = &waiters[i];
    printf(
        "%s{\"name\":\"%s\",\"wall_s\":%.6f,\"cpu_s\":%.6f,\"scheduler_cpu_s\":%.6f,\"waited_s\":%.6f,\"begin\":%lu,"
        "\"end\":%lu}",
        i ? "," : "", w->name, 1e-9 * (double)w->wall_ns, 1e-9 * (double)w->cpu_ns, 1e-9 * (double)w->scheduler_cpu_ns,
        1e-9 * (double)w->waited_ns, (unsigned long)(uintptr_t)w->begin, (unsigned long)(uintptr_t)w->end);
  }
  printf("]}\n");
}

int main(int argc, char** argv) {
  static const struct option kOptions[] = {{"seconds", required_argument, NULL, 's'},
                                           {"starve", required_argument, NULL, 'n'},
                                           {"help", no_argument, NULL, 'h'},
                                           {0}};
  double seconds = 3;
  int starve = 0, option;
  while ((option = getopt_long(argc, argv, "", kOptions, NULL)) != -1) {
    if (option == 's') {
      seconds = number_option("--seconds", optarg, 0.1, DEFAULT_SECONDS);
    } else if (option == 'n') {
      starve = count_option("--starve", optarg, 1, kMost);
    } else {
      help_or_wrong_use(option, kHelp);
    }
  }
  no_arguments_left(argc, argv);
  catch_stop();
  uint64_t begin = now();
  end_ns = begin + (uint64_t)(seconds * 1e9);
  int count = starve > 0 ? starve : 4;
  for (int i = 0; i < starve; ++i) {
    waiters[i] = (struct waiter){.name = "cpu", .wait = wait_cpu, .begin = __start_code_cpu, .end = __stop_code_cpu};
  }
  atomic_store(&lock_word, 1);
  disk_fd = temporary_file();
  if (disk_fd < 0 || pipe(pipe_fds) != 0) {
    perror("waiter");
    return 1;
  }
  if (starve > 0) stay_on_one_cpu();
  pthread_t threads[kMost];
  for (int i = 0; i < count; ++i) {
    waiters[i].seed = fresh_seed();
    if (pthread_create(&threads[i], NULL, run, &waiters[i]) != 0) return 1;
  }
  if (starve == 0) serve();
  for (int i = 0; i < count; ++i) pthread_join(threads[i], NULL);
  report(count, begin);
  return 0;
}
