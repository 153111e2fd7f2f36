// SPDX-License-Identifier: Apache-2.0
// Allocates and frees as fast as it can, a few calls deep, and tells what a pair of calls took. For measuring what
// watching an allocator costs.
#include "programs.h"

#include <pthread.h>

static double seconds = 3;
static long threads = 1;
static int depth = 8;
static long long total_pairs;
static uint64_t total_ns;
static pthread_mutex_t total_lock = PTHREAD_MUTEX_INITIALIZER;

OWN_FRAME static void pair(size_t bytes) {
  void* p = malloc(bytes);
  __asm__ volatile("" : "+r"(p) : : "memory");
  free(p);
}

OWN_FRAME static long long pairs_deep(int levels, uint64_t until) {
  if (levels > 0) {
    const long long pairs = pairs_deep(levels - 1, until);
    work_sink += 1;  // no tail call
    return pairs;
  }
  long long pairs = 0;
  while (!stopped && clock_ns(CLOCK_MONOTONIC) < until) {
    for (int i = 0; i < 200; ++i) pair(64);
    pairs += 200;
  }
  return pairs;
}

static void* run(void* unused) {
  (void)unused;
  const uint64_t begun = clock_ns(CLOCK_THREAD_CPUTIME_ID);
  const long long pairs = pairs_deep(depth, clock_ns(CLOCK_MONOTONIC) + (uint64_t)(seconds * (double)NS_PER_S));
  const uint64_t ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) - begun;
  pthread_mutex_lock(&total_lock);
  total_pairs += pairs;
  total_ns += ns;
  pthread_mutex_unlock(&total_lock);
  return NULL;
}

int main(int argc, char** argv) {
  bool wait = false;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (strcmp(argv[i], "--seconds") == 0) seconds = atof(argv[i + 1]);
    if (strcmp(argv[i], "--wait") == 0) wait = strcmp(argv[i + 1], "yes") == 0;
    if (strcmp(argv[i], "--depth") == 0) depth = atoi(argv[i + 1]);
    if (strcmp(argv[i], "--threads") == 0) threads = atol(argv[i + 1]);
  }
  if (wait) {
    // Until SIGUSR1: whoever measures has its probes in by then.
    sigset_t set;
    int number = 0;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    sigwait(&set, &number);
  }
  pthread_t others[64];
  for (long i = 1; i < threads && i < 64; ++i) pthread_create(&others[i], NULL, run, NULL);
  run(NULL);
  for (long i = 1; i < threads && i < 64; ++i) pthread_join(others[i], NULL);
  printf("%.1f ns of CPU per malloc and free, %lld pairs\n", (double)total_ns / (double)total_pairs, total_pairs);
  return 0;
}
