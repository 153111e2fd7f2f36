// SPDX-License-Identifier: Apache-2.0
// Forks children that burn CPU for a moment and exit.
#include <sys/wait.h>

#include "programs.h"

static const char kHelp[] =
    "forker [--rate R] [--burn-ms MS] [--seconds S] [--no-wait]\n"
    "Forks R children per second; each burns CPU in child_work and exits.\n"
    "  --rate R       children per second (default 10)\n"
    "  --burn-ms MS   CPU time of each (default 20)\n"
    "  --seconds S    wall time (default 5)\n"
    "  --no-wait      children stay zombies until the end (they are reaped then)\n"
    "At the end, on SIGTERM and SIGINT too: one JSON line with the CPU time of all children (RUSAGE_CHILDREN).\n"
    "Example: forker --rate 100 --burn-ms 5 --seconds 10\n";

OWN_FRAME static void child_work(uint64_t until) { WORK_UNTIL(until, 6364136223846793005ULL); }

OWN_FRAME static void run_child(pid_t parent, uint64_t burn_ns) {
  die_with(parent, SIGKILL);
  child_work(thread_cpu_ns() + burn_ns);
  _exit(0);
}

static uint64_t reap(int flags) {
  uint64_t reaped = 0;
  while (true) {
    pid_t pid = waitpid(-1, NULL, flags);
    if (pid > 0) {
      ++reaped;
    } else if (pid == 0 || errno != EINTR) {
      return reaped;
    }
  }
}

int main(int argc, char** argv) {
  static const struct option kOptions[] = {
      {"rate", required_argument, NULL, 'r'},    {"burn-ms", required_argument, NULL, 'b'},
      {"seconds", required_argument, NULL, 's'}, {"no-wait", no_argument, NULL, 'n'},
      {"help", no_argument, NULL, 'h'},          {NULL, 0, NULL, 0}};
  double rate = 10;
  double burn_ms = 20;
  double seconds = 5;
  bool wait_for_them = true;
  for (int option; (option = getopt_long(argc, argv, "h", kOptions, NULL)) != -1;) {
    switch (option) {
      case 'r':
        rate = number_option("--rate", optarg, 0.01, 10000);
        break;
      case 'b':
        burn_ms = number_option("--burn-ms", optarg, 0, 60000);
        break;
      case 's':
        seconds = number_option("--seconds", optarg, 0.01, DEFAULT_SECONDS);
        break;
      case 'n':
        wait_for_them = false;
        break;
      default:
        help_or_wrong_use(option, kHelp);
    }
  }
  no_arguments_left(argc, argv);
  catch_stop();
  const pid_t self = getpid();
  const uint64_t begin = clock_ns(CLOCK_MONOTONIC);
  const uint64_t end = begin + (uint64_t)(seconds * 1e9);
  uint64_t forked = 0;
  uint64_t refused = 0;
  uint64_t reaped = 0;
  for (uint64_t turn = 0;; ++turn) {
    const uint64_t due = begin + (uint64_t)((double)turn * 1e9 / rate);
    if (due >= end || stopped) break;
    sleep_until(due);
    if (stopped) break;
    pid_t child = fork();
    if (child == 0) run_child(self, (uint64_t)(burn_ms * 1e6));
    if (child > 0)
      ++forked;
    else
      ++refused;
    if (wait_for_them) reaped += reap(WNOHANG);
  }
  reaped += reap(0);
  printf(
      "{\"program\":\"forker\",\"pid\":%d,\"forked\":%llu,\"refused\":%llu,\"reaped\":%llu,\"children_cpu_s\":%.6f,"
      "\"cpu_s\":%.6f}\n",
      self, (unsigned long long)forked, (unsigned long long)refused, (unsigned long long)reaped,
      rusage_s(RUSAGE_CHILDREN), rusage_s(RUSAGE_SELF));
  return refused == 0 ? 0 : 1;
}
