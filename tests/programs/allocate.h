/* SPDX-License-Identifier: Apache-2.0 */
/* What the programs that allocate share: they do one step at each SIGUSR1 and tell how many bytes it left allocated.
 * Nothing here allocates itself: a step is exact to the byte. C and C++. */
#ifndef STACKWATCH_TESTS_PROGRAMS_ALLOCATE_H
#define STACKWATCH_TESTS_PROGRAMS_ALLOCATE_H

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

/* Keeps a value, and the compiler from knowing what becomes of it. */
static inline void* keep(void* address) {
  __asm__ volatile("" : "+r"(address) : : "memory");
  return address;
}

static inline size_t opaque(size_t value) {
  __asm__ volatile("" : "+r"(value));
  return value;
}

static inline void say(const char* name, long long expected) {
  char line[128];
  const int length = snprintf(line, sizeof line, "%s %lld\n", name, expected);
  if (write(STDOUT_FILENO, line, (size_t)length) != length) _exit(1);
}

static inline void block_signals(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigaddset(&set, SIGUSR2);
  sigprocmask(SIG_BLOCK, &set, NULL);
}

static inline void wait_for_signal(int expected) {
  sigset_t set;
  int number = 0;
  sigemptyset(&set);
  sigaddset(&set, expected);
  sigwait(&set, &number);
}
static inline void wait_for_go(void) { wait_for_signal(SIGUSR1); }

struct step {
  const char* name;
  long long (*run)(void); /* returns the bytes that it leaves allocated, less those that it freed of earlier ones */
};

/* Runs those steps whose names are asked for on the command line, or all. */
static inline int run_steps(const struct step* steps, int argc, char** argv) {
  block_signals();
  say("ready", 0);
  for (const struct step* step = steps; step->name; ++step) {
    int wanted = argc < 2;
    for (int i = 1; i < argc; ++i) wanted |= strcmp(argv[i], step->name) == 0;
    if (!wanted) continue;
    wait_for_go();
    say(step->name, step->run());
  }
  wait_for_go();
  say("end", 0);
  wait_for_go();
  return 0;
}

#endif
