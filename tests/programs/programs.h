// SPDX-License-Identifier: Apache-2.0
// What the target programs share: clocks, random numbers, signals, options. C11, header only.
#pragma once

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define UNUSED __attribute__((unused))
// A function with a frame of its own: never inlined, cloned, or merged with another of the same body.
#ifdef __clang__  // what is C++, in the sanitizers' build
#define OWN_FRAME __attribute__((noinline))
#else
#define OWN_FRAME __attribute__((noipa))
#endif

#define NS_PER_S UINT64_C(1000000000)
#define NS_PER_MS UINT64_C(1000000)

// No target outlives a test run that forgot it.
#define DEFAULT_SECONDS 3600.0

static volatile sig_atomic_t stopped;
static volatile uint64_t work_sink;

UNUSED static uint64_t clock_ns(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

// With a frame of its own, so that a sample inside the C library (which has no frame pointers) loses this caller and
// not the function whose time is measured.
UNUSED OWN_FRAME static uint64_t thread_cpu_ns(void) {
  uint64_t now = clock_ns(CLOCK_THREAD_CPUTIME_ID);
  return now;
}

// About 50 us of arithmetic on a machine of 3 GHz: the system call that reads the clock is then under 1 % of the time.
#define WORK_STEPS 16384

// The work itself, in the frame of whoever uses it: runs until the thread has used CPU time up to `until_ns` or the
// program is told to stop.
#define WORK_UNTIL(until_ns, multiplier)                    \
  do {                                                      \
    uint64_t work_state = work_sink | 1;                    \
    do {                                                    \
      for (int work_i = 0; work_i < WORK_STEPS; ++work_i) { \
        work_state = work_state * (multiplier) + 12345;     \
        work_state ^= work_state >> 29;                     \
      }                                                     \
      work_sink = work_state;                               \
    } while (!stopped && thread_cpu_ns() < (until_ns));     \
  } while (0)

UNUSED static void on_stop(int signal_number) {
  (void)signal_number;
  stopped = 1;
}

// SIGTERM, SIGINT and SIGALRM end the program through its normal end, with its report.
UNUSED static void catch_stop(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_stop;
  sigaction(SIGTERM, &action, NULL);
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGALRM, &action, NULL);
}

// In a child right after fork(): it does not outlive `parent`, not even if that has ended already.
UNUSED static void die_with(pid_t parent, int signal_number) {
  prctl(PR_SET_PDEATHSIG, signal_number);
  if (getppid() != parent) _exit(0);
}

// Sleeps until `until_ns` of CLOCK_MONOTONIC or until told to stop.
UNUSED static void sleep_until(uint64_t until_ns) {
  struct timespec t = {.tv_sec = (time_t)(until_ns / NS_PER_S), .tv_nsec = (long)(until_ns % NS_PER_S)};
  while (!stopped && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {
  }
}

UNUSED static double rusage_s(int who) {
  struct rusage usage;
  getrusage(who, &usage);
  return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

// --- random numbers: splitmix64, the same everywhere for the same seed ---

UNUSED static uint64_t next_random(uint64_t* state) {
  uint64_t z = (*state += 0x9e3779b97f4a7c15ULL);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

UNUSED static double random_between(uint64_t* state, double low, double high) {
  return low + (high - low) * (double)(next_random(state) >> 11) * 0x1p-53;
}

UNUSED static uint64_t fresh_seed(void) {
  uint64_t seed = 0;
  if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed) {
    perror("getrandom");
    exit(1);
  }
  return seed & 0xffffffff;  // short enough to type
}

// --- options ---

_Noreturn UNUSED static void wrong_use(const char* option, const char* why) {
  fprintf(stderr, "%s: %s: %s (see --help)\n", program_invocation_short_name, option, why);
  exit(2);
}

UNUSED static double number_option(const char* option, const char* text, double low, double high) {
  char* end = NULL;
  errno = 0;
  double value = strtod(text, &end);
  if (errno != 0 || end == text || *end != '\0' || !(value >= low && value <= high)) {
    char why[96];
    snprintf(why, sizeof why, "\"%.20s\" is not a number from %g to %g", text, low, high);
    wrong_use(option, why);
  }
  return value;
}

UNUSED static int count_option(const char* option, const char* text, int low, int high) {
  double value = number_option(option, text, low, high);
  if (value != (double)(int)value) wrong_use(option, "must be a whole number");
  return (int)value;
}

// What getopt_long gave is nothing that the program knows: --help ends well, all else is wrong use.
_Noreturn UNUSED static void help_or_wrong_use(int option, const char* help) {
  if (option == 'h') {
    fputs(help, stdout);
    exit(0);
  }
  fprintf(stderr, "%s: see --help\n", program_invocation_short_name);
  exit(2);
}

UNUSED static void no_arguments_left(int argc, char** argv) {
  if (optind < argc) wrong_use(argv[optind], "unexpected argument");
}
