// SPDX-License-Identifier: Apache-2.0
// Change at a steady rate: processes that come and go, programs, namespaces, mapped code, deep stacks.
#include <fcntl.h>
#include <link.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "programs.h"

static const char kHelp[] =
    "churn [--forks R] [--execs R] [--namespaces R] [--maps R] [--deep R] [--seconds S]\n"
    "Does each of these R times a second (default 0), evenly:\n"
    "  --forks R       fork a child; it ends at once, every tenth after up to a second\n"
    "  --execs R       fork a child that executes this program again, which ends likewise\n"
    "  --namespaces R  the same in new pid, mount, host name and IPC namespaces, as containers start\n"
    "  --maps R        map the code of this program once more, run a function of it there for 1 ms, unmap it\n"
    "  --deep R        run 1 ms below 300 frames\n"
    "  --seconds S     wall time (default 3600)\n"
    "At the end, on SIGTERM and SIGINT too: one JSON line with how often each was done, and how often it failed.\n"
    "Example: churn --forks 1000 --seconds 60\n";

enum { kForks, kExecs, kNamespaces, kMaps, kDeep, kKinds };
static const char* const kNames[kKinds] = {"forks", "execs", "namespaces", "maps", "deep"};
enum {
  kStepMs = 10,
  kFrames = 300,
  kChildArguments = 3,  // churn --child MS
};

struct counts {
  double rate[kKinds];
  double owed[kKinds];
  uint64_t done[kKinds];
  uint64_t failed[kKinds];
  uint64_t born;  // of all kinds
};

static void sleep_ms(unsigned ms) {
  const struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
  nanosleep(&time, NULL);
}

// Lives of children: most are shorter than anybody looks, some are there at a census.
static unsigned life_ms(const struct counts* c) { return c->born % 10 == 9 ? (unsigned)(c->born * 37 % 1000) : 0; }

static bool fork_one(const struct counts* c) {
  const pid_t self = getpid();
  const pid_t child = fork();
  if (child != 0) return child > 0;
  die_with(self, SIGKILL);
  sleep_ms(life_ms(c));
  _exit(0);
}

static bool exec_one(const struct counts* c, int namespaces) {
  char ms[16];
  snprintf(ms, sizeof ms, "%u", life_ms(c));
  const long child = syscall(SYS_clone, SIGCHLD | namespaces, NULL, NULL, NULL, NULL);
  if (child != 0) return child > 0;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  execl("/proc/self/exe", "churn", "--child", ms, (char*)NULL);
  _exit(127);
}

// Arithmetic on what it is given alone: it runs wherever its bytes are mapped.
OWN_FRAME static uint64_t mapped_work(uint64_t state, uint64_t steps) {
  for (uint64_t i = 0; i < steps; ++i) {
    state = state * UINT64_C(6364136223846793005) + 12345;
    state ^= state >> 29;
  }
  return state;
}

static int find_offset(struct dl_phdr_info* info, size_t size, void* result) {
  (void)size;
  const uintptr_t function = (uintptr_t)mapped_work;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr)* part = &info->dlpi_phdr[i];
    const uintptr_t begin = info->dlpi_addr + part->p_vaddr;
    if (part->p_type != PT_LOAD || function < begin || function >= begin + part->p_memsz) continue;
    *(size_t*)result = function - begin + part->p_offset;
    return 1;
  }
  return 0;
}

static bool map_one(void) {
  static size_t offset;
  if (offset == 0 && dl_iterate_phdr(find_offset, &offset) == 0) return false;
  const int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  struct stat status;
  if (fd < 0 || fstat(fd, &status) != 0) return false;
  char* code = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
  close(fd);
  if (code == MAP_FAILED) return false;
  uint64_t (*there)(uint64_t, uint64_t) = NULL;
  char* function = code + offset;
  memcpy(&there, &function, sizeof there);
  const uint64_t until = thread_cpu_ns() + NS_PER_MS;
  while (thread_cpu_ns() < until) work_sink = there(work_sink, WORK_STEPS);
  return munmap(code, (size_t)status.st_size) == 0;
}

OWN_FRAME static void descend(int frames, uint64_t until) {
  if (frames > 0)
    descend(frames - 1, until);
  else
    WORK_UNTIL(until, 2862933555777941757ULL);
  work_sink += 1;  // after the call, so that it is not the last thing done here
}

static bool do_one(struct counts* c, int kind) {
  if (kind <= kNamespaces) ++c->born;
  switch (kind) {
    case kForks:
      return fork_one(c);
    case kExecs:
      return exec_one(c, 0);
    case kNamespaces:
      return exec_one(c, CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC);
    case kMaps:
      return map_one();
    default:
      descend(kFrames, thread_cpu_ns() + NS_PER_MS);
      return true;
  }
}

static void run(struct counts* c, double seconds) {
  uint64_t next = clock_ns(CLOCK_MONOTONIC);
  const uint64_t end = next + (uint64_t)(seconds * 1e9);
  while (!stopped && next < end) {
    sleep_until(next);
    for (int kind = 0; kind < kKinds; ++kind) {
      for (c->owed[kind] += c->rate[kind] * kStepMs / 1000.0; c->owed[kind] >= 1 && !stopped; c->owed[kind] -= 1) {
        if (do_one(c, kind)) {
          ++c->done[kind];
        } else {
          ++c->failed[kind];
        }
      }
    }
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
    next += kStepMs * NS_PER_MS;
    // What a busy machine has no time for is made up for, but not more than a second of it.
    const uint64_t now = clock_ns(CLOCK_MONOTONIC);
    if (now > next + NS_PER_S) next = now;
  }
}

static void print_report(const struct counts* c) {
  printf("{\"program\":\"churn\",\"pid\":%d,\"cpu_s\":%.6f,\"children_cpu_s\":%.6f", getpid(), rusage_s(RUSAGE_SELF),
         rusage_s(RUSAGE_CHILDREN));
  for (int kind = 0; kind < kKinds; ++kind) {
    printf(",\"%s\":%llu,\"%s_failed\":%llu", kNames[kind], (unsigned long long)c->done[kind], kNames[kind],
           (unsigned long long)c->failed[kind]);
  }
  printf("}\n");
}

int main(int argc, char** argv) {
  if (argc == kChildArguments && strcmp(argv[1], "--child") == 0) {
    sleep_ms((unsigned)count_option("--child", argv[2], 0, 10000));
    return 0;
  }
  static const struct option kOptions[] = {{"forks", required_argument, NULL, kForks},
                                           {"execs", required_argument, NULL, kExecs},
                                           {"namespaces", required_argument, NULL, kNamespaces},
                                           {"maps", required_argument, NULL, kMaps},
                                           {"deep", required_argument, NULL, kDeep},
                                           {"seconds", required_argument, NULL, 's'},
                                           {"help", no_argument, NULL, 'h'},
                                           {NULL, 0, NULL, 0}};
  static struct counts counts;
  double seconds = DEFAULT_SECONDS;
  for (int option; (option = getopt_long(argc, argv, "h", kOptions, NULL)) != -1;) {
    if (option >= 0 && option < kKinds) {
      counts.rate[option] = number_option(kNames[option], optarg, 0, 10000);
    } else if (option == 's') {
      seconds = number_option("--seconds", optarg, 0.01, 30 * 86400);
    } else {
      help_or_wrong_use(option, kHelp);
    }
  }
  no_arguments_left(argc, argv);
  catch_stop();
  run(&counts, seconds);
  print_report(&counts);
  fflush(stdout);
  // Children that live a little longer end by themselves or with this process.
  return 0;
}
