// SPDX-License-Identifier: Apache-2.0
// Scores detectors on recorded programs (corpus/record.sh): `bench_corpus DIR [--config FILE] [--list] [--ablation]`
// replays every capture in DIR and prints Markdown. Times are of the recording; nothing is chosen by the outcome.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "binomial_interval.h"
#include "config/load.h"
#include "corpus_replay.h"
#include "daemon/daemon.h"
#include "daemon/detector_schema.h"
#include "optimal_cusum.h"
#include "poisson_interval.h"

namespace stackwatch {
namespace {

namespace fs = std::filesystem;

constexpr double kDay_s = 86400;
constexpr double kAtLeast_s = 60;  // a change may take this long, however fast the optimum is
constexpr double kTimesTheOptimum = 2.5;
constexpr int kOptimumRuns = 400;  // its mean delay is known to some per cent then
constexpr double kStarved = 0.7;   // of the CPU time that a run was to have

struct Scored {
  CorpusRun run;
  bool starved = false;
  double watched_s = 0;  ///< in which every alert is a false one
  int false_alerts = 0;
  std::optional<double> delay_s;
  std::string detector;  ///< that came first
  bool named = false;    ///< an alert named a function
  bool first_right = false;
  bool third_right = false;
  int alerts = 0;     ///< of the incident
  size_t claims = 0;  ///< that would have been alerts of their own
  std::optional<double> optimum_s;
  Sampled sampled;
};

struct Scores {
  std::vector<Scored> runs;
  double process_seconds = 0;
  double replay_s = 0;
  size_t streams = 0;
  int strangers = 0;  ///< alerts about processes that are no run: the driver's own
};

bool names_one_of(const Firing& firing, const std::vector<std::string>& functions, size_t among) {
  for (size_t i = 0; i < std::min(among, firing.frames.size()); ++i) {
    if (std::ranges::find(functions, firing.frames[i]) != functions.end()) return true;
  }
  return false;
}

void judge(Scored& scored, const Firing& firing) {
  const CorpusRun& run = scored.run;
  const int one = firing.is_named_later ? 0 : 1;
  if (!run.is_change || firing.time_s < run.onset_s || (run.kind == "busyworker" && firing.pid != run.pid)) {
    scored.false_alerts += one;
    return;
  }
  scored.alerts += one;
  if (!scored.delay_s) {
    scored.delay_s = firing.time_s - run.onset_s;
    scored.detector = firing.detector;
  }
  // Some alerts are about the whole process; the first that names a function is the one that is right or wrong.
  if (scored.named || firing.frames.front().empty()) return;
  scored.named = true;
  scored.first_right = names_one_of(firing, run.functions, 1);
  scored.third_right = names_one_of(firing, run.functions, 3);
}

/// Changes of a function's share of CPU time; of others there is no optimum to compare with.
bool is_of_shares(const CorpusRun& run) {
  return run.kind.starts_with("grow") || run.kind == "python" || run.kind == "busyworker";
}

/// Mean delay of Page's CUSUM that is told both shares, with the host's budget for one of its streams. Samples that
/// come in clumps are so many fewer.
std::optional<double> optimum(const Sampled& sampled, size_t streams, const DetectionPolicy& policy) {
  const int samples = static_cast<int>(sampled.per_second / sampled.dispersion + 0.5);
  if (samples < 1 || sampled.share_after <= sampled.share_before) return std::nullopt;
  const double before = std::max(sampled.share_before, 1e-4);
  const double run_length = policy.false_alarm_period_s / policy.false_alarms * static_cast<double>(streams);
  const OptimalCusum cusum(before, sampled.share_after, samples, run_length);
  std::mt19937_64 random(1);
  double sum = 0;
  for (int i = 0; i < kOptimumRuns; ++i) sum += cusum.delay(random);
  return sum / kOptimumRuns;
}

Result<Scores> score(const std::string& directory, const JudgedWith& with, bool with_optimum) {
  auto corpus = read_corpus(directory);
  if (!corpus) return Failure(corpus.error());
  Scores out;
  std::map<std::string, size_t> places;
  for (const CorpusRun& run : *corpus) {
    Scored scored;
    scored.starved = run.planned_cpu_s > 0 && run.cpu_s < kStarved * run.planned_cpu_s;
    scored.watched_s = (run.is_change ? run.onset_s : run.ended_s) - run.started_s;
    out.process_seconds += run.ended_s - run.started_s;
    places[run.name] = out.runs.size();
    scored.run = run;
    out.runs.push_back(std::move(scored));
  }
  for (const auto& entry : fs::directory_iterator(directory)) {
    if (entry.path().extension() != ".capture") continue;
    const auto begin = std::chrono::steady_clock::now();
    auto replayed = replay_capture(entry.path(), with, *corpus);
    if (!replayed) return Failure(replayed.error());
    out.replay_s += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    out.streams = std::max(out.streams, replayed->streams);
    for (const Firing& firing : replayed->firings) {
      const CorpusRun* const run = run_at(*corpus, firing.exe, firing.time_s);
      run == nullptr ? static_cast<void>(out.strangers += firing.is_named_later ? 0 : 1)
                     : judge(out.runs[places.at(run->name)], firing);
    }
    for (const auto& [name, claims] : replayed->claims) out.runs[places.at(name)].claims = claims;
    for (const auto& [name, sampled] : replayed->sampled) {
      Scored& scored = out.runs[places.at(name)];
      scored.sampled = sampled;
      if (with_optimum && is_of_shares(scored.run)) scored.optimum_s = optimum(sampled, replayed->streams, with.policy);
    }
  }
  return out;
}

// ---- tables

using Runs = std::vector<const Scored*>;
using Cases = std::map<std::string, Runs>;

template <class Predicate>
int count_if(const Runs& runs, Predicate predicate) {
  return static_cast<int>(std::ranges::count_if(runs, [&](const Scored* run) { return predicate(*run); }));
}

/// The larger of a minute and 2.5 times the optimum.
double limit_s(const Scored& run) { return std::max(kAtLeast_s, kTimesTheOptimum * run.optimum_s.value_or(0)); }
bool in_time(const Scored& run) { return run.delay_s && *run.delay_s <= limit_s(run); }
/// Nothing was found, and the recording ended before it would have been late.
bool ended_early(const Scored& run) {
  return is_of_shares(run.run) && !run.delay_s && run.run.ended_s - run.run.onset_s < limit_s(run);
}
bool alerted(const Scored& run) { return run.delay_s.has_value(); }
bool first_right(const Scored& run) { return run.first_right; }
bool third_right(const Scored& run) { return run.third_right; }

/// "19 of 20 (75–100 %)".
std::string part(int hits, int of) {
  const auto [low, high] = binomial_interval(hits, of);
  char text[64];
  std::snprintf(text, sizeof text, "%d of %d (%.0f – %.0f %%)", hits, of, 100 * low, 100 * high);
  return text;
}

/// With misses as longer than any.
std::string percentile(const Runs& runs, double at) {
  std::vector<double> delays;
  for (const Scored* run : runs) delays.push_back(run->delay_s.value_or(std::numeric_limits<double>::infinity()));
  std::ranges::sort(delays);
  const double value = delays[static_cast<size_t>(at * static_cast<double>(delays.size() - 1) + 0.5)];
  return std::isinf(value) ? "missed" : std::to_string(static_cast<int>(value + 0.5)) + " s";
}

template <class Value>
std::string median(const Runs& runs, const char* format, Value value) {
  std::vector<double> values;
  for (const Scored* run : runs) {
    if (const std::optional<double> v = value(*run)) values.push_back(*v);
  }
  if (values.empty()) return "";
  std::ranges::sort(values);
  char text[32];
  std::snprintf(text, sizeof text, format, values[values.size() / 2]);
  return text;
}

Cases by_case(const Scores& scores, bool changes) {
  Cases out;
  for (const Scored& run : scores.runs) {
    if (run.run.is_change == changes && !run.starved) out[run.run.kind].push_back(&run);
  }
  return out;
}

/// What was sampled of a change of shares, as cells of the table; medians.
std::string sampled_cells(const Runs& runs) {
  if (!is_of_shares(runs.front()->run)) return " | | | | ";
  const auto of = [](double Sampled::*field, double factor) {
    return [field, factor](const Scored& run) { return std::optional(factor * run.sampled.*field); };
  };
  return median(runs, "%.0f", of(&Sampled::per_second, 1)) + " | " +
         median(runs, "%.1f", of(&Sampled::share_before, 100)) + " → " +
         median(runs, "%.1f %%", of(&Sampled::share_after, 100)) + " | " +
         median(runs, "%.1f", of(&Sampled::dispersion, 1)) + " | " +
         median(runs, "%.0f s", [](const Scored& run) { return run.optimum_s; }) + " | " +
         part(count_if(runs, in_time), static_cast<int>(runs.size()));
}

void print_change_row(const char* name, const Runs& runs) {
  const int found = count_if(runs, alerted);
  int alerts = 0;
  for (const Scored* run : runs) alerts += run->alerts;
  std::printf("| %s | %s | %s | %s | %s | %s | %s | %.2f |\n", name, sampled_cells(runs).c_str(),
              part(found, static_cast<int>(runs.size())).c_str(), percentile(runs, 0.5).c_str(),
              percentile(runs, 0.95).c_str(), found > 0 ? part(count_if(runs, first_right), found).c_str() : "",
              found > 0 ? part(count_if(runs, third_right), found).c_str() : "",
              alerts / std::max(1.0, static_cast<double>(found)));
}

/// Smaller changes are reported but not promised; those of a long run have a row of their own.
bool is_promised(const Scored& run) {
  const std::string& kind = run.run.kind;
  return is_of_shares(run.run) && kind != "grow1" && kind != "grow2" && !kind.ends_with("old");
}

void print_changes(const Scores& scores) {
  std::printf(
      "| change | samples/s | share | dispersion | optimum | in time | in the end | median | P95 | right in top 1 | "
      "top 3 | alerts per incident |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n");
  Runs promised;
  for (const auto& [name, runs] : by_case(scores, true)) {
    print_change_row(name.c_str(), runs);
    if (is_promised(*runs.front())) promised.insert(promised.end(), runs.begin(), runs.end());
  }
  if (!promised.empty()) print_change_row("all shares of 5 points and more, young baseline", promised);
}

void print_false_alarm_row(const char* name, const Runs& runs) {
  int alerts = 0;
  double watched_s = 0;
  for (const Scored* run : runs) {
    alerts += run->false_alerts;
    watched_s += run->watched_s;
  }
  const auto [low, high] = poisson_interval(alerts);
  const double days = watched_s / kDay_s;
  const int wrong = count_if(runs, [](const Scored& run) { return run.false_alerts > 0; });
  std::printf("| %s | %s | %d | %.2f | %.2f (%.2f – %.2f) |\n", name,
              part(wrong, static_cast<int>(runs.size())).c_str(), alerts, watched_s / 3600, alerts / days, low / days,
              high / days);
}

void print_false_alarms(const Scores& scores) {
  std::printf("\nNo change of the program; the last row is what came before the changes above.\n\n");
  std::printf(
      "| what happened | with an alert | alerts | process-hours | per process-day (95 %%) |\n|---|---|---|---|---|\n");
  Runs all;
  for (const auto& [name, runs] : by_case(scores, false)) {
    print_false_alarm_row(name.c_str(), runs);
    all.insert(all.end(), runs.begin(), runs.end());
  }
  if (!all.empty()) print_false_alarm_row("**all of these**", all);
  Runs before;
  for (const auto& [name, runs] : by_case(scores, true)) before.insert(before.end(), runs.begin(), runs.end());
  if (!before.empty()) print_false_alarm_row("before a change", before);
}

void print_notes(const Scores& scores) {
  const auto starved = std::ranges::count_if(scores.runs, [](const Scored& run) { return run.starved; });
  const auto early =
      std::ranges::count_if(scores.runs, [](const Scored& run) { return !run.starved && ended_early(run); });
  std::printf(
      "\n%zu runs, %.1f process-hours, at most %zu streams on a host; replayed in %.1f s. %td runs had less than "
      "%.0f %% of their CPU time on a busy machine and are in no table. Of the runs that count as missed, %td ended "
      "before an alert would have been late. %d alerts about other processes of the recording.\n",
      scores.runs.size(), scores.process_seconds / 3600, scores.streams, scores.replay_s, starved, 100 * kStarved,
      early, scores.strangers);
}

void print_list(const Scores& scores) {
  for (const Scored& run : scores.runs) {
    std::printf(
        "%-16s %s delay %6.1f optimum %6.1f by %-11s top1 %d top3 %d alerts %d claims %zu false %d share %.3f -> "
        "%.3f at %.1f/s dispersion %.1f%s\n",
        run.run.name.c_str(), run.run.is_change ? "change" : "none  ", run.delay_s.value_or(-1),
        run.optimum_s.value_or(-1), run.detector.c_str(), run.first_right, run.third_right, run.alerts, run.claims,
        run.false_alerts, run.sampled.share_before, run.sampled.share_after, run.sampled.per_second,
        run.sampled.dispersion, run.starved ? " STARVED" : "");
  }
}

// ---- what each part contributes

struct Variant {
  const char* name;
  void (*apply)(JudgedWith& with);
};

constexpr Variant kVariants[] = {
    {"as configured", [](JudgedWith&) {}},
    {"no persistence",
     [](JudgedWith& with) {
       with.detectors.composition.persistence_s = with.detectors.rate.persistence_s =
           with.detectors.wait.persistence_s = with.detectors.peers.persistence_s = 0;
       with.alerting.persistence_s = 0;
     }},
    {"no quarantine", [](JudgedWith& with) { with.detectors.composition.quarantine_s = 0; }},
    {"no smallest share",
     [](JudgedWith& with) { with.policy.min_change_share = with.detectors.composition.min_relative_change = 0; }},
    {"no smallest cores",
     [](JudgedWith& with) {
       with.policy.min_change_cores = with.detectors.rate.min_change_cores = 0;
       with.detectors.rate.min_relative_change = 0.1;
     }},
    {"a budget 1,000 times larger", [](JudgedWith& with) { with.policy.false_alarms *= 1000; }},
    {"composition alone",
     [](JudgedWith& with) {
       with.detectors.rate.enabled = with.detectors.wait.enabled = with.detectors.leak.enabled = false;
       with.detectors.peers.enabled = false;
     }},
    {"without composition", [](JudgedWith& with) { with.detectors.composition.enabled = false; }},
    {"with novelty", [](JudgedWith& with) { with.detectors.novelty.enabled = true; }},
    {"with subspace", [](JudgedWith& with) { with.detectors.subspace.enabled = true; }},
};

void print_variant(const char* name, const Scores& scores) {
  Runs changes;
  Runs small;
  Runs others;
  for (const Scored& run : scores.runs) {
    if (run.starved) continue;
    const bool is_small = run.run.kind == "grow1" || run.run.kind == "grow2";
    (!run.run.is_change ? others : is_small ? small : changes).push_back(&run);
  }
  int alerts = 0;
  int false_alerts = 0;
  size_t claims = 0;
  double watched_s = 0;
  for (const Scored& run : scores.runs) {
    if (run.starved) continue;
    false_alerts += run.false_alerts;
    watched_s += run.watched_s;
    alerts += run.alerts;
    if (run.alerts > 0) claims += run.claims;
  }
  const int found = count_if(changes, alerted);
  std::printf("| %s | %d of %zu | %s | %d of %zu | %d | %d of %zu | %.2f | %.2f | %.1f |\n", name, found,
              changes.size(), changes.empty() ? "" : percentile(changes, 0.5).c_str(), count_if(small, alerted),
              small.size(), count_if(changes, first_right),
              count_if(others, [](const Scored& run) { return run.false_alerts > 0; }), others.size(),
              alerts / std::max(1.0, static_cast<double>(found + count_if(small, alerted))),
              static_cast<double>(claims) / std::max(1.0, static_cast<double>(found + count_if(small, alerted))),
              false_alerts / (watched_s / kDay_s));
  std::fflush(stdout);
}

int print_ablation(const std::string& directory, const JudgedWith& with) {
  std::printf(
      "| settings | changes found | median delay | +1 and +2 points found | right in top 1 | not changes with an "
      "alert | alerts per incident | findings per incident | false alarms per process-day |\n"
      "|---|---|---|---|---|---|---|---|---|\n");
  for (const Variant& variant : kVariants) {
    JudgedWith changed = with;
    variant.apply(changed);
    auto scores = score(directory, changed, false);
    if (!scores) return std::fprintf(stderr, "bench_corpus: %s\n", scores.error().why.c_str()), 1;
    print_variant(variant.name, *scores);
  }
  return 0;
}

struct Arguments {
  std::string directory, config;
  bool list = false, ablation = false;
};

std::optional<Arguments> parse(int argc, char** argv) {
  Arguments out;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--config") == 0 && i + 1 < argc) {
      out.config = argv[++i];
    } else if (std::strcmp(argv[i], "--list") == 0) {
      out.list = true;
    } else if (std::strcmp(argv[i], "--ablation") == 0) {
      out.ablation = true;
    } else if (argv[i][0] != '-' && out.directory.empty()) {
      out.directory = argv[i];
    } else {
      return std::nullopt;
    }
  }
  return out.directory.empty() ? std::nullopt : std::optional(out);
}

int run(const Arguments& arguments) {
  auto config = arguments.config.empty() ? parse_config("", "the built-in defaults", detector_schemas())
                                         : load_config(ConfigFiles::of(arguments.config), detector_schemas());
  if (!config)
    return std::fprintf(stderr, "bench_corpus: %s: %s\n", arguments.config.c_str(), config.error().why.c_str()), 1;
  const JudgedWith with{detection_policy(*config), detector_settings(*config), alert_policy_options(*config)};
  if (arguments.ablation) return print_ablation(arguments.directory, with);
  auto scores = score(arguments.directory, with, true);
  if (!scores) {
    std::fprintf(stderr, "bench_corpus: %s: %s (%s)\n", scores.error().what.c_str(), scores.error().why.c_str(),
                 scores.error().hint.c_str());
    return 1;
  }
  if (arguments.list) {
    print_list(*scores);
    return 0;
  }
  print_changes(*scores);
  print_false_alarms(*scores);
  print_notes(*scores);
  return 0;
}

}  // namespace
}  // namespace stackwatch

int main(int argc, char** argv) {
  const auto arguments = stackwatch::parse(argc, argv);
  if (!arguments) {
    std::fprintf(stderr, "usage: bench_corpus DIR [--config FILE] [--list] [--ablation]\n");
    return 2;
  }
  return stackwatch::run(*arguments);
}
