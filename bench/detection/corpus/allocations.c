// SPDX-License-Identifier: Apache-2.0
// A target of the corpus (record.sh): a server that allocates and frees all the time, with a leak or a cache. SIGUSR1
// makes the change of its case; at its end it tells how much that was.
#include <math.h>

#include "programs.h"

static const char kHelp[] =
    "allocations --case NAME --seed N [--rate BYTES]\n"
    "Opens and closes sessions until SIGTERM. SIGUSR1 begins the case:\n"
    "  leak    --rate bytes a second are never freed\n"
    "  cache   a full cache, whose oldest entry went for each new one, keeps them all: --rate bytes a second\n"
    "  fill    a cache fills, ever more slowly, up to 20 MB, and keeps that\n"
    "  saw     garbage is collected each 5 to 20 s; from the start on\n"
    "Example: allocations --case leak --rate 100000 --seed 7\n";

enum { kSessions = 512, kCacheEntries = 4096, kGarbage = 65536 };
#define STEP_NS (10 * NS_PER_MS)
#define FULL_BYTES 20e6
#define ENTRY_BYTES 1000

static const char* name = "leak";
static double rate = 100000;
static uint64_t random_state;
static void* sessions[kSessions];
static void* cache[kCacheEntries];
static void* garbage[kGarbage];
static size_t next_entry, garbage_count;
static double kept_bytes, fill_s, collect_s;
static volatile sig_atomic_t changed;

static bool is_case(const char* other) { return strcmp(name, other) == 0; }

static void on_change(int signal_number) {
  (void)signal_number;
  changed = 1;
}

static void* allocate(size_t bytes) {
  char* p = malloc(bytes);
  if (p == NULL) {
    perror("allocations");
    exit(1);
  }
  p[0] = 1;
  __asm__ volatile("" : "+r"(p) : : "memory");
  return p;
}

OWN_FRAME static void open_session(void) {
  const size_t slot = next_random(&random_state) % kSessions;
  free(sessions[slot]);
  sessions[slot] = allocate((size_t)random_between(&random_state, 100, 8000));
  work_sink ^= slot;
}

OWN_FRAME static void remember_request(size_t bytes) {
  void* lost = allocate(bytes);
  work_sink ^= (uint64_t)(uintptr_t)lost;
}

OWN_FRAME static void cache_insert(size_t bytes, bool evict) {
  if (evict) free(cache[next_entry]);
  cache[next_entry] = allocate(bytes);
  next_entry = (next_entry + 1) % kCacheEntries;
}

OWN_FRAME static void make_object(void) {
  if (garbage_count < kGarbage) garbage[garbage_count++] = allocate(1000);
  work_sink ^= garbage_count;
}

OWN_FRAME static void collect_garbage(void) {
  while (garbage_count > 0) free(garbage[--garbage_count]);
}

// Bytes that the case allocates in a step, in pieces of at least 100 bytes.
static void grow(double bytes) {
  static double owed;
  owed += bytes;
  const double piece = fmax(100, rate / 100);
  for (; owed >= piece; owed -= piece) {
    remember_request((size_t)piece);
    kept_bytes += piece;
  }
}

static void fill_cache(double age_s) {
  const double target = FULL_BYTES * (1 - exp(-age_s / fill_s));
  for (; kept_bytes + ENTRY_BYTES <= target; kept_bytes += ENTRY_BYTES) remember_request(ENTRY_BYTES);
}

static void use_cache(double step_s) {
  static double owed;
  for (owed += rate * step_s; owed >= ENTRY_BYTES; owed -= ENTRY_BYTES) {
    cache_insert(ENTRY_BYTES, !changed);
    if (changed) kept_bytes += ENTRY_BYTES;
  }
}

static void step(double step_s, double now_s, double age_s) {
  static double collected_s;
  if (next_random(&random_state) % 2) open_session();
  if (is_case("leak") && age_s >= 0) grow(rate * step_s);
  if (is_case("cache")) use_cache(step_s);
  if (is_case("fill") && age_s >= 0) fill_cache(age_s);
  if (!is_case("saw")) return;
  make_object();
  if (now_s - collected_s < collect_s) return;
  collect_garbage();
  collected_s = now_s;
}

static void run(void) {
  const uint64_t start_ns = clock_ns(CLOCK_MONOTONIC);
  uint64_t last_ns = start_ns, changed_ns = 0;
  while (!stopped) {
    sleep_until(last_ns + STEP_NS);
    const uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);
    if (changed && changed_ns == 0) changed_ns = now_ns;
    step(1e-9 * (double)(now_ns - last_ns), 1e-9 * (double)(now_ns - start_ns),
         changed_ns ? 1e-9 * (double)(now_ns - changed_ns) : -1);
    last_ns = now_ns;
  }
}

int main(int argc, char** argv) {
  static const struct option kOptions[] = {{"case", required_argument, NULL, 'c'},
                                           {"rate", required_argument, NULL, 'r'},
                                           {"seed", required_argument, NULL, 's'},
                                           {"help", no_argument, NULL, 'h'},
                                           {NULL, 0, NULL, 0}};
  for (int option; (option = getopt_long(argc, argv, "h", kOptions, NULL)) != -1;) {
    if (option == 'c') {
      name = optarg;
    } else if (option == 'r') {
      rate = number_option("--rate", optarg, 1000, 1e8);
    } else if (option == 's') {
      random_state = (uint64_t)number_option("--seed", optarg, 0, 4294967295.0);
    } else {
      help_or_wrong_use(option, kHelp);
    }
  }
  no_arguments_left(argc, argv);
  if (!is_case("leak") && !is_case("cache") && !is_case("fill") && !is_case("saw"))
    wrong_use("--case", "is none that there is");
  fill_s = random_between(&random_state, 15, 60);
  collect_s = random_between(&random_state, 5, 20);
  catch_stop();
  struct sigaction action = {.sa_handler = on_change, .sa_flags = SA_RESTART};
  sigaction(SIGUSR1, &action, NULL);
  run();
  printf("{\"changes\":[{\"functions\":[\"%s\"],\"kept_bytes\":%.0f}],\"cpu_s\":%.3f,\"planned_cpu_s\":0.0}\n",
         is_case("cache") ? "cache_insert"
         : is_case("saw") ? "make_object"
                          : "remember_request",
         kept_bytes, rusage_s(RUSAGE_SELF));
  return 0;
}
