// SPDX-License-Identifier: Apache-2.0
// What benchmarks of detection record: a process with a fixed mix of functions on a part of a core, in which at a
// random moment something happens. Some of it should be told, some of it should not.
#include "programs.h"

static const char kHelp[] =
    "changer --case NAME [--onset-min S] [--onset-max S] [--duration S] [--load X] [--seed N] [--truth-file FILE]\n"
    "  --case NAME   grow1, grow2, grow5, grow20: a function takes so many points of share more;\n"
    "                none of these is a change of the program: steady, load (twice as much of the same), rename (a\n"
    "                function is replaced by one of the same cost), restart (exec of itself), transient (5 s of +40\n"
    "                points), periodic (2 s of another job in each 15 s, from the start on)\n"
    "  --onset-min S, --onset-max S   when it happens, seconds after the start (default 120 to 180)\n"
    "  --duration S  wall time (default 300)\n"
    "  --load X      part of a core that is used (default 0.2)\n"
    "  --seed N      repeats a run's draws (default: from the kernel)\n"
    "  --truth-file FILE  what happened, as one JSON line, at the end\n"
    "Example: changer --case grow5 --truth-file truth.json\n";

// clang-format off: it finds no form that it would leave as it is
#define FUNCTIONS(X)                         \
  X(parse_request, 6364136223846793005ULL)   \
  X(look_up_key, 2862933555777941757ULL)     \
  X(compress_block, 3202034522624059733ULL)  \
  X(encode_reply, 3935559000370003845ULL)    \
  X(check_signature, 2685821657736338717ULL) \
  X(look_up_key_v2, 2862933555777941757ULL)  \
  X(rotate_logs, 1181783497276652981ULL)
// clang-format on

typedef void function_t(uint64_t until_cpu_ns);
#define DEFINE(name, multiplier) \
  OWN_FRAME static void name(uint64_t until) { WORK_UNTIL(until, multiplier); }
FUNCTIONS(DEFINE)
#define ENTRY(name, multiplier) {#name, name},
static const struct {
  const char* name;
  function_t* run;
} kFunctions[] = {FUNCTIONS(ENTRY)};
enum { kUsual = 5, kGrower = 1, kRenamed = 5, kJob = 6, kCount = sizeof kFunctions / sizeof kFunctions[0] };
static const double kShares[kUsual] = {0.35, 0.10, 0.25, 0.20, 0.10};

// A piece of work: far below the distance of samples at 99 Hz.
#define PIECE_NS NS_PER_MS
#define PERIOD_NS (10 * NS_PER_MS)
#define TRANSIENT_S 5.0
#define JOB_EVERY_S 15.0
#define JOB_S 2.0
#define EXECED "CHANGER_STARTED"

struct settings {
  const char* name;
  double onset_min_s, onset_max_s, duration_s, load;
  uint64_t seed;
  const char* truth_file;
};

static bool is_case(const struct settings* s, const char* name) { return strcmp(s->name, name) == 0; }

static double growth(const struct settings* s) {
  return strncmp(s->name, "grow", 4) == 0 ? strtod(s->name + 4, NULL) / 100 : 0;
}

static bool known_case(const struct settings* s) {
  static const char* const kCases[] = {"grow1", "grow2",  "grow5",   "grow20",    "steady",
                                       "load",  "rename", "restart", "transient", "periodic"};
  for (size_t i = 0; i < sizeof kCases / sizeof kCases[0]; ++i) {
    if (is_case(s, kCases[i])) return true;
  }
  return false;
}

// Shares at a moment; `after_s` is negative before the onset.
static int draw_function(const struct settings* s, double now_s, double after_s, uint64_t* random) {
  double grown = after_s >= 0 ? growth(s) : 0;
  if (is_case(s, "transient") && after_s >= 0 && after_s < TRANSIENT_S) grown = 0.4;
  if (is_case(s, "periodic") && now_s - JOB_EVERY_S * (double)(int64_t)(now_s / JOB_EVERY_S) < JOB_S) return kJob;
  double at = random_between(random, 0, 1);
  int chosen = kUsual - 1;
  for (int i = 0; i < kUsual; ++i) {
    // What one takes more, all others lose in proportion.
    double share =
        i == kGrower ? kShares[i] + grown : kShares[i] * (1 - kShares[kGrower] - grown) / (1 - kShares[kGrower]);
    if (at < share) {
      chosen = i;
      break;
    }
    at -= share;
  }
  return chosen == kGrower && is_case(s, "rename") && after_s >= 0 ? kRenamed : chosen;
}

OWN_FRAME static void serve(const struct settings* s, double now_s, double after_s, uint64_t* random) {
  kFunctions[draw_function(s, now_s, after_s, random)].run(thread_cpu_ns() + PIECE_NS);
  work_sink ^= 1;
}

static bool write_truth(const struct settings* s, double onset_s, uint64_t start_real_ns) {
  FILE* out = s->truth_file == NULL ? stdout : fopen(s->truth_file, "w");
  if (out == NULL) {
    fprintf(stderr, "changer: cannot write %s: %s\n", s->truth_file, strerror(errno));
    return false;
  }
  const double started_s = 1e-9 * (double)start_real_ns;
  const double twice_s = is_case(s, "load") && s->duration_s > onset_s ? s->duration_s - onset_s : 0;
  fprintf(out, "{\"case\":\"%s\",\"change\":%s,\"function\":\"%s\",\"onset_s\":%.6f,\"started_s\":%.6f,", s->name,
          growth(s) > 0 ? "true" : "false", kFunctions[kGrower].name, started_s + onset_s, started_s);
  fprintf(out, "\"ended_s\":%.6f,\"cpu_s\":%.6f,\"planned_cpu_s\":%.6f}\n", 1e-9 * (double)clock_ns(CLOCK_REALTIME),
          rusage_s(RUSAGE_SELF), s->load * (s->duration_s + twice_s));
  return fclose(out) == 0;
}

static void restart(char** argv, uint64_t start_ns, uint64_t start_real_ns) {
  char started[64];
  snprintf(started, sizeof started, "%llu %llu", (unsigned long long)start_ns, (unsigned long long)start_real_ns);
  setenv(EXECED, started, 1);
  execv("/proc/self/exe", argv);
  perror("changer: exec");
}

static int run(const struct settings* s, char** argv) {
  uint64_t random = s->seed;
  uint64_t start_ns = clock_ns(CLOCK_MONOTONIC), start_real_ns = clock_ns(CLOCK_REALTIME);
  const char* started = getenv(EXECED);
  if (started != NULL) {
    char* rest = NULL;
    start_ns = strtoull(started, &rest, 10);
    start_real_ns = strtoull(rest, NULL, 10);
  }
  const double onset_s = random_between(&random, s->onset_min_s, s->onset_max_s);
  uint64_t cpu_ns = 0;
  for (uint64_t next_ns = clock_ns(CLOCK_MONOTONIC); !stopped; next_ns += PERIOD_NS) {
    sleep_until(next_ns);
    const double now_s = 1e-9 * (double)(clock_ns(CLOCK_MONOTONIC) - start_ns);
    if (now_s >= s->duration_s) break;
    if (is_case(s, "restart") && started == NULL && now_s >= onset_s) restart(argv, start_ns, start_real_ns);
    const bool twice = is_case(s, "load") && now_s >= onset_s;
    cpu_ns += (uint64_t)(s->load * (twice ? 2 : 1) * (double)PERIOD_NS);
    for (; cpu_ns >= PIECE_NS && !stopped; cpu_ns -= PIECE_NS) serve(s, now_s, now_s - onset_s, &random);
    // On a machine that is too busy the rest of the plan is dropped, not made up for.
    if (clock_ns(CLOCK_MONOTONIC) > next_ns + PERIOD_NS) next_ns = clock_ns(CLOCK_MONOTONIC) - PERIOD_NS;
  }
  return write_truth(s, onset_s, start_real_ns) ? 0 : 1;
}

int main(int argc, char** argv) {
  static const struct option kOptions[] = {{"case", required_argument, NULL, 'c'},
                                           {"onset-min", required_argument, NULL, 'a'},
                                           {"onset-max", required_argument, NULL, 'b'},
                                           {"duration", required_argument, NULL, 'd'},
                                           {"load", required_argument, NULL, 'l'},
                                           {"seed", required_argument, NULL, 's'},
                                           {"truth-file", required_argument, NULL, 'o'},
                                           {"help", no_argument, NULL, 'h'},
                                           {NULL, 0, NULL, 0}};
  struct settings s = {"", 120, 180, 300, 0.2, fresh_seed(), NULL};
  for (int option = 0; (option = getopt_long(argc, argv, "", kOptions, NULL)) != -1;) {
    switch (option) {
      case 'c':
        s.name = optarg;
        break;
      case 'a':
        s.onset_min_s = strtod(optarg, NULL);
        break;
      case 'b':
        s.onset_max_s = strtod(optarg, NULL);
        break;
      case 'd':
        s.duration_s = strtod(optarg, NULL);
        break;
      case 'l':
        s.load = strtod(optarg, NULL);
        break;
      case 's':
        s.seed = strtoull(optarg, NULL, 10);
        break;
      case 'o':
        s.truth_file = optarg;
        break;
      case 'h':
        fputs(kHelp, stdout);
        return 0;
      default:
        fputs(kHelp, stderr);
        return 2;
    }
  }
  if (!known_case(&s) || !(s.load > 0 && s.load <= 1) || !(s.onset_min_s >= 0 && s.onset_max_s >= s.onset_min_s)) {
    fputs(kHelp, stderr);
    return 2;
  }
  catch_stop();
  return run(&s, argv);
}
