// SPDX-License-Identifier: Apache-2.0
// Processes that do nothing, as many as asked for.
#include <sys/wait.h>

#include "programs.h"

static const char kHelp[] =
    "sleeper [--count N] [--seconds S]\n"
    "Forks N processes that sleep. Prints a JSON line when all are there; ends them on SIGTERM, SIGINT, its own death\n"
    "or after S seconds.\n"
    "  --count N     processes besides itself (default 0: only itself)\n"
    "  --seconds S   wall time (default 3600)\n"
    "Example: sleeper --count 200\n";

int main(int argc, char** argv) {
  static const struct option kOptions[] = {{"count", required_argument, NULL, 'n'},
                                           {"seconds", required_argument, NULL, 's'},
                                           {"help", no_argument, NULL, 'h'},
                                           {NULL, 0, NULL, 0}};
  int count = 0;
  double seconds = DEFAULT_SECONDS;
  for (int option; (option = getopt_long(argc, argv, "h", kOptions, NULL)) != -1;) {
    switch (option) {
      case 'n':
        count = count_option("--count", optarg, 0, 30000);
        break;
      case 's':
        seconds = number_option("--seconds", optarg, 0.01, DEFAULT_SECONDS);
        break;
      default:
        help_or_wrong_use(option, kHelp);
    }
  }
  no_arguments_left(argc, argv);
  const pid_t self = getpid();
  const uint64_t end = clock_ns(CLOCK_MONOTONIC) + (uint64_t)(seconds * 1e9);
  pid_t* children = calloc((size_t)count + 1, sizeof *children);
  if (children == NULL) {
    perror("sleeper");
    return 1;
  }
  int forked = 0;
  for (; forked < count; ++forked) {
    children[forked] = fork();
    if (children[forked] < 0) break;
    if (children[forked] == 0) {
      die_with(self, SIGKILL);
      while (true) pause();
    }
  }
  catch_stop();
  const int error = errno;
  const bool good = forked == count;
  if (good) {
    printf("{\"program\":\"sleeper\",\"pid\":%d,\"count\":%d}\n", self, forked);
    fflush(stdout);
    sleep_until(end);
  } else {
    fprintf(stderr, "sleeper: cannot fork more than %d: %s\n", forked, strerror(error));
  }
  for (int i = 0; i < forked; ++i) kill(children[i], SIGKILL);
  while (wait(NULL) > 0 || errno == EINTR) {
  }
  free(children);
  return good ? 0 : 1;
}
