// SPDX-License-Identifier: Apache-2.0
// Many processes of one name that all restart at once, again and again.
#include <sys/wait.h>

#include "programs.h"

static const char kHelp[] =
    "herd [--count N] [--every S] [--cores C] [--seconds S]\n"
    "N processes named herd that together burn C cores; every S seconds all are killed and started anew at once.\n"
    "  --count N     processes, besides the one that keeps them (default 200; its name is herd-keeper)\n"
    "  --every S     between two restarts (default 10)\n"
    "  --cores C     CPU time that all of them use per second (default 0.5)\n"
    "  --seconds S   wall time (default 60)\n"
    "At the end, on SIGTERM and SIGINT too: one JSON line with the restarts and the CPU time of all members.\n"
    "Example: herd --count 200 --every 5 --seconds 30\n";

enum { kMaxCount = 2000 };

OWN_FRAME static void graze(uint64_t until) { WORK_UNTIL(until, 6364136223846793005ULL); }

// A piece of 1 ms of work, as often as its part of the cores asks for. Phases differ, so that they are not due at once.
_Noreturn static void be_member(const char* period_us, const char* index) {
  const uint64_t period = (uint64_t)number_option("period", period_us, 1, 1e9) * 1000;
  uint64_t next = clock_ns(CLOCK_MONOTONIC) + period * (uint64_t)count_option("index", index, 0, kMaxCount) / kMaxCount;
  for (;; next += period) {
    sleep_until(next);
    graze(thread_cpu_ns() + NS_PER_MS);
  }
}

static bool start_all(pid_t* members, int count, const char* path, const char* period_us) {
  const pid_t self = getpid();
  for (int i = 0; i < count; ++i) {
    members[i] = fork();
    if (members[i] < 0) return false;
    if (members[i] > 0) continue;
    die_with(self, SIGKILL);
    char index[16];
    snprintf(index, sizeof index, "%d", i);
    execl(path, "herd", "--member", period_us, index, (char*)NULL);
    _exit(127);
  }
  return true;
}

static void end_all(pid_t* members, int count) {
  for (int i = 0; i < count; ++i) {
    if (members[i] > 0) kill(members[i], SIGKILL);
  }
  while (wait(NULL) > 0 || errno == EINTR) {
  }
  memset(members, 0, (size_t)count * sizeof *members);
}

int main(int argc, char** argv) {
  if (argc == 4 && strcmp(argv[1], "--member") == 0) be_member(argv[2], argv[3]);
  static const struct option kOptions[] = {
      {"count", required_argument, NULL, 'n'}, {"every", required_argument, NULL, 'e'},
      {"cores", required_argument, NULL, 'c'}, {"seconds", required_argument, NULL, 's'},
      {"help", no_argument, NULL, 'h'},        {NULL, 0, NULL, 0}};
  int count = 200;
  double every_s = 10, cores = 0.5, seconds = 60;
  for (int option; (option = getopt_long(argc, argv, "h", kOptions, NULL)) != -1;) {
    switch (option) {
      case 'n':
        count = count_option("--count", optarg, 1, kMaxCount);
        break;
      case 'e':
        every_s = number_option("--every", optarg, 0.1, 86400);
        break;
      case 'c':
        cores = number_option("--cores", optarg, 0.001, 64);
        break;
      case 's':
        seconds = number_option("--seconds", optarg, 0.1, 30 * 86400);
        break;
      default:
        help_or_wrong_use(option, kHelp);
    }
  }
  no_arguments_left(argc, argv);
  // By its own path, not /proc/self/exe: that would name the members "exe".
  static char path[4096];
  if (readlink("/proc/self/exe", path, sizeof path - 1) <= 0) {
    perror("herd: /proc/self/exe");
    return 1;
  }
  prctl(PR_SET_NAME, "herd-keeper");
  catch_stop();
  char period_us[24];
  snprintf(period_us, sizeof period_us, "%llu", (unsigned long long)(1000.0 * count / cores));
  static pid_t members[kMaxCount];
  const uint64_t end = clock_ns(CLOCK_MONOTONIC) + (uint64_t)(seconds * 1e9);
  int generations = 0;
  bool good = true;
  while (good && !stopped && clock_ns(CLOCK_MONOTONIC) < end) {
    const uint64_t next = clock_ns(CLOCK_MONOTONIC) + (uint64_t)(every_s * 1e9);
    good = start_all(members, count, path, period_us);
    if (!good) perror("herd: fork");
    ++generations;
    sleep_until(next < end ? next : end);
    end_all(members, count);
  }
  printf("{\"program\":\"herd\",\"pid\":%d,\"count\":%d,\"generations\":%d,\"cpu_s\":%.6f}\n", getpid(), count,
         generations, rusage_s(RUSAGE_CHILDREN));
  return good ? 0 : 1;
}
