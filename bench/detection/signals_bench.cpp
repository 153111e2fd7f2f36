// SPDX-License-Identifier: Apache-2.0
// False alarms, delays and cost of rate, wait, leak and peers on simulated series. Prints Markdown; about a minute.
#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "detectors/growth.h"
#include "detectors/level_change.h"
#include "detectors/peers.h"
#include "detectors/wait.h"

namespace stackwatch {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// exp of an AR(1): bursty and correlated, mean `level`.
class Bursty {
 public:
  Bursty(uint64_t seed, double level, double deviation, double correlation_s)
      : random_(seed), level_(level), deviation_(deviation), memory_(std::exp(-1 / correlation_s)) {
    state_ = normal_(random_);
  }
  double operator()() {
    state_ = memory_ * state_ + std::sqrt(1 - memory_ * memory_) * normal_(random_);
    return level_ * std::exp(deviation_ * state_ - deviation_ * deviation_ / 2);
  }

 private:
  std::mt19937_64 random_;
  std::normal_distribution<double> normal_;
  double level_, deviation_, memory_;
  double state_ = 0;
};

struct Tally {
  int runs = 0;
  int false_alarms = 0;
  double ticks = 0;
  std::vector<double> delays;
  int missed = 0;

  void print(const std::string& what) {
    std::sort(delays.begin(), delays.end());
    const auto at = [this](double part) {
      return delays.empty() ? 0 : delays[static_cast<size_t>(part * static_cast<double>(delays.size() - 1))];
    };
    std::printf("| %s | %.0f | %d | %zu of %zu | %.0f s | %.0f s |\n", what.c_str(), ticks, false_alarms, delays.size(),
                delays.size() + static_cast<size_t>(missed), at(0.5), at(0.95));
    std::fflush(stdout);
  }
};

/// Runs `tick(changed)` for `quiet` ticks without a change and up to 1000 with it; it says whether a finding stands.
void run(Tally& tally, int quiet, const std::function<bool(bool)>& tick) {
  ++tally.runs;
  for (int i = 0; i < quiet; ++i) {
    ++tally.ticks;
    if (!tick(false)) continue;
    ++tally.false_alarms;
    return;
  }
  for (int i = 1; i <= 1000; ++i) {
    if (!tick(true)) continue;
    tally.delays.push_back(i);
    return;
  }
  ++tally.missed;
}

constexpr int kRuns = 40;
constexpr int kQuiet = 7200;

void print_rate() {
  for (const double deviation : {0.1, 0.3, 0.6}) {
    for (const double factor : {3.0, 5.0}) {
      Tally tally;
      for (uint64_t seed = 0; seed < kRuns; ++seed) {
        LevelChange core({}, {});
        Bursty load(seed, 0.4, deviation, 10);
        double time_s = 0;
        run(tally, kQuiet, [&](bool changed) {
          const double cores = load() * (changed ? factor : 1);
          return core.observe({++time_s, 1, cores, cores, 0}).has_value();
        });
      }
      char what[64];
      std::snprintf(what, sizeof what, "rate: x%.0f, fluctuation %.1f", factor, deviation);
      tally.print(what);
    }
  }
  Tally contention;
  for (uint64_t seed = 0; seed < kRuns; ++seed) {
    LevelChange core({}, {});
    Bursty noise(seed, 1, 0.05, 5);
    double time_s = 0;
    run(contention, kQuiet, [&](bool competitor_ended) {
      const double cores = competitor_ended ? 0.97 : 0.3 * noise();
      return core.observe({++time_s, 1, cores, 0.98 * noise(), 0}).has_value();
    });
  }
  contention.print("rate: a competitor ends (nothing should be found)");
}

/// A stack that waits `threads` on average in waits with log-normal durations, cut at ticks as snapshots are.
double heavy(std::mt19937_64& random, double threads, double shape) {
  std::normal_distribution<double> normal;
  double sum = 0;
  for (int i = 0; i < 20; ++i)
    sum += std::min(1.0, threads / 20 * std::exp(shape * normal(random) - shape * shape / 2));
  return sum;
}

void print_wait() {
  for (const double shape : {0.5, 1.5, 2.5}) {
    for (const double after : {0.3, 0.6}) {
      Tally tally;
      for (uint64_t seed = 0; seed < kRuns; ++seed) {
        std::mt19937_64 random(seed);
        FunctionTable functions;
        StackTable stacks;
        const auto stack = [&](const char* name, const char* how) {
          const std::vector frames = {functions.intern("p", "main"), functions.intern("p", name),
                                      functions.intern("", how)};
          return stacks.intern(frames);
        };
        const StackId disk = stack("load", "io_schedule_[k]");
        const StackId lock = stack("update", "__lll_lock_wait");
        WaitDetector detector({}, {});
        NamedDelta delta;
        delta.probe = ProbeKind::kBlocked;
        delta.interval_s = 1;
        delta.stacks = &stacks;
        delta.functions = &functions;
        run(tally, kQuiet, [&](bool changed) {
          delta.time_s += 1;
          delta.values = {{disk, static_cast<int64_t>(1e9 * heavy(random, 0.1, shape))},
                          {lock, static_cast<int64_t>(1e9 * heavy(random, changed ? after : 0.05, shape))}};
          return detector.observe(delta).has_value();
        });
      }
      char what[64];
      std::snprintf(what, sizeof what, "wait: 0.05 -> %.1f threads, log-normal %.1f", after, shape);
      tally.print(what);
    }
  }
}

void print_leak() {
  for (const double rate : {1e4, 1e5, 1e6, 1e7}) {
    Tally tally;
    for (uint64_t seed = 0; seed < kRuns; ++seed) {
      std::mt19937_64 random(seed);
      std::normal_distribution<double> normal;
      Growth growth({});
      double time_s = 0;
      double leaked = 0;
      run(tally, kQuiet, [&](bool changed) {
        if (changed) leaked += rate;
        growth.observe(++time_s, 5e7 + 1e5 * normal(random) + leaked);
        return growth.claim(21.7).has_value();
      });
    }
    tally.print("leak: " + std::to_string(static_cast<int>(rate / 1000)) + " kB/s");
  }
}

void print_peers() {
  Tally tally;
  for (uint64_t seed = 0; seed < kRuns / 4; ++seed) {
    std::vector<Bursty> noise;
    std::vector<PeerSample> samples(10);
    for (size_t i = 0; i < samples.size(); ++i) {
      noise.emplace_back(seed * 100 + i, 0.3, 0.3, 10);
      samples[i].process = {static_cast<int32_t>(100 + i), 10'000'000};
      samples[i].service = 1;
      samples[i].interval_s = 1;
    }
    PeersDetector detector({}, {});
    run(tally, kQuiet, [&](bool changed) {
      for (size_t i = 0; i < samples.size(); ++i) {
        samples[i].time_s += 1;
        samples[i].on_cpu_s = i == 3 && changed ? 1.0 : std::min(1.0, noise[i]());
      }
      return !detector.observe(samples).empty();
    });
  }
  tally.print("peers: one of ten spins (ticks of ten workers)");
}

// ---- times of day

constexpr int kDays = 14;
constexpr int kDayS = 86400;
constexpr int64_t kFirstDay = 20'000;  // any
using DayPattern = std::function<double(int day, double hour)>;

/// A service for two weeks of seconds.
class Service {
 public:
  Service(uint64_t seed, bool knows_time, double relative) : load_(seed, 1, 0.2, 10), knows_time_(knows_time) {
    LevelChange::Options options;
    options.min_relative_change = relative;
    core_.emplace(DetectionPolicy{}, options);
  }
  /// Whether a claim begins in this second.
  bool tick(int day, int s, double cores) {
    LevelTick tick{++time_s_, 1, cores * load_()};
    tick.wanted = tick.amount;
    if (knows_time_) tick.local_s = (kFirstDay + day) * kDayS + s;
    const bool claims = core_->observe(tick).has_value();
    return claims && !std::exchange(claimed_, claims) ? true : (claimed_ = claims, false);
  }
  int pass(int day, const DayPattern& pattern) {
    int claims = 0;
    for (int s = 0; s < kDayS; ++s) claims += tick(day, s, pattern(day, s / 3600.0)) ? 1 : 0;
    return claims;
  }

 private:
  Bursty load_;
  bool knows_time_;
  std::optional<LevelChange> core_;
  double time_s_ = 0;
  bool claimed_ = false;
};

void print_claims(const char* what, double relative, const DayPattern& pattern) {
  int first = 0;
  std::array<int, 2> later{};
  constexpr int kServices = 5;
  for (uint64_t seed = 0; seed < kServices; ++seed) {
    for (const bool knows : {false, true}) {
      Service service(seed, knows, relative);
      for (int day = 0; day < kDays; ++day) {
        const int claims = service.pass(day, pattern);
        if (day >= 3) later[knows ? 1 : 0] += claims;
        if (day < 3 && knows) first += claims;
      }
    }
  }
  std::printf("| %s | %.1f | %.1f | %.2f | %.2f |\n", what, relative, first / 3.0 / kServices,
              later[1] / double{kDays - 3} / kServices, later[0] / double{kDays - 3} / kServices);
  std::fflush(stdout);
}

/// Delays of a change on the twelfth day, of a service with the office's hours.
void print_delays(const char* what, double hour, double factor, const DayPattern& pattern) {
  std::array<std::vector<double>, 2> delays;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    for (const bool knows : {false, true}) {
      Service service(seed, knows, 0.5);
      for (int day = 0; day < 11; ++day) (void)service.pass(day, pattern);
      const int change_s = static_cast<int>(hour * 3600);
      for (int s = 0; s < kDayS; ++s) {
        const bool found = service.tick(11, s, pattern(11, s / 3600.0) * (s >= change_s ? factor : 1));
        if (s < change_s || !found) continue;
        delays[knows ? 1 : 0].push_back(s - change_s + 1);
        break;
      }
    }
  }
  for (auto& each : delays) std::sort(each.begin(), each.end());
  const auto median = [](const std::vector<double>& each) { return each.empty() ? 0 : each[each.size() / 2]; };
  std::printf("| %s | %zu of 20, %.0f s | %zu of 20, %.0f s |\n", what, delays[1].size(), median(delays[1]),
              delays[0].size(), median(delays[0]));
  std::fflush(stdout);
}

void print_times_of_day() {
  const auto office = [](double factor) {
    return [factor](int, double hour) { return hour >= 9 && hour < 17 ? 0.4 * factor : 0.4; };
  };
  std::printf("\nTwo weeks, 5 services a row; claims of a service and day.\n\n");
  std::printf("| what | min_relative_change | days 1 to 3 | days 4 to 14 | the same without times of day |\n");
  std::printf("|---|---|---|---|---|\n");
  print_claims("x2 from 9 to 17", 0.5, office(2));
  print_claims("x4 from 9 to 17", 1.5, office(4));
  print_claims("x4 from 9 to 17 on five days of seven", 1.5,
               [](int day, double hour) { return day % 7 < 5 && hour >= 9 && hour < 17 ? 1.6 : 0.4; });
  print_claims("x4, begins between 8:36 and 9:24", 1.5, [](int day, double hour) {
    const double begin = 8.6 + 0.8 * ((day * 7) % 10) / 10;
    return hour >= begin && hour < 17 ? 1.6 : 0.4;
  });
  print_claims("x5 for an hour at a random time of each day", 1.5, [](int day, double hour) {
    std::mt19937_64 random(static_cast<uint64_t>(day) + 1);
    const double begin = std::uniform_real_distribution<double>(0, 23)(random);
    return hour >= begin && hour < begin + 1 ? 2.0 : 0.4;
  });
  print_claims("always the same", 1.5, office(1));
  std::printf("\n| change on day 12 of a service that has x2 from 9 to 17 | found, median delay | without |\n");
  std::printf("|---|---|---|\n");
  print_delays("x2 at 3:00", 3, 2, office(2));
  print_delays("x3 at 3:00", 3, 3, office(2));
  print_delays("x2 on top at 12:00", 12, 2, office(2));
  print_delays("x2 on top at 9:00, with the usual one", 9, 2, office(2));
}

void print_cost() {
  std::printf("\n| update of one stream | cost |\n|---|---|\n");
  constexpr int kTicks = 200000;
  {
    LevelChange core({}, {});
    Bursty load(1, 0.4, 0.3, 10);
    std::vector<double> values(kTicks);
    for (double& value : values) value = load();
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < kTicks; ++i) {
      const double value = values[static_cast<size_t>(i)];
      (void)core.observe({i + 1.0, 1, value, value, 0});
    }
    std::printf("| rate, peers (LevelChange) | %.3f us |\n", seconds_since(start) / kTicks * 1e6);
  }
  {
    Growth growth({});
    const auto start = std::chrono::steady_clock::now();
    bool any = false;
    for (int i = 0; i < kTicks; ++i) {
      growth.observe(i, 1e8 + i % 77);
      any = any || growth.claim(21.7).has_value();
    }
    std::printf("| leak (Growth)%s | %.3f us |\n", any ? ", with a claim" : "", seconds_since(start) / kTicks * 1e6);
  }
  {
    constexpr int kStacks = 200;
    constexpr int kWaitTicks = 3000;
    std::mt19937_64 random(1);
    FunctionTable functions;
    StackTable stacks;
    NamedDelta delta;
    delta.probe = ProbeKind::kBlocked;
    delta.interval_s = 1;
    delta.stacks = &stacks;
    delta.functions = &functions;
    std::vector<StackId> ids;
    for (int i = 0; i < kStacks; ++i) {
      const std::vector frames = {functions.intern("p", "main"), functions.intern("p", "f" + std::to_string(i)),
                                  functions.intern("", "io_schedule_[k]")};
      ids.push_back(stacks.intern(frames));
    }
    WaitSettings settings;
    settings.max_streams = 512;
    WaitDetector detector({}, settings);
    double spent_s = 0;
    for (int i = 0; i < kWaitTicks; ++i) {
      delta.time_s += 1;
      delta.values.clear();
      for (const StackId id : ids) delta.values.push_back({id, static_cast<int64_t>(1e9 * heavy(random, 0.02, 1))});
      const auto start = std::chrono::steady_clock::now();
      (void)detector.observe(delta);
      spent_s += seconds_since(start);
    }
    std::printf("| wait, %zu streams, all with waits | %.3f us |\n", detector.streams(),
                spent_s / kWaitTicks / static_cast<double>(detector.streams()) * 1e6);
  }
}

}  // namespace
}  // namespace stackwatch

int main() {
  std::printf("Default settings and policy (one false alarm in 30 days, 1000 streams). Ticks of 1 s.\n\n");
  std::printf("| what | ticks without a change | false alarms | found | delay, median | delay, P95 |\n");
  std::printf("|---|---|---|---|---|---|\n");
  stackwatch::print_rate();
  stackwatch::print_wait();
  stackwatch::print_leak();
  stackwatch::print_peers();
  stackwatch::print_times_of_day();
  stackwatch::print_cost();
  return 0;
}
