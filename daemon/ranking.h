// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "config/config.h"
#include "core/process.h"
#include "daemon/entitlement.h"

namespace stackwatch {

/// What the ranking looks at, per second of wall time; resident memory is a level.
enum class Metric : uint8_t { kOnCpu, kRunQueue, kSwitches, kFaults, kRss, kIo, kCount };
inline constexpr size_t kMetrics = static_cast<size_t>(Metric::kCount);
using Metrics = std::array<double, kMetrics>;

/// One process in one tick.
struct Ranked {
  ProcessKey key;
  double score = 0;
  bool suspect = false;
  Metrics now{};   ///< cores, cores waiting, 1/s, 1/s, bytes, bytes/s
  Metrics past{};  ///< what the process usually does; equal to `now` where it is too young to tell
  double entitled_cores = 0;
  Entitlement::Limits limits;
  double age_s = 0;  ///< since it was seen first
  /// What its score is made of: one part per metric, and last how much of its entitlement it uses and how often it is
  /// throttled. Weighted.
  std::array<double, kMetrics + 1> parts{};

  /// What stands out most: "3.1x its usual CPU", "throttled 40 %", "uses 92 % of its quota".
  [[nodiscard]] std::string reason() const;
};

/// Ranks processes by what they consume against what they are entitled to, and by how far each is from its own past.
///
/// score = w_on_cpu·cores + w_entitlement·(cores/entitled + throttled) + Σ w_m·change_m, where change_m =
/// log2(now/past) of metric m, between 0 and kMaxChange, and 0 while `now` is within kNoiseBand deviations of the past.
/// Past and deviation are exponentially weighted (half-life kPastHalfLifeS); `now` is smoothed over kNowHalfLifeS. It
/// is a heuristic that chooses whom to look at more closely; what people are told is decided by the detectors.
class Ranker {
 public:
  Ranker(RankingConfig config, unsigned cpus) : config_(config), entitlement_(cpus) {}
  Ranker(RankingConfig config, Entitlement entitlement) : config_(config), entitlement_(std::move(entitlement)) {}

  void configure(const RankingConfig& config) { config_ = config; }

  /// One census, by ascending key; `time_s` on the monotonic clock. Returns a row for each sample, in the same order:
  /// few people look at the order of ranks, and to sort 20,000 rows costs more than to make them. Valid until the next
  /// call.
  const std::vector<Ranked>& observe(double time_s, std::span<const ProcessSample> samples);
  [[nodiscard]] const std::vector<Ranked>& ranking() const { return ranking_; }
  /// The row of a process; nullptr where the last census had none.
  [[nodiscard]] const Ranked* find(const ProcessKey& process) const;
  /// At most max_suspects, each at least min_dwell_s once it is one (as long as it lives). Nobody becomes one for a
  /// single busy tick.
  [[nodiscard]] const std::vector<ProcessKey>& suspects() const { return suspects_; }

 private:
  struct Totals {
    uint64_t on_cpu_ns = 0;
    uint64_t run_queue_ns = 0;
    uint64_t switches = 0;
    uint64_t faults = 0;
    uint64_t io_bytes = 0;
  };
  struct History {
    Totals totals;
    Metrics last{};  ///< in the last tick alone
    Metrics now{};   ///< smoothed
    Metrics past{};
    Metrics deviation{};
    int ticks_above = 0;  ///< in a row, the last tick alone was worth a look
    double age_s = -1;    ///< until its first census
    double suspect_since_s = -1;
  };

  [[nodiscard]] static Totals totals_of(const ProcessSample& sample);
  struct Steps {  // of a tick
    double interval_s = 0;
    double now = 0;
    double past = 0;
  };
  static void update(History& history, const ProcessSample& sample, const Steps& steps);
  /// Moves what is known of processes that go on to where the new census has them; `ranking_` gets the keys.
  void follow(std::span<const ProcessSample> samples);
  /// Parts and score of what it does now; entitlement and limits are there.
  void rate(Ranked& ranked, const History& history, const Metrics& now) const;
  void choose_suspects(double time_s);

  RankingConfig config_;
  Entitlement entitlement_;
  // Lists of one order, since that is how a census comes: tables of 20,000 cost more than all that is done with them.
  std::vector<Ranked> ranking_;
  std::vector<History> histories_;  // of ranking_
  std::vector<ProcessKey> suspects_;
  double last_time_s_ = 0;
};

/// "on_cpu", "run_queue", "switches", "faults", "rss", "io".
[[nodiscard]] std::string_view to_string(Metric metric);

}  // namespace stackwatch
