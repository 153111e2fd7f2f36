// SPDX-License-Identifier: Apache-2.0
// A target of the corpus (record.sh): a server with a random mix of functions on a small part of a core. SIGUSR1 makes
// the change of its case; at its end it tells what it did, as it measured it itself.
#include <fcntl.h>
#include <math.h>
#include <pthread.h>

#include "programs.h"

static const char kHelp[] =
    "requests --case NAME --load X --seed N [--piece MS] [--points P] [--renamed] [--moved]\n"
    "Serves random requests until SIGTERM; then one JSON line: for each change its function and that function's\n"
    "measured shares before and after it, and the CPU time that it was to use.\n"
    "  --case NAME   what SIGUSR1 does: grow (--points more for a function), busy (a loop that takes forty pieces a\n"
    "                second), load (twice the requests), transient (5 s of +40 points), none; SIGUSR2 takes it back,\n"
    "                and the next SIGUSR1 is about another function;\n"
    "                periodic: a job of 2 to 6 s each 15 to 60 s, from the start on;\n"
    "                lock: four threads, and whoever holds their lock keeps it longer;\n"
    "                disk: synchronous writes to the file in the working directory \"log\"\n"
    "  --load X      part of a core (default 0.04)\n"
    "  --piece MS    CPU time of a piece of work: about the distance of two samples (default 1)\n"
    "  --points P    of share, for grow (default 5)\n"
    "  --renamed     the function has another name (as after a deployment)\n"
    "  --moved       another handler calls it\n"
    "Example: requests --case grow --points 5 --seed 7\n";

// clang-format off: it finds no form that it would leave as it is
#define FUNCTIONS(X)                          \
  X(parse_header, 6364136223846793005ULL)     \
  X(check_token, 3935559000370003845ULL)      \
  X(look_up_key, 3202034522624059733ULL)      \
  X(merge_rows, 2862933555777941757ULL)       \
  X(compress_chunk, 2685821657736338717ULL)   \
  X(encode_reply, 1181783497276652981ULL)     \
  X(hash_password, 7664345821815920749ULL)    \
  X(render_template, 4768777513237032717ULL)  \
  X(update_index, 1865811235122147685ULL)     \
  X(evict_entries, 8372773778140471301ULL)    \
  X(format_timestamp, 6906969069069069069ULL) \
  X(checksum_page, 5700357409661598721ULL)    \
  X(poll_queue, 2549297995355413925ULL)       \
  X(rebuild_cache, 3249286849523012805ULL)
// clang-format on
#define HANDLERS(X) X(handle_get) X(handle_put) X(handle_scan) X(handle_delete)

typedef void function_t(uint64_t until_cpu_ns);
typedef void handler_t(function_t* function, uint64_t until_cpu_ns);
#define DEFINE_FUNCTION(name, multiplier) \
  OWN_FRAME static void name(uint64_t until) { WORK_UNTIL(until, multiplier); }
FUNCTIONS(DEFINE_FUNCTION)
#define DEFINE_HANDLER(name)                                  \
  OWN_FRAME static void name(function_t* f, uint64_t until) { \
    f(until);                                                 \
    work_sink ^= until;                                       \
  }
HANDLERS(DEFINE_HANDLER)
#define FUNCTION_ENTRY(name, multiplier) {#name, name},
#define HANDLER_ENTRY(name) name,
static const struct {
  const char* name;
  function_t* run;
} kFunctions[] = {FUNCTIONS(FUNCTION_ENTRY)};
static handler_t* const kHandlers[] = {HANDLERS(HANDLER_ENTRY)};
enum { kDrawn = 12, kBusy = 12, kJob = 13, kFewest = 5, kMost = 11, kHandlerCount = 4, kThreads = 4, kMaxChanges = 16 };

#define BUSY_PIECES 40.0
#define TRANSIENT_S 5.0
#define LEAST_SHARE 0.03
#define MOST_SHARE 0.20

struct role {
  int function, handler;
  double share;
};

struct settings {
  const char* name;
  double load, points, piece_ns;
  uint64_t seed;
  bool renamed, moved;
};

static struct settings settings = {.name = "none", .load = 0.04, .points = 5, .piece_ns = (double)NS_PER_MS};
static struct role roles[kMost + 1];  // the last: what only runs at times
static int role_count, grower;
static double job_every_s, job_s, job_phase_s, hold_ms;
static uint64_t random_state;
static uint64_t start_ns;
static volatile sig_atomic_t asked;  // the change is to be there
static bool changed;                 // it is
static int turn;                     // which change this is, or will be
static int growers[kMaxChanges];
static uint64_t spent_ns[kMaxChanges][2][kMost + 1];  // before and after, by role
static double planned_ns;
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;

static bool is_case(const char* name) { return strcmp(settings.name, name) == 0; }

static void on_change(int signal_number) { asked = signal_number == SIGUSR1; }

// The same for the same seed: a restarted program is the same program.
static void draw(void) {
  random_state = settings.seed;
  int order[kDrawn];
  for (int i = 0; i < kDrawn; ++i) order[i] = i;
  for (int i = kDrawn - 1; i > 0; --i) {
    int j = (int)(next_random(&random_state) % (uint64_t)(i + 1));
    int swapped = order[i];
    order[i] = order[j];
    order[j] = swapped;
  }
  role_count = kFewest + (int)(next_random(&random_state) % (kMost - kFewest + 1));
  grower = (int)(next_random(&random_state) % (uint64_t)role_count);
  const double from = random_between(&random_state, LEAST_SHARE, MOST_SHARE);
  double sum = 0;
  for (int i = 0; i < role_count; ++i) {
    roles[i] = (struct role){order[i], (int)(next_random(&random_state) % kHandlerCount),
                             random_between(&random_state, 0.2, 1.8)};
    if (i != grower) sum += roles[i].share;
  }
  for (int i = 0; i < role_count; ++i) roles[i].share = i == grower ? from : roles[i].share / sum * (1 - from);
  job_every_s = random_between(&random_state, 15, 60);
  job_s = random_between(&random_state, 2, 6);
  job_phase_s = random_between(&random_state, 0, job_every_s);
  hold_ms = random_between(&random_state, 12, 18);
  roles[kMost] = (struct role){is_case("periodic") ? kJob : kBusy, 0, 0};
  growers[0] = grower;
  if (settings.renamed) roles[grower].function = order[kMost];  // the one that is never drawn
  if (settings.moved) roles[grower].handler = (roles[grower].handler + 1) % kHandlerCount;
  random_state ^= fresh_seed();  // the mix is the seed's, the requests are not
}

// Another function of such a share as the first one has; the same where there is none.
static int next_grower(void) {
  for (int i = 1; i < role_count; ++i) {
    const int role = (grower + i) % role_count;
    if (roles[role].share >= LEAST_SHARE && roles[role].share <= MOST_SHARE) return role;
  }
  return grower;
}

// Seconds since the change; -1 where there is none.
static double change_age_s(uint64_t now_ns) {
  static uint64_t since_ns;
  const bool was_changed = changed;
  changed = asked != 0;
  if (changed && !was_changed) since_ns = now_ns;
  if (was_changed && !changed && turn + 1 < kMaxChanges) {
    grower = next_grower();
    growers[++turn] = grower;
  }
  return changed ? 1e-9 * (double)(now_ns - since_ns) : -1;
}

// What is added to the load, in units of it, and where. Everything else goes on as it was.
static double extra(double age_s, double now_s, int* role) {
  const double from = roles[grower].share;
  *role = grower;
  if (is_case("grow") && age_s >= 0) {
    const double to = from + settings.points / 100;
    return (to - from) / (1 - to);
  }
  if (is_case("transient") && age_s >= 0 && age_s < TRANSIENT_S) return 0.4 / (1 - from - 0.4);
  *role = kMost;
  if (is_case("busy") && age_s >= 0) return 1e-9 * BUSY_PIECES * settings.piece_ns / settings.load;
  if (is_case("periodic") && fmod(now_s + job_phase_s, job_every_s) < job_s) return 1.5;
  return 0;
}

static int draw_role(double extra_part, int extra_role) {
  double at = random_between(&random_state, 0, 1 + extra_part);
  for (int i = 0; i < role_count; ++i) {
    if (at < roles[i].share) return i;
    at -= roles[i].share;
  }
  return extra_part > 0 ? extra_role : role_count - 1;
}

OWN_FRAME static void serve(double extra_part, int extra_role) {
  const int role = draw_role(extra_part, extra_role);
  const uint64_t begin = thread_cpu_ns();
  const uint64_t length = (uint64_t)(random_between(&random_state, 0.5, 1.5) * settings.piece_ns);
  kHandlers[roles[role].handler](kFunctions[roles[role].function].run, begin + length);
  spent_ns[turn][changed ? 1 : 0][role] += thread_cpu_ns() - begin;
  work_sink ^= 1;
}

OWN_FRAME static void append_log(void) {
  static char block[4096] __attribute__((aligned(4096)));
  static uint64_t blocks;
  if (pwrite(log_fd, block, sizeof block, (off_t)(blocks++ % 256 * sizeof block)) != (ssize_t)sizeof block) {
    perror("requests: log");
    exit(1);
  }
  work_sink ^= blocks;
}

// Requests come at random times, one to three pieces each. What was held up is made up for, up to a second of it.
static void serve_until_stopped(void) {
  uint64_t next_ns = start_ns, log_ns = start_ns;
  while (!stopped) {
    sleep_until(next_ns);
    const uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);
    int role = 0;
    const double part = extra(change_age_s(now_ns), 1e-9 * (double)(now_ns - start_ns), &role);
    const double load = settings.load * (is_case("load") && changed ? 2 : 1) * (1 + part);
    const int pieces = 1 + (int)(next_random(&random_state) % 3);
    for (int i = 0; i < pieces && !stopped; ++i) serve(part, role);
    planned_ns += pieces * settings.piece_ns;
    const double mean_gap_ns = 2 * settings.piece_ns / load;
    next_ns += (uint64_t)(-log(1 - random_between(&random_state, 0, 1)) * mean_gap_ns);
    if (now_ns > next_ns + NS_PER_S) next_ns = now_ns;
    if (log_fd >= 0 && now_ns >= log_ns) {
      append_log();
      log_ns = now_ns + (uint64_t)random_between(&random_state, 50e6, 150e6);
    }
  }
}

OWN_FRAME static void update_row(uint64_t* random) {
  pthread_mutex_lock(&table_lock);
  // What is done under the lock takes 1 ms, and later longer: a log written to a pipe, a name looked up.
  const double held_ms = asked ? hold_ms : 1;
  struct timespec held = {.tv_nsec = (long)(random_between(random, 0.5, 1.5) * held_ms * 1e6)};
  nanosleep(&held, NULL);
  pthread_mutex_unlock(&table_lock);
}

OWN_FRAME static void* update_rows(void* argument) {
  uint64_t random = settings.seed * kThreads + (uint64_t)(uintptr_t)argument;
  uint64_t next_ns = start_ns;
  while (!stopped) {
    sleep_until(next_ns);
    const uint64_t until = thread_cpu_ns() + (uint64_t)(settings.piece_ns / 2);
    WORK_UNTIL(until, 6364136223846793005ULL);
    update_row(&random);
    const uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);
    next_ns += (uint64_t)(-log(1 - random_between(&random, 0, 1)) * 100e6);
    if (now_ns > next_ns + NS_PER_S) next_ns = now_ns;
  }
  return NULL;
}

static double share_of(int role, const uint64_t* spent) {
  double total = 0;
  for (int i = 0; i <= kMost; ++i) total += (double)spent[i];
  return total > 0 ? (double)spent[role] / total : 0;
}

static void report(void) {
  const bool of_extra = is_case("busy") || is_case("periodic");
  printf("{\"changes\":[");
  for (int i = 0; i <= turn; ++i) {
    const int told = of_extra ? kMost : growers[i];
    const char* function = is_case("lock")   ? "update_row"
                           : is_case("disk") ? "append_log"
                                             : kFunctions[roles[told].function].name;
    printf("%s{\"functions\":[\"%s\"],\"before\":%.5f,\"after\":%.5f}", i > 0 ? "," : "", function,
           share_of(told, spent_ns[i][0]), share_of(told, spent_ns[i][1]));
  }
  printf("],\"cpu_s\":%.3f,\"planned_cpu_s\":%.3f}\n", rusage_s(RUSAGE_SELF), 1e-9 * planned_ns);
}

static void parse(int argc, char** argv) {
  static const struct option kOptions[] = {{"case", required_argument, NULL, 'c'},
                                           {"load", required_argument, NULL, 'l'},
                                           {"points", required_argument, NULL, 'p'},
                                           {"piece", required_argument, NULL, 'i'},
                                           {"seed", required_argument, NULL, 's'},
                                           {"renamed", no_argument, NULL, 'r'},
                                           {"moved", no_argument, NULL, 'm'},
                                           {"help", no_argument, NULL, 'h'},
                                           {NULL, 0, NULL, 0}};
  for (int option; (option = getopt_long(argc, argv, "h", kOptions, NULL)) != -1;) {
    switch (option) {
      case 'c':
        settings.name = optarg;
        break;
      case 'l':
        settings.load = number_option("--load", optarg, 0.001, 1);
        break;
      case 'p':
        settings.points = number_option("--points", optarg, 0.1, 70);
        break;
      case 'i':
        settings.piece_ns = number_option("--piece", optarg, 0.1, 10) * (double)NS_PER_MS;
        break;
      case 's':
        settings.seed = (uint64_t)number_option("--seed", optarg, 0, 4294967295.0);
        break;
      case 'r':
        settings.renamed = true;
        break;
      case 'm':
        settings.moved = true;
        break;
      default:
        help_or_wrong_use(option, kHelp);
    }
  }
  no_arguments_left(argc, argv);
  static const char* const kCases[] = {"none", "grow", "busy", "load", "transient", "periodic", "lock", "disk"};
  for (size_t i = 0; i < sizeof kCases / sizeof kCases[0]; ++i)
    if (is_case(kCases[i])) return;
  wrong_use("--case", "is none that there is");
}

int main(int argc, char** argv) {
  parse(argc, argv);
  draw();
  catch_stop();
  struct sigaction action = {.sa_handler = on_change, .sa_flags = SA_RESTART};
  sigaction(SIGUSR1, &action, NULL);
  sigaction(SIGUSR2, &action, NULL);
  start_ns = clock_ns(CLOCK_MONOTONIC);
  if (is_case("disk") && (log_fd = open("log", O_RDWR | O_CREAT | O_DIRECT | O_DSYNC | O_CLOEXEC, 0600)) < 0) {
    perror("requests: log");
    return 1;
  }
  pthread_t threads[kThreads];
  const int count = is_case("lock") ? kThreads : 0;
  for (int i = 0; i < count; ++i)
    if (pthread_create(&threads[i], NULL, update_rows, (void*)(uintptr_t)i) != 0) return 1;
  serve_until_stopped();
  for (int i = 0; i < count; ++i) pthread_join(threads[i], NULL);
  report();
  return 0;
}
