// SPDX-License-Identifier: Apache-2.0
// Deep stacks, or very many different ones.
#include "programs.h"

static const char kHelp[] =
    "deep [--frames N] [--distinct N] [--seconds S]\n"
    "Burns CPU in `bottom` below a recursion.\n"
    "  --frames N     frames of `descend` above it (default 100)\n"
    "  --distinct N   instead: N different stacks one after the other, again and again; each is a path of\n"
    "                 `left` and `right` that spells its number\n"
    "  --seconds S    wall time (default 5)\n"
    "At the end, on SIGTERM and SIGINT too: one JSON line with the CPU time and the stacks that were visited.\n"
    "Example: deep --distinct 20000 --seconds 10\n";

// A frame of `descend` takes under 64 bytes, a stack has 8 MB.
enum { kMaxFrames = 50000, kMaxDistinct = 1 << 24 };

OWN_FRAME static void bottom(uint64_t until) { WORK_UNTIL(until, 6364136223846793005ULL); }

OWN_FRAME static void descend(int frames, uint64_t until) {
  if (frames > 1)
    descend(frames - 1, until);
  else
    bottom(until);
  work_sink += 1;  // after the call, so that it is not the last thing done here
}

static void branch(unsigned number, int bits, uint64_t until);
OWN_FRAME static void left(unsigned number, int bits, uint64_t until) {
  branch(number, bits, until);
  work_sink += 2;
}
OWN_FRAME static void right(unsigned number, int bits, uint64_t until) {
  branch(number, bits, until);
  work_sink += 3;
}
static inline __attribute__((always_inline)) void branch(unsigned number, int bits, uint64_t until) {
  if (bits == 0)
    bottom(until);
  else if (number & 1)
    right(number >> 1, bits - 1, until);
  else
    left(number >> 1, bits - 1, until);
}

OWN_FRAME static uint64_t visit_all(unsigned distinct, uint64_t end) {
  int bits = 0;
  while ((1U << bits) < distinct) ++bits;
  uint64_t visits = 0;
  while (!stopped && clock_ns(CLOCK_MONOTONIC) < end)
    branch((unsigned)(visits++ % distinct), bits, 0);  // until 0: one helping of work
  return visits;
}

int main(int argc, char** argv) {
  static const struct option kOptions[] = {{"frames", required_argument, NULL, 'f'},
                                           {"distinct", required_argument, NULL, 'd'},
                                           {"seconds", required_argument, NULL, 's'},
                                           {"help", no_argument, NULL, 'h'},
                                           {NULL, 0, NULL, 0}};
  int frames = 100;
  int distinct = 0;
  double seconds = 5;
  for (int option; (option = getopt_long(argc, argv, "h", kOptions, NULL)) != -1;) {
    switch (option) {
      case 'f':
        frames = count_option("--frames", optarg, 1, kMaxFrames);
        break;
      case 'd':
        distinct = count_option("--distinct", optarg, 1, kMaxDistinct);
        break;
      case 's':
        seconds = number_option("--seconds", optarg, 0.01, DEFAULT_SECONDS);
        break;
      default:
        help_or_wrong_use(option, kHelp);
    }
  }
  no_arguments_left(argc, argv);
  catch_stop();
  const uint64_t end = clock_ns(CLOCK_MONOTONIC) + (uint64_t)(seconds * 1e9);
  uint64_t visits = 0;
  if (distinct > 0) {
    visits = visit_all((unsigned)distinct, end);
  } else {
    for (; !stopped && clock_ns(CLOCK_MONOTONIC) < end; ++visits) descend(frames, thread_cpu_ns() + 10 * NS_PER_MS);
  }
  const uint64_t stacks = distinct == 0 ? 1 : visits < (uint64_t)distinct ? visits : (uint64_t)distinct;
  printf("{\"program\":\"deep\",\"pid\":%d,\"frames\":%d,\"distinct\":%llu,\"visits\":%llu,\"cpu_s\":%.6f}\n", getpid(),
         distinct > 0 ? 0 : frames, (unsigned long long)stacks, (unsigned long long)visits, rusage_s(RUSAGE_SELF));
  return 0;
}
