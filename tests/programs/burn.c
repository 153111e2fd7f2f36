// SPDX-License-Identifier: Apache-2.0
// Burns CPU in three functions, 70/20/10, in a chosen thread or process, and tells how much it was.
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "programs.h"

static const char kHelp[] =
    "burn --where PLACE [--seconds S] [--delay S] [--linger S]\n"
    "Burns CPU: 70 % in burn_most, 20 % in burn_some, 10 % in burn_few, each under burn_all.\n"
    "  --where PLACE   main, thread (started at once), late-thread (after the delay),\n"
    "                  child (forked at once), late-child (after the delay); default main\n"
    "  --seconds S     wall time of burning (default 5)\n"
    "  --linger S      wall time that the burning process sleeps behind it, so that its counts can be looked at "
    "(default 0)\n"
    "  --delay S       wall time before the burning begins (default 0; 1 for the late ones)\n"
    "At the end, on SIGTERM and SIGINT too: one JSON line with the CPU time of each function, measured.\n"
    "Example: burn --where late-thread --seconds 3\n";

enum { kFunctions = 3 };
static const char* const kNames[kFunctions] = {"burn_most", "burn_some", "burn_few"};
static const double kShares[kFunctions] = {0.70, 0.20, 0.10};

struct report {
  uint64_t function_ns[kFunctions];
  uint64_t total_ns;
  pid_t pid;
  pid_t tid;
};
struct job {
  uint64_t begin_ns;  // CLOCK_MONOTONIC
  uint64_t end_ns;
  uint64_t linger_ns;
  struct report* report;
};

OWN_FRAME static void burn_most(uint64_t until) { WORK_UNTIL(until, 6364136223846793005ULL); }
OWN_FRAME static void burn_some(uint64_t until) { WORK_UNTIL(until, 2862933555777941757ULL); }
OWN_FRAME static void burn_few(uint64_t until) { WORK_UNTIL(until, 3202034522624059733ULL); }

static void (*const kFunctionTable[kFunctions])(uint64_t) = {burn_most, burn_some, burn_few};

// Rounds of random length (40 to 80 ms), so that they do not keep step with a sampler.
OWN_FRAME static void burn_all(const struct job* job) {
  uint64_t random = (uint64_t)getpid();
  double owed[kFunctions] = {0};
  uint64_t last = thread_cpu_ns();
  while (!stopped && clock_ns(CLOCK_MONOTONIC) < job->end_ns) {
    double round = random_between(&random, 40.0, 80.0) * (double)NS_PER_MS;
    for (int i = 0; i < kFunctions; ++i) {
      owed[i] += round * kShares[i];
      if (owed[i] < 0) continue;
      kFunctionTable[i](last + (uint64_t)owed[i]);
      uint64_t now = thread_cpu_ns();
      job->report->function_ns[i] += now - last;
      owed[i] -= (double)(now - last);
      last = now;
    }
  }
  job->report->total_ns = thread_cpu_ns();
}

static void* burn_here(void* argument) {
  struct job* job = argument;
  sleep_until(job->begin_ns);
  job->report->pid = getpid();
  job->report->tid = gettid();
  burn_all(job);
  sleep_until(clock_ns(CLOCK_MONOTONIC) + job->linger_ns);
  return NULL;
}

static void burn_in_thread(struct job* job) {
  pthread_t thread;
  int error = pthread_create(&thread, NULL, burn_here, job);
  if (error != 0) {
    fprintf(stderr, "burn: cannot start a thread: %s\n", strerror(error));
    exit(1);
  }
  pthread_join(thread, NULL);
}

static void burn_in_child(struct job* job) {
  pid_t parent = getpid();
  pid_t child = fork();
  if (child < 0) {
    perror("burn: fork");
    exit(1);
  }
  if (child == 0) {
    die_with(parent, SIGTERM);
    burn_here(job);
    _exit(0);
  }
  while (waitpid(child, NULL, 0) < 0 && errno == EINTR) kill(child, SIGTERM);
}

static void print_report(const char* where, const struct report* report) {
  printf("{\"program\":\"burn\",\"where\":\"%s\",\"pid\":%d,\"tid\":%d,\"cpu_s\":%.6f,\"functions\":{", where,
         report->pid, report->tid, (double)report->total_ns * 1e-9);
  for (int i = 0; i < kFunctions; ++i)
    printf("%s\"%s\":%.6f", i ? "," : "", kNames[i], (double)report->function_ns[i] * 1e-9);
  printf("}}\n");
}

int main(int argc, char** argv) {
  static const struct option kOptions[] = {
      {"where", required_argument, NULL, 'w'}, {"seconds", required_argument, NULL, 's'},
      {"delay", required_argument, NULL, 'd'}, {"linger", required_argument, NULL, 'l'},
      {"help", no_argument, NULL, 'h'},        {NULL, 0, NULL, 0}};
  const char* where = "main";
  double seconds = 5;
  double delay = -1;
  double linger = 0;
  for (int option; (option = getopt_long(argc, argv, "h", kOptions, NULL)) != -1;) {
    switch (option) {
      case 'w':
        where = optarg;
        break;
      case 's':
        seconds = number_option("--seconds", optarg, 0.01, DEFAULT_SECONDS);
        break;
      case 'd':
        delay = number_option("--delay", optarg, 0, DEFAULT_SECONDS);
        break;
      case 'l':
        linger = number_option("--linger", optarg, 0, DEFAULT_SECONDS);
        break;
      default:
        help_or_wrong_use(option, kHelp);
    }
  }
  no_arguments_left(argc, argv);
  const bool late = strncmp(where, "late-", 5) == 0;
  const char* place = late ? where + 5 : where;
  if (delay < 0) delay = late ? 1 : 0;

  // Shared, because a child reports too.
  struct report* report = mmap(NULL, sizeof *report, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (report == MAP_FAILED) {
    perror("burn: mmap");
    return 1;
  }
  catch_stop();
  struct job job = {.report = report, .linger_ns = (uint64_t)(linger * 1e9)};
  job.begin_ns = clock_ns(CLOCK_MONOTONIC) + (uint64_t)(delay * 1e9);
  job.end_ns = job.begin_ns + (uint64_t)(seconds * 1e9);
  if (late) sleep_until(job.begin_ns);
  if (strcmp(place, "main") == 0 && !late)
    burn_here(&job);
  else if (strcmp(place, "thread") == 0)
    burn_in_thread(&job);
  else if (strcmp(place, "child") == 0)
    burn_in_child(&job);
  else
    wrong_use("--where", "must be main, thread, late-thread, child or late-child");
  print_report(where, report);
  return 0;
}
