// SPDX-License-Identifier: Apache-2.0
// Many threads in one process, or threads that come and go.
#include <pthread.h>
#include <stdatomic.h>

#include "programs.h"

static const char kHelp[] =
    "threads [--count N] [--cores C] [--seconds S] [--churn [--life-ms MS]]\n"
    "N threads that together burn C cores in thread_work and sleep otherwise.\n"
    "  --count N      threads that live at the same time (default 100)\n"
    "  --cores C      CPU time that all of them use per second (default 0.5)\n"
    "  --seconds S    wall time (default 5)\n"
    "  --churn        threads end and new ones take their place, all the time\n"
    "  --life-ms MS   life of a thread with --churn, under 1000 (default 200)\n"
    "At the end, on SIGTERM and SIGINT too: one JSON line with the CPU time of the process (getrusage).\n"
    "Example: threads --count 20 --churn --cores 1 --seconds 10\n";

static double cores = 0.5;
static int count = 100;
static uint64_t life_ns = 200 * NS_PER_MS;
static uint64_t end_ns;
static atomic_int alive;
static atomic_ullong burnt_ns;
static pthread_attr_t small_stack;

OWN_FRAME static void thread_work(uint64_t until) { WORK_UNTIL(until, 6364136223846793005ULL); }

// Burns the thread's part of a period around `mean_ns`, then sleeps the rest of it. The length is random: bursts that
// come at fixed distances keep step with a sampler, and each is then hit always or never.
OWN_FRAME static void one_period(uint64_t mean_ns) {
  uint64_t begin = clock_ns(CLOCK_MONOTONIC);
  uint64_t random = begin ^ ((uint64_t)(uintptr_t)&begin << 20);
  uint64_t period_ns = (uint64_t)random_between(&random, 0.6 * (double)mean_ns, 1.4 * (double)mean_ns);
  uint64_t cpu = thread_cpu_ns();
  thread_work(cpu + (uint64_t)((double)period_ns * cores / count));
  uint64_t rest = begin + period_ns;
  sleep_until(rest < end_ns ? rest : end_ns);
}

static void* stay(void* unused) {
  (void)unused;
  while (!stopped && clock_ns(CLOCK_MONOTONIC) < end_ns) one_period(NS_PER_S);
  burnt_ns += thread_cpu_ns();
  --alive;
  return NULL;
}

static void* come_and_go(void* unused) {
  (void)unused;
  one_period(life_ns);
  burnt_ns += thread_cpu_ns();
  --alive;
  return NULL;
}

static bool start(void* (*body)(void*)) {
  pthread_t thread;
  int error = pthread_create(&thread, &small_stack, body, NULL);
  if (error != 0) {
    fprintf(stderr, "threads: cannot start thread %d: %s\n", atomic_load(&alive) + 1, strerror(error));
    return false;
  }
  ++alive;
  return true;
}

static bool run(bool churn, uint64_t* started) {
  bool good = true;
  // Spread over a life (or a second), so that they neither start nor burn all at once.
  const uint64_t step_ns = (churn ? life_ns : NS_PER_S) / (uint64_t)count;
  while (good && !stopped && clock_ns(CLOCK_MONOTONIC) < end_ns) {
    const bool room = atomic_load(&alive) < count;
    if (room && (churn || *started < (uint64_t)count)) {
      good = start(churn ? come_and_go : stay);
      *started += good;
    }
    const uint64_t pause = !churn && *started >= (uint64_t)count ? 100 * NS_PER_MS : step_ns;
    sleep_until(clock_ns(CLOCK_MONOTONIC) + pause);
  }
  if (!good) stopped = 1;
  while (atomic_load(&alive) > 0) usleep(1000);
  return good;
}

int main(int argc, char** argv) {
  static const struct option kOptions[] = {{"count", required_argument, NULL, 'n'},
                                           {"cores", required_argument, NULL, 'c'},
                                           {"seconds", required_argument, NULL, 's'},
                                           {"churn", no_argument, NULL, 'x'},
                                           {"life-ms", required_argument, NULL, 'l'},
                                           {"help", no_argument, NULL, 'h'},
                                           {NULL, 0, NULL, 0}};
  double seconds = 5;
  bool churn = false;
  for (int option; (option = getopt_long(argc, argv, "h", kOptions, NULL)) != -1;) {
    switch (option) {
      case 'n':
        count = count_option("--count", optarg, 1, 30000);
        break;
      case 'c':
        cores = number_option("--cores", optarg, 0, 64);
        break;
      case 's':
        seconds = number_option("--seconds", optarg, 0.01, DEFAULT_SECONDS);
        break;
      case 'x':
        churn = true;
        break;
      case 'l':
        life_ns = (uint64_t)count_option("--life-ms", optarg, 1, 999) * NS_PER_MS;
        break;
      default:
        help_or_wrong_use(option, kHelp);
    }
  }
  no_arguments_left(argc, argv);
  catch_stop();
  pthread_attr_init(&small_stack);
  pthread_attr_setstacksize(&small_stack, 64 * 1024);  // 3,000 threads: 192 MB of addresses, little of it touched
  pthread_attr_setdetachstate(&small_stack, PTHREAD_CREATE_DETACHED);
  end_ns = clock_ns(CLOCK_MONOTONIC) + (uint64_t)(seconds * 1e9);

  uint64_t started = 0;
  bool good = run(churn, &started);
  printf(
      "{\"program\":\"threads\",\"pid\":%d,\"count\":%d,\"churn\":%s,\"started\":%llu,\"threads_cpu_s\":%.6f,\"cpu_s\":"
      "%.6f}\n",
      getpid(), count, churn ? "true" : "false", (unsigned long long)started, (double)atomic_load(&burnt_ns) * 1e-9,
      rusage_s(RUSAGE_SELF));
  return good ? 0 : 1;
}
