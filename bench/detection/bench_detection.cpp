// SPDX-License-Identifier: Apache-2.0
// How good the detectors are, on simulated processes. Prints Markdown. About a minute and a half of CPU time; --full
// some fifteen minutes.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "detectors/composition.h"
#include "detectors/evidence.h"
#include "optimal_cusum.h"
#include "poisson_interval.h"
#include "public_tables.h"
#include "simulated_process.h"

namespace stackwatch {
namespace {

constexpr int kSamples = 99;

struct Effort {
  int run_length_repetitions = 30;
  int delay_repetitions = 200;
};

/// So small that the size of a change never decides: what is measured is the evidence.
DetectionPolicy bare_policy(double period_s, double streams) {
  DetectionPolicy policy;
  policy.false_alarm_period_s = period_s;
  policy.expected_streams = streams;
  policy.min_change_share = 0.005;
  policy.min_change_cores = 0;
  return policy;
}

CompositionSettings bare_settings(double learn_s) {
  CompositionSettings settings;
  settings.learn_s = learn_s;
  settings.persistence_s = 0;
  settings.min_relative_change = 0;
  return settings;
}

std::vector<SimulatedProcess::Leaf> equal_functions(int count) {
  std::vector<SimulatedProcess::Leaf> leaves;
  for (int i = 0; i < count; ++i) leaves.push_back({{"main", "f" + std::to_string(i)}, 1.0 / count});
  return leaves;
}

std::vector<SimulatedProcess::Leaf> two_functions(double share) {
  return {{{"main", "hot"}, share}, {{"main", "rest"}, 1 - share}};
}

// ---- run lengths

struct RunLength {
  double ticks = 0;
  int alarms = 0;
  size_t streams = 0;
};

RunLength run_length(int functions, double dispersion, double persistence_s, double promised, int repetitions) {
  RunLength out;
  CompositionSettings settings = bare_settings(600);
  settings.persistence_s = persistence_s;
  for (int i = 0; i < repetitions; ++i) {
    SimulatedProcess process(equal_functions(functions), static_cast<uint64_t>(i) * 7919 + 1, kSamples);
    process.set_dispersion(dispersion);
    CompositionDetector detector(bare_policy(promised, 1), settings);
    while (detector.is_learning()) (void)detector.observe(process.tick());
    for (double tick = 0; tick < promised; ++tick) {
      ++out.ticks;
      if (!detector.observe(process.tick())) continue;
      ++out.alarms;
      break;
    }
    out.streams = detector.streams();
  }
  return out;
}

void print_run_lengths(const Effort& effort, double promised, const std::vector<int>& sizes = {2, 10, 100}) {
  std::printf("## Run length without a change, %.0e ticks promised\n\n", promised);
  std::printf(
      "Promise: one false alarm in %.0f ticks, over all streams of the process. Observed for at most as long,\n",
      promised);
  std::printf("%d repetitions a row; each with its own baseline of 600 ticks.\n\n", effort.run_length_repetitions);
  std::printf(
      "| functions | streams | dispersion | persistence | ticks watched | false alarms | mean run length | 95 %% |\n");
  std::printf("|---|---|---|---|---|---|---|---|\n");
  for (const int functions : sizes) {
    for (const double dispersion : {1.0, 2.0, 5.0}) {
      for (const double persistence_s : {0.0, 10.0}) {
        const RunLength r = run_length(functions, dispersion, persistence_s, promised, effort.run_length_repetitions);
        // So many alarms were seen: how few, how many must have been expected, exactly.
        const auto [few, many] = poisson_interval(r.alarms);
        std::printf("| %d | %zu | %.0f | %.0f s | %.0f | %d | %s%.0f | %.0f – %s |\n", functions, r.streams, dispersion,
                    persistence_s, r.ticks, r.alarms, r.alarms == 0 ? "> " : "", r.ticks / std::max(1, r.alarms),
                    r.ticks / many, few > 0 ? std::to_string(static_cast<int64_t>(r.ticks / few)).c_str() : "∞");
        std::fflush(stdout);
      }
    }
  }
}

/// What is promised by default, on a few streams: ticks of a second.
void print_month() { print_run_lengths({4, 0}, 30 * 86400.0, {2, 4}); }

// ---- delays

struct Delays {
  std::vector<double> ticks;
  int misses = 0;

  [[nodiscard]] double mean() const {
    return std::accumulate(ticks.begin(), ticks.end(), 0.0) / static_cast<double>(ticks.size());
  }
  [[nodiscard]] double percentile(double part) {
    std::sort(ticks.begin(), ticks.end());
    return ticks[static_cast<size_t>(part * static_cast<double>(ticks.size() - 1))];
  }
};

struct Case {
  double before;
  double after;
  int baseline_ticks;
  double dispersion;
  bool as_installed;   // the default settings and policy
  double streams = 1;  // of the host, on one budget
};

Delays delays_of(const Case& c, int repetitions) {
  constexpr int kLongest = 5000;
  Delays out;
  for (int i = 0; i < repetitions; ++i) {
    SimulatedProcess process(two_functions(c.before), static_cast<uint64_t>(i) * 104729 + 3, kSamples);
    process.set_dispersion(c.dispersion);
    CompositionDetector detector =
        c.as_installed ? CompositionDetector({}, {})
                       : CompositionDetector(bare_policy(30 * 86400.0, c.streams), bare_settings(c.baseline_ticks));
    bool false_alarm = false;
    for (int tick = 0; tick < c.baseline_ticks; ++tick) false_alarm |= detector.observe(process.tick()).has_value();
    if (false_alarm) std::printf("false alarm before the change\n");
    process.move_share(1, 0, c.after - c.before);
    int ticks = 1;
    while (ticks < kLongest && !detector.observe(process.tick())) ++ticks;
    if (ticks == kLongest) ++out.misses;
    out.ticks.push_back(ticks);
  }
  return out;
}

void print_delays(const Effort& effort) {
  std::printf("\n## Delay until a change is found\n\n");
  std::printf(
      "%d samples a tick of 1 s, %d repetitions a row. \"bare\": one process on a budget of one false alarm in\n",
      kSamples, effort.delay_repetitions);
  std::printf(
      "30 days, persistence and smallest change off. \"installed\": the defaults, 1000 streams on the budget.\n");
  std::printf(
      "The optimal CUSUM is told both shares, has the same budget for one stream, and independent samples.\n\n");
  std::printf(
      "| change | baseline | dispersion | settings | streams | mean | P95 | missed | optimal mean | optimal P95 | "
      "ratio |\n");
  std::printf("|---|---|---|---|---|---|---|---|---|---|---|\n");
  const std::vector<Case> cases{
      {0.01, 0.02, 3600, 1, false},       {0.10, 0.12, 3600, 1, false},       {0.10, 0.11, 3600, 1, false},
      {0.01, 0.02, 3600, 1, false, 1000}, {0.10, 0.12, 3600, 1, false, 1000}, {0.10, 0.11, 3600, 1, false, 1000},
      {0.10, 0.30, 3600, 1, false},       {0.10, 0.12, 3600, 2, false},       {0.10, 0.30, 60, 1, true},
      {0.10, 0.30, 60, 5, true},          {0.10, 0.20, 300, 2, true},         {0.01, 0.05, 300, 1, true}};
  for (const Case& c : cases) {
    Delays found = delays_of(c, effort.delay_repetitions);
    const OptimalCusum cusum(c.before, c.after, kSamples, 30 * 86400.0);
    std::mt19937_64 random(5);
    Delays best;
    for (int i = 0; i < 2000; ++i) best.ticks.push_back(cusum.delay(random));
    std::printf("| %g → %g %% | %d s | %.0f | %s | %.0f | %.1f s | %.0f s | %d | %.1f s | %.0f s | %.2f |\n",
                c.before * 100, c.after * 100, c.baseline_ticks, c.dispersion, c.as_installed ? "installed" : "bare",
                c.as_installed ? 1000 : c.streams, found.mean(), found.percentile(0.95), found.misses, best.mean(),
                best.percentile(0.95), found.mean() / best.mean());
    std::fflush(stdout);
  }
}

// ---- young baselines

constexpr int kYoungBaseline = 240;  // ticks
constexpr int kYoungWatched = 300;
constexpr double kInTime = 60;  // or so many times what the optimum takes
constexpr double kTimesTheOptimum = 2.5;
constexpr int kUntilAlert = 5;  // a finding must stand for so long
constexpr double kYoungPromise = 1e4;
constexpr double kYoungStreams = 8000;  // of the host: as many as sixty recorded programs have
constexpr double kYoungSamples = 100;
constexpr double kHot = 0.107;
constexpr double kMore = 0.0618;  // of the load: 15.9 % are in this function then

/// A server with ten functions below four handlers, each with a helper: 45 streams. The first function has 10.7 %.
std::vector<SimulatedProcess::Leaf> server() {
  constexpr int kFunctions = 10;
  std::vector<SimulatedProcess::Leaf> leaves;
  for (int i = 0; i < kFunctions; ++i) {
    const std::string number = std::to_string(i);
    const std::vector<std::string> stack{"main", "serve", "handle" + std::to_string(i % 4), "f" + number};
    const double share = i == 0 ? kHot : (1 - kHot) * (4 + i) / 81.0;
    leaves.push_back({stack, i == 0 ? share : 0.9 * share});
    if (i == 0) continue;
    leaves.push_back({stack, 0.1 * share});
    leaves.back().stack.push_back("help" + number);
  }
  return leaves;
}

struct Young {
  double ticks = 0;
  int alarms = 0;
  Delays delays;
  int in_time = 0;
  int early = 0;  // found before there was anything to find
};

Young young_baselines(double dispersion, double wandering, double in_time_s, int repetitions) {
  Young out;
  const auto make = [&](int i) {
    SimulatedProcess process(server(), static_cast<uint64_t>(i) * 15485863 + 11, kYoungSamples);
    process.set_dispersion(dispersion);
    process.set_poisson(true);
    if (wandering > 0) process.set_wandering(wandering, 10);
    return process;
  };
  for (int i = 0; i < 2 * repetitions; ++i) {
    SimulatedProcess process = make(i);
    CompositionDetector detector(bare_policy(kYoungPromise, 1), bare_settings(CompositionSettings{}.learn_s));
    bool is_over = false;
    for (int tick = 0; tick < kYoungWatched && !is_over; ++tick) {
      out.ticks += detector.is_learning() ? 0 : 1;
      is_over = detector.observe(process.tick()).has_value();
    }
    out.alarms += is_over ? 1 : 0;
  }
  for (int i = 0; i < repetitions; ++i) {
    SimulatedProcess process = make(i);
    DetectionPolicy policy;
    policy.expected_streams = kYoungStreams;
    CompositionDetector detector(policy, {});
    bool is_early = false;
    for (int tick = 0; tick < kYoungBaseline; ++tick) is_early |= detector.observe(process.tick()).has_value();
    out.early += is_early ? 1 : 0;
    process.set_share(0, kHot + kMore);  // everything else as before: each of the others has a smaller share
    process.set_samples(kYoungSamples * (1 + kMore));
    int ticks = 1;
    while (ticks < kYoungWatched && !detector.observe(process.tick())) ++ticks;
    if (ticks == kYoungWatched) ++out.delays.misses;
    out.in_time += ticks + kUntilAlert <= in_time_s ? 1 : 0;
    out.delays.ticks.push_back(ticks);
  }
  return out;
}

void print_young(const Effort& effort) {
  std::printf("\n## Young baselines\n\n");
  std::printf(
      "A server of ten functions, 45 streams, 100 samples a tick; \"wander\": shares vary by so much for 10 s at a "
      "time.\n"
      "Run length: bare, one false alarm in %.0f ticks, watched from the end of learning (45 s) to tick %d, %d "
      "repetitions.\n"
      "Delay: installed, %.0f streams on the budget, 10.7 → 15.9 %% after %d s, %d repetitions. In time: told as an "
      "alert\n(%d s more) within %.0f s or %.1f times the optimal CUSUM's mean, which has the same budget and one "
      "sample "
      "for so many\nas the dispersion says.\n\n",
      kYoungPromise, kYoungWatched, 2 * effort.delay_repetitions, kYoungStreams, kYoungBaseline,
      effort.delay_repetitions, kUntilAlert, kInTime, kTimesTheOptimum);
  std::printf(
      "| dispersion | wander | ticks watched | false alarms | allowed | mean | P95 | in time | missed | early | "
      "optimal "
      "mean |\n");
  std::printf("|---|---|---|---|---|---|---|---|---|---|---|\n");
  for (const auto& [dispersion, wandering] :
       {std::pair(1.0, 0.0), {1.2, 0.0}, {1.5, 0.0}, {2.0, 0.0}, {5.0, 0.0}, {1.0, 0.05}, {1.2, 0.1}, {1.0, 0.2}}) {
    const OptimalCusum cusum(0.107, 0.159, static_cast<int>(kYoungSamples / dispersion), 30 * 86400.0 * kYoungStreams);
    std::mt19937_64 random(5);
    Delays best;
    for (int i = 0; i < 2000; ++i) best.ticks.push_back(cusum.delay(random));
    const double in_time_s = std::max(kInTime, kTimesTheOptimum * best.mean());
    Young r = young_baselines(dispersion, wandering, in_time_s, effort.delay_repetitions);
    std::printf("| %.1f | %.0f %% | %.0f | %d | %.0f | %.1f s | %.0f s | %d | %d | %d | %.1f s |\n", dispersion,
                100 * wandering, r.ticks, r.alarms, r.ticks / kYoungPromise, r.delays.mean(), r.delays.percentile(0.95),
                r.in_time, r.delays.misses, r.early, best.mean());
    std::fflush(stdout);
  }
}

// ---- cost

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void print_cost() {
  std::printf("\n## Cost\n\n| what | value |\n|---|---|\n");
  {
    EvidenceGrid grid;
    constexpr size_t kStreams = 500;
    constexpr int kTicks = 20000;
    Alternatives alternatives;
    alternatives.per_count.setConstant(0.1F);
    alternatives.per_exposure.setConstant(-0.01F);
    alternatives.decreases = true;
    for (size_t i = 0; i < kStreams; ++i) grid.calibrate(grid.add(), alternatives);
    const auto start = std::chrono::steady_clock::now();
    for (int tick = 0; tick < kTicks; ++tick) {
      grid.begin_tick(kSamples, 3);
      for (size_t i = 0; i < kStreams; ++i) grid.update(i, 3);
      grid.finish_tick();
    }
    std::printf("| evidence of one stream, one tick | %.3f µs |\n", seconds_since(start) / kTicks / kStreams * 1e6);
  }
  for (const int functions : {10, 100, 500}) {
    SimulatedProcess process(equal_functions(functions), 1, kSamples);
    CompositionSettings settings;
    settings.max_streams = 2000;
    CompositionDetector detector({}, settings);
    std::vector<NamedDelta> ticks;
    for (int i = 0; i < 4000; ++i) ticks.push_back(process.tick());
    for (int i = 0; i < 500; ++i) (void)detector.observe(ticks[static_cast<size_t>(i)]);
    const auto start = std::chrono::steady_clock::now();
    for (size_t i = 500; i < ticks.size(); ++i) (void)detector.observe(ticks[i]);
    const double per_tick = seconds_since(start) / static_cast<double>(ticks.size() - 500) * 1e6;
    std::printf("| composition, %d functions, %zu streams: a tick / per stream | %.1f µs / %.3f µs |\n", functions,
                detector.streams(), per_tick, per_tick / static_cast<double>(detector.streams()));
  }
}

}  // namespace
}  // namespace stackwatch

int main(int argc, char** argv) {
  stackwatch::Effort effort;
  bool simulated = true;
  bool full = false;
  std::string data;
  for (int i = 1; i < argc; ++i) {
    const std::string_view option = argv[i];
    if (option == "--full") {
      effort = {400, 2000};
      full = true;
    } else if (option == "--run-lengths") {
      stackwatch::print_run_lengths(effort, 1e4);
      return 0;
    } else if (option == "--month") {
      stackwatch::print_month();
      return 0;
    } else if (option == "--delays") {
      stackwatch::print_delays(effort);
      return 0;
    } else if (option == "--young") {
      stackwatch::print_young(effort);
      return 0;
    } else if (option == "--public-only") {
      simulated = false;
    } else if (option == "--data" && i + 1 < argc) {
      data = argv[++i];
    } else {
      std::fprintf(
          stderr,
          "bench_detection: %s: unknown option (--full, --run-lengths, --month, --delays, --young, --data DIR, "
          "--public-only)\n",
          argv[i]);
      return 2;
    }
  }
  if (simulated) {
    stackwatch::print_run_lengths(effort, 1e4);
    if (full) {
      stackwatch::print_run_lengths({40, 0}, 1e5);
      stackwatch::print_month();
    }
    stackwatch::print_delays(effort);
    stackwatch::print_young(effort);
    stackwatch::print_cost();
  }
  if (data.empty()) return 0;
  if (const auto printed = stackwatch::print_public_tables(data); !printed) {
    std::fprintf(stderr, "bench_detection: %s\n", printed.error().message().c_str());
    return 1;
  }
  return 0;
}
