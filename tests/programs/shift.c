// SPDX-License-Identifier: Apache-2.0
// The workload of the demo: serves imaginary requests on one busy core; at a moment drawn at random one function, drawn
// at random, takes more of the time than before. Says which one, how much and when only at its end.
#include "programs.h"

static const char kHelp[] =
    "shift [--onset-min S] [--onset-max S] [--no-shift] [--from X] [--to X] [--load X] [--duration S] [--seed N] "
    "[--truth-file FILE]\n"
    "Keeps one core busy in functions drawn at random; one of them grows at a random moment.\n"
    "  --onset-min S, --onset-max S   when it grows, seconds after the start (default 60 to 180)\n"
    "  --no-shift         nothing grows\n"
    "  --from X, --to X   share of the growing function before and after (default 0.10 and 0.30)\n"
    "  --load X           part of the time that it is busy, in pieces that much shorter (default 1)\n"
    "  --duration S       wall time (default 3600)\n"
    "  --seed N           repeats a run's draws (default: from the kernel)\n"
    "  --truth-file FILE  the truth goes there too\n"
    "The truth is one JSON line, printed at the end alone (SIGTERM and SIGINT are an end).\n"
    "Example: shift --onset-min 20 --onset-max 40 --duration 90\n";

// Every function and every handler has a frame of its own and other arithmetic, main → serve → handle_… → function.
// clang-format off: it finds no form that it would leave as it is
#define FUNCTIONS(X)                          \
  X(parse_request, 6364136223846793005ULL)    \
  X(hash_lookup, 2862933555777941757ULL)      \
  X(compress_block, 3202034522624059733ULL)   \
  X(encode_reply, 3935559000370003845ULL)     \
  X(verify_signature, 2685821657736338717ULL) \
  X(sort_rows, 1181783497276652981ULL)        \
  X(match_pattern, 7664345821815920749ULL)    \
  X(copy_payload, 4768777513237032717ULL)     \
  X(update_index, 1865811235122147685ULL)     \
  X(evict_entries, 8372773778140471301ULL)    \
  X(format_timestamp, 6906969069069069069ULL) \
  X(checksum_page, 5700357409661598721ULL)
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
#define HANDLER_ENTRY(name) {#name, name},
static const struct {
  const char* name;
  function_t* run;
} kFunctions[] = {FUNCTIONS(FUNCTION_ENTRY)};
static const struct {
  const char* name;
  handler_t* run;
} kHandlers[] = {HANDLERS(HANDLER_ENTRY)};
enum {
  kFunctionCount = sizeof kFunctions / sizeof kFunctions[0],
  kHandlerCount = sizeof kHandlers / sizeof kHandlers[0],
  kFewest = 5,  // functions in use, at least
};
_Static_assert(kFunctionCount == 12, "the draw assumes twelve");

struct settings {
  double onset_min_s, onset_max_s, from, to, load, duration_s;
  bool shift;
  uint64_t seed;
  const char* truth_file;
};

struct role {
  int function, handler;
  double before, after;  // shares
  double owed_ns;        // CPU time it should have had in this phase, less what it had
  uint64_t cpu_ns[2];    // what it had before and after the onset
};

struct plan {
  struct role roles[kFunctionCount];
  int count;
  int grower;
  double onset_s;
  uint64_t random;
  double load;
  // What came of it.
  bool shifted;
  uint64_t start_monotonic_ns, onset_monotonic_ns, onset_realtime_ns;
};

// Everything that is random about a run, from the seed alone. The grower has `from`; the others share the rest, each
// with at least a fifth of an equal part, so that none is too thin to be seen.
static void draw(struct plan* plan, const struct settings* settings) {
  memset(plan, 0, sizeof *plan);
  plan->random = settings->seed;
  plan->load = settings->load;
  int order[kFunctionCount];
  for (int i = 0; i < kFunctionCount; ++i) order[i] = i;
  for (int i = kFunctionCount - 1; i > 0; --i) {
    int j = (int)(next_random(&plan->random) % (uint64_t)(i + 1));
    int swapped = order[i];
    order[i] = order[j];
    order[j] = swapped;
  }
  plan->count = kFewest + (int)(next_random(&plan->random) % (kFunctionCount - kFewest + 1));
  plan->grower = (int)(next_random(&plan->random) % (uint64_t)plan->count);
  plan->onset_s = random_between(&plan->random, settings->onset_min_s, settings->onset_max_s);
  double sum = 0;
  for (int i = 0; i < plan->count; ++i) {
    struct role* role = &plan->roles[i];
    role->function = order[i];
    role->handler = (int)(next_random(&plan->random) % kHandlerCount);
    role->before = random_between(&plan->random, 0.2, 1.8);
    if (i != plan->grower) sum += role->before;
  }
  for (int i = 0; i < plan->count; ++i) {
    struct role* role = &plan->roles[i];
    const double part = role->before / sum;
    role->before = i == plan->grower ? settings->from : part * (1 - settings->from);
    role->after = i == plan->grower ? settings->to : part * (1 - settings->to);
  }
}

static void begin_phase(struct plan* plan) {
  for (int i = 0; i < plan->count; ++i) plan->roles[i].owed_ns = 0;
}

static bool onset_is_due(const struct plan* plan, const struct settings* settings, uint64_t now_ns) {
  return settings->shift && !plan->shifted && (double)(now_ns - plan->start_monotonic_ns) >= plan->onset_s * 1e9;
}

// One slice: a role whose turn it is works off a random part (1 to 8 ms at full load) of what it is owed.
OWN_FRAME static void serve(struct plan* plan, struct role* role) {
  double slice = random_between(&plan->random, 1, 8) * (double)NS_PER_MS * plan->load;
  // A remainder of less than the shortest goes with this slice: it would be mostly the reading of clocks.
  if (role->owed_ns - slice < (double)NS_PER_MS * plan->load) slice = role->owed_ns;
  const uint64_t begin = thread_cpu_ns();
  kHandlers[role->handler].run(kFunctions[role->function].run, begin + (uint64_t)slice);
  const uint64_t used = thread_cpu_ns() - begin;
  role->owed_ns -= (double)used;
  role->cpu_ns[plan->shifted] += used;
}

// A role that is owed time, at random in proportion to nothing but chance; none where the cycle is over.
static struct role* whose_turn(struct plan* plan) {
  struct role* waiting[kFunctionCount];
  int count = 0;
  for (int i = 0; i < plan->count; ++i)
    if (plan->roles[i].owed_ns > 0) waiting[count++] = &plan->roles[i];
  return count == 0 ? NULL : waiting[next_random(&plan->random) % (uint64_t)count];
}

// Until what was worked since the start is no more than the load.
static void rest(const struct plan* plan) {
  if (plan->load < 1) sleep_until(plan->start_monotonic_ns + (uint64_t)((double)thread_cpu_ns() / plan->load));
}

// Cycles of 100 to 200 ms of CPU time at full load. In each, every role is owed its share; what it ran over is taken
// off its next one. Order and lengths are random, so that nothing keeps step with a sampler.
static void run(struct plan* plan, const struct settings* settings) {
  plan->start_monotonic_ns = clock_ns(CLOCK_MONOTONIC);
  const uint64_t end = plan->start_monotonic_ns + (uint64_t)(settings->duration_s * 1e9);
  uint64_t now = plan->start_monotonic_ns;
  while (!stopped && now < end) {
    struct role* role = whose_turn(plan);
    if (onset_is_due(plan, settings, now)) {
      plan->shifted = true;
      plan->onset_monotonic_ns = now;
      plan->onset_realtime_ns = clock_ns(CLOCK_REALTIME);
      begin_phase(plan);
      role = NULL;
    }
    if (role != NULL) {
      serve(plan, role);
      rest(plan);
    } else {
      const double cycle = random_between(&plan->random, 100, 200) * (double)NS_PER_MS * plan->load;
      for (int i = 0; i < plan->count; ++i)
        plan->roles[i].owed_ns += cycle * (plan->shifted ? plan->roles[i].after : plan->roles[i].before);
    }
    now = clock_ns(CLOCK_MONOTONIC);
  }
}

static void print_onset(FILE* out, const struct plan* plan) {
  char wall[32];
  const time_t seconds = (time_t)(plan->onset_realtime_ns / NS_PER_S);
  struct tm utc;
  gmtime_r(&seconds, &utc);
  strftime(wall, sizeof wall, "%Y-%m-%dT%H:%M:%S", &utc);
  fprintf(out, "\"onset_monotonic_s\":%.6f,\"onset_wall\":\"%s.%06uZ\",\"onset_after_s\":%.6f,",
          (double)plan->onset_monotonic_ns * 1e-9, wall, (unsigned)(plan->onset_realtime_ns % NS_PER_S / 1000),
          (double)(plan->onset_monotonic_ns - plan->start_monotonic_ns) * 1e-9);
}

static void print_truth(FILE* out, const struct plan* plan, const struct settings* settings) {
  uint64_t total[2] = {0, 0};
  for (int i = 0; i < plan->count; ++i)
    for (int phase = 0; phase < 2; ++phase) total[phase] += plan->roles[i].cpu_ns[phase];
  const struct role* grower = &plan->roles[plan->grower];
  fprintf(out, "{\"program\":\"shift\",\"pid\":%d,\"seed\":%llu,\"start_monotonic_s\":%.6f,\"shifted\":%s,", getpid(),
          (unsigned long long)settings->seed, (double)plan->start_monotonic_ns * 1e-9,
          plan->shifted ? "true" : "false");
  if (plan->shifted) {
    fprintf(out, "\"function\":\"%s\",\"from\":%.4f,\"to\":%.4f,", kFunctions[grower->function].name, grower->before,
            grower->after);
    print_onset(out, plan);
  }
  fprintf(out, "\"cpu_s\":%.6f,\"functions\":[", rusage_s(RUSAGE_SELF));
  for (int i = 0; i < plan->count; ++i) {
    const struct role* role = &plan->roles[i];
    fprintf(out, "%s{\"name\":\"%s\",\"handler\":\"%s\",\"cpu_s\":%.6f,\"before\":%.4f,\"before_measured\":%.4f",
            i ? "," : "", kFunctions[role->function].name, kHandlers[role->handler].name,
            (double)(role->cpu_ns[0] + role->cpu_ns[1]) * 1e-9, role->before,
            total[0] ? (double)role->cpu_ns[0] / (double)total[0] : 0.0);
    if (plan->shifted)
      fprintf(out, ",\"after\":%.4f,\"after_measured\":%.4f", role->after,
              total[1] ? (double)role->cpu_ns[1] / (double)total[1] : 0.0);
    fprintf(out, "}");
  }
  fprintf(out, "]}\n");
}

static bool write_truth_file(const struct plan* plan, const struct settings* settings) {
  FILE* file = fopen(settings->truth_file, "w");
  if (file == NULL) {
    fprintf(stderr, "shift: cannot write %s: %s\n", settings->truth_file, strerror(errno));
    return false;
  }
  print_truth(file, plan, settings);
  if (fclose(file) == 0) return true;
  fprintf(stderr, "shift: cannot write %s: %s\n", settings->truth_file, strerror(errno));
  return false;
}

static struct settings parse(int argc, char** argv) {
  static const struct option kOptions[] = {{"onset-min", required_argument, NULL, 'm'},
                                           {"onset-max", required_argument, NULL, 'M'},
                                           {"no-shift", no_argument, NULL, 'n'},
                                           {"from", required_argument, NULL, 'f'},
                                           {"to", required_argument, NULL, 't'},
                                           {"load", required_argument, NULL, 'l'},
                                           {"duration", required_argument, NULL, 'd'},
                                           {"seed", required_argument, NULL, 's'},
                                           {"truth-file", required_argument, NULL, 'o'},
                                           {"help", no_argument, NULL, 'h'},
                                           {NULL, 0, NULL, 0}};
  struct settings s = {.onset_min_s = 60,
                       .onset_max_s = 180,
                       .from = 0.10,
                       .to = 0.30,
                       .load = 1,
                       .duration_s = DEFAULT_SECONDS,
                       .shift = true,
                       .seed = fresh_seed()};
  for (int option; (option = getopt_long(argc, argv, "h", kOptions, NULL)) != -1;) {
    switch (option) {
      case 'm':
        s.onset_min_s = number_option("--onset-min", optarg, 0, 86400);
        break;
      case 'M':
        s.onset_max_s = number_option("--onset-max", optarg, 0, 86400);
        break;
      case 'n':
        s.shift = false;
        break;
      case 'f':
        s.from = number_option("--from", optarg, 0.001, 0.999);
        break;
      case 't':
        s.to = number_option("--to", optarg, 0.001, 0.999);
        break;
      case 'l':
        s.load = number_option("--load", optarg, 0.001, 1);
        break;
      case 'd':
        s.duration_s = number_option("--duration", optarg, 0.1, 86400);
        break;
      case 's':
        s.seed = (uint64_t)number_option("--seed", optarg, 0, 4294967295.0);
        break;
      case 'o':
        s.truth_file = optarg;
        break;
      default:
        help_or_wrong_use(option, kHelp);
    }
  }
  no_arguments_left(argc, argv);
  if (s.onset_min_s > s.onset_max_s) wrong_use("--onset-min", "is later than --onset-max");
  return s;
}

int main(int argc, char** argv) {
  const struct settings settings = parse(argc, argv);
  static struct plan plan;
  draw(&plan, &settings);
  catch_stop();
  run(&plan, &settings);
  print_truth(stdout, &plan, &settings);
  return settings.truth_file == NULL || write_truth_file(&plan, &settings) ? 0 : 1;
}
