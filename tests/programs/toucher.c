// SPDX-License-Identifier: Apache-2.0
// Touches fresh memory in two functions, page by page.
#include <sys/mman.h>

#include "programs.h"

static const char kHelp[] =
    "toucher [--mb N] [--seconds S]\n"
    "Touches N MB of fresh memory (default 200) in S seconds (default 2): three quarters in touch_much, the rest in\n"
    "touch_little; each page is given back at once.\n"
    "At the end one JSON line with the page faults that the kernel counted.\n"
    "Example: toucher --mb 500 --seconds 5\n";

enum { kPage = 4096, kPages = 64 };

// In the frame of whoever uses it.
#define TOUCH(pages)                                                     \
  do {                                                                   \
    for (long touched = 0; touched < (pages); ++touched) {               \
      ((volatile char*)memory)[(touched % kPages) * kPage] = 1;          \
      if (touched % kPages == kPages - 1) {                              \
        madvise((void*)(uintptr_t)memory, kPages* kPage, MADV_DONTNEED); \
      }                                                                  \
    }                                                                    \
    madvise((void*)(uintptr_t)memory, kPages* kPage, MADV_DONTNEED);     \
  } while (0)

OWN_FRAME static void touch_much(char* memory, long pages) { TOUCH(pages); }
OWN_FRAME static void touch_little(char* memory, long pages) { TOUCH(pages); }

int main(int argc, char** argv) {
  static const struct option kOptions[] = {{"mb", required_argument, NULL, 'm'},
                                           {"seconds", required_argument, NULL, 's'},
                                           {"help", no_argument, NULL, 'h'},
                                           {0}};
  double mb = 200, seconds = 2;
  int option;
  while ((option = getopt_long(argc, argv, "", kOptions, NULL)) != -1) {
    if (option == 'm') {
      mb = number_option("--mb", optarg, 1, 1e6);
    } else if (option == 's') {
      seconds = number_option("--seconds", optarg, 0.1, DEFAULT_SECONDS);
    } else {
      help_or_wrong_use(option, kHelp);
    }
  }
  no_arguments_left(argc, argv);
  catch_stop();
  char* memory = mmap(NULL, kPages * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    perror("toucher");
    return 1;
  }
  madvise(memory, kPages * kPage, MADV_NOHUGEPAGE);
  const long total = (long)(mb * 1e6 / kPage);
  const int rounds = (int)(seconds * 100);
  const uint64_t begin = clock_ns(CLOCK_MONOTONIC);
  for (int i = 0; i < rounds && !stopped; ++i) {
    touch_much(memory, total / rounds * 3 / 4);
    touch_little(memory, total / rounds / 4);
    sleep_until(begin + (uint64_t)(i + 1) * 10 * NS_PER_MS);
  }
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  printf("{\"faults\":%ld}\n", usage.ru_minflt + usage.ru_majflt);
  return 0;
}
