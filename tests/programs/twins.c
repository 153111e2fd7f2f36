// SPDX-License-Identifier: Apache-2.0
// Waits in the same place below two functions that differ in nothing but where they return to.
#include "programs.h"

static const char kHelp[] =
    "twins [--seconds S]\n"
    "Sleeps by one system call, called by `longer` (4 ms) and `shorter` (1 ms) in turn. Their frames are alike, so "
    "that at\n"
    "each sleep the registers and the place on the stack are the same.\n"
    "  --seconds S    wall time (default 5)\n"
    "At the end, on SIGTERM and SIGINT too: one JSON line with where the code of both is and how long they slept.\n"
    "Example: twins --seconds 2\n";

#define TWIN(name) __attribute__((noipa, section("code_" #name)))
extern char __start_code_longer[], __stop_code_longer[], __start_code_shorter[], __stop_code_shorter[];

// Kept in memory and passed to neither: what differs must not be in a register.
static volatile uint64_t nap_ns;

OWN_FRAME static uint64_t nap(void) {
  struct timespec t = {.tv_sec = 0, .tv_nsec = (long)nap_ns};
  const uint64_t begun_ns = clock_ns(CLOCK_MONOTONIC);
  nanosleep(&t, NULL);
  return clock_ns(CLOCK_MONOTONIC) - begun_ns;
}

TWIN(longer) static uint64_t longer(void) {
  const uint64_t slept_ns = nap();
  work_sink += 1;  // after the call, so that it is not the last thing done here
  return slept_ns;
}
TWIN(shorter) static uint64_t shorter(void) {
  const uint64_t slept_ns = nap();
  work_sink += 1;
  return slept_ns;
}

int main(int argc, char** argv) {
  static const struct option kOptions[] = {
      {"seconds", required_argument, NULL, 's'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
  double seconds = 5;
  for (int option; (option = getopt_long(argc, argv, "h", kOptions, NULL)) != -1;) {
    if (option != 's') help_or_wrong_use(option, kHelp);
    seconds = number_option("--seconds", optarg, 0.01, DEFAULT_SECONDS);
  }
  no_arguments_left(argc, argv);
  catch_stop();
  const uint64_t end = clock_ns(CLOCK_MONOTONIC) + (uint64_t)(seconds * 1e9);
  uint64_t longer_ns = 0;
  uint64_t shorter_ns = 0;
  while (!stopped && clock_ns(CLOCK_MONOTONIC) < end) {
    nap_ns = 4 * NS_PER_MS;
    longer_ns += longer();
    nap_ns = NS_PER_MS;
    shorter_ns += shorter();
  }
  printf(
      "{\"program\":\"twins\",\"pid\":%d,\"longer\":{\"begin\":%llu,\"end\":%llu,\"slept_s\":%.6f},"
      "\"shorter\":{\"begin\":%llu,\"end\":%llu,\"slept_s\":%.6f}}\n",
      getpid(), (unsigned long long)(uintptr_t)__start_code_longer, (unsigned long long)(uintptr_t)__stop_code_longer,
      (double)longer_ns * 1e-9, (unsigned long long)(uintptr_t)__start_code_shorter,
      (unsigned long long)(uintptr_t)__stop_code_shorter, (double)shorter_ns * 1e-9);
  return 0;
}
