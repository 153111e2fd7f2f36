/* SPDX-License-Identifier: Apache-2.0 */
/* Three functions allocate all sizes, from several threads; other threads free it. One of them leaks so many bytes per
 * second on top. At the end everything else is freed, and it tells what each function has left, by the program's own
 * count, with where the function is. */
#include "allocate.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

enum { kThreads = 3, kSlots = 1024, kSites = 3 };

static _Atomic(void*) slots[kThreads][kSlots]; /* filled by one thread, emptied by the next */
static atomic_int stop;
static atomic_llong leaked;

/* A section for each, so that the program knows where they begin and end. */
#define SITE(name)                                                                 \
  extern const char __start_code_##name[], __stop_code_##name[];                   \
  __attribute__((noipa, section("code_" #name))) static void* name(size_t bytes) { \
    void* p = malloc(bytes);                                                       \
    __asm__ volatile("" : "+r"(p) : : "memory");                                   \
    return p;                                                                      \
  }
SITE(site_a)
SITE(site_b)
SITE(site_c)

static void* (*const kAllocate[kSites])(size_t) = {site_a, site_b, site_c};

static void* churn(void* argument) {
  const size_t self = (size_t)argument;
  unsigned long long random = 12345 + self;
  while (!atomic_load(&stop)) {
    random = random * 6364136223846793005ULL + 1442695040888963407ULL;
    const size_t slot = (random >> 33) % kSlots;
    const size_t bytes = 1 + (random >> 45) % 3000;
    void* old = atomic_exchange(&slots[self][slot], kAllocate[(random >> 20) % kSites](bytes));
    free(old);
    free(atomic_exchange(&slots[(self + 1) % kThreads][(random >> 50) % kSlots], NULL));
  }
  return NULL;
}

static void leak(double seconds) {
  const struct timespec pause = {0, 1000000};
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  const double end = (double)now.tv_sec + (double)now.tv_nsec * 1e-9 + seconds;
  do {
    keep(site_b(333));
    atomic_fetch_add(&leaked, 333);
    nanosleep(&pause, NULL);
    clock_gettime(CLOCK_MONOTONIC, &now);
  } while ((double)now.tv_sec + (double)now.tv_nsec * 1e-9 < end);
}

/* By another signal than main: that one is sent to the process, and any thread that waits for it would take it. */
static void* start_later(void* argument) {
  wait_for_signal(SIGUSR2);
  return churn(argument);
}

static void tell_site(const char* name, const char* start, const char* end, long long bytes) {
  char line[160];
  const int length =
      snprintf(line, sizeof line, "%s %lu %lu %lld\n", name, (unsigned long)start, (unsigned long)end, bytes);
  if (write(STDOUT_FILENO, line, (size_t)length) != length) _exit(1);
}

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? atof(argv[1]) : 2;
  pthread_t threads[kThreads];
  block_signals();
  for (size_t i = 0; i < kThreads; ++i) pthread_create(&threads[i], NULL, start_later, (void*)i);
  /* Each has its arena before anybody counts. */
  for (size_t i = 0; i < kThreads; ++i) free(keep(malloc(100)));
  say("ready", 0);
  wait_for_go();
  for (size_t i = 0; i < kThreads; ++i) pthread_kill(threads[i], SIGUSR2);
  leak(seconds);
  atomic_store(&stop, 1);
  for (size_t i = 0; i < kThreads; ++i) pthread_join(threads[i], NULL);
  for (size_t i = 0; i < kThreads; ++i) {
    for (size_t slot = 0; slot < kSlots; ++slot) free(atomic_exchange(&slots[i][slot], NULL));
  }
  tell_site("site_a", __start_code_site_a, __stop_code_site_a, 0);
  tell_site("site_b", __start_code_site_b, __stop_code_site_b, atomic_load(&leaked));
  tell_site("site_c", __start_code_site_c, __stop_code_site_c, 0);
  say("end", 0);
  wait_for_go();
  return 0;
}
