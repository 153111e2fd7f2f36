// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "detectors/detector.h"
#include "detectors/dispersion.h"
#include "detectors/evidence.h"
#include "detectors/level_heritage.h"
#include "detectors/level_window.h"

namespace stackwatch {

/// A lasting change of the level of one series of plain numbers, at one tick.
struct LevelClaim {
  double before = 0;     ///< learned level
  double after = 0;      ///< mean since the onset
  double onset_s = 0;    ///< most likely begin
  double score = 0;      ///< ln of the evidence
  double threshold = 0;  ///< what the budget asks for
};

/// Finds lasting changes of the level of one series. The univariate core of `rate`, `peers` and `subspace`; knows
/// nothing about processes. Causal, deterministic, bounded memory (10 kB where more is wanted than got, else 6), about
/// 0.3 us per tick.
///
/// Method. Shiryaev-Roberts mixture (evidence.h) of Gaussian likelihood ratios between the edge of the interval of the
/// learned level and levels from the smallest change away to far away, both directions. The variance is the long-run
/// one: the largest of those of blocks of 1 to 81 ticks, so that bursts and phases of more than a minute that were
/// seen while learning are no evidence. One tick adds at most threshold * tick / persistence_s: no change shorter than
/// `persistence_s` is told, and tails may be as heavy as they like.
/// What others do to it. Where a tick tells what was wanted as well as what was got, the evidence is for the smaller of
/// the two deviations from their levels, and for nothing while they point in different directions: whoever gets more
/// because a competitor left wants no more, and whoever is held back wants no less. For a closed loop of threads that
/// compute, queue and think the two always move apart when only the queueing changes.
/// Baseline. The first `learn_s`, longer where the level of its later half is not that of its first (start-up: the
/// first half is dropped and learning goes on); afterwards ticks that are `quarantine_s` old while no evidence builds
/// up. Each value is cut off at kWinsor standard deviations before it is learned.
/// Times of day. Where ticks tell what wall clocks show, a change that is usual at this hour (day_profile.h) is none:
/// the new level is at most as far out as it was at this time on three of the last seven days, and the load of those
/// days rose (or fell) at this time too; both within half of a change worth telling. It is learned at once as the new
/// level, as after an alert that stood for adopt_after_s, which costs learn_s in which nothing is told. So a service
/// that always was on one level is judged as if there were no times of day.
/// A successor (inherit) is judged against the level of its predecessor. Its first learn_s, longer where it does not
/// settle, are its start-up: neither judged nor learned.
/// Assumptions. The level is about constant over `memory_s`, but for what comes each day.
class LevelChange {
 public:
  static constexpr double kWinsor = 8;
  static constexpr double kReturnScore = 10;
  static constexpr double kReturnTicks = 10;

  struct Options {
    double learn_s = 180;
    double quarantine_s = 60;
    double memory_s = 7200;
    double persistence_s = 20;
    double adopt_after_s = 3600;
    /// Smallest increase worth telling, as a part of the level; the smallest decrease is as large a factor downwards:
    /// 1.5 is 2.5 times as much, or 2.5 times less.
    double min_relative_change = 1.5;
    double min_change = 0.1;       ///< likewise, absolute, > 0; the larger counts
    bool may_be_negative = false;  ///< a difference, not an amount
  };

  LevelChange(const DetectionPolicy& policy, const Options& options);

  /// A tick that ends after the last one, with finite numbers and interval_s > 0. Amounts may be negative.
  /// What is claimed at this tick; repeated while the change stands.
  std::optional<LevelClaim> observe(LevelTick tick);
  /// The tick cannot be used: what is claimed stands.
  [[nodiscard]] std::optional<LevelClaim> standing() const;
  /// From the next tick on; nothing is forgotten.
  void set_policy(const DetectionPolicy& policy, double min_change);

  /// What it has learned; nothing while that is nothing. Without a level while that is being learned.
  [[nodiscard]] std::optional<LevelHeritage> heritage() const;
  /// Begins anew with what a predecessor had learned.
  void inherit(const LevelHeritage& heritage);
  /// Whether it judges by a level that it inherited.
  [[nodiscard]] bool remembers() const { return inherited_ && !start_up_s_; }

  [[nodiscard]] bool is_learning() const { return learning_; }
  [[nodiscard]] double level() const { return amount_ / std::max(exposure_, 1e-9); }
  [[nodiscard]] double score() const { return evidence_.score(0); }
  [[nodiscard]] double last_end_s() const { return last_end_s_; }

 private:
  struct Change {
    double before = 0;
    double onset_s = 0;
    double score = 0;
    double amount = 0;  // since the onset
    double own = 0;
    double wall_s = 0;
    double returned = 0;
    [[nodiscard]] double after() const { return amount / wall_s; }
    [[nodiscard]] double own_after() const { return own / wall_s; }
    void add(const LevelTick& tick);
  };

  [[nodiscard]] double wanted_level() const { return wanted_ / std::max(exposure_, 1e-9); }
  /// The rate that the series would have by its own doing.
  [[nodiscard]] double own_rate(const LevelTick& tick) const;
  /// Cut off at the distance from the level that one tick may be evidence for.
  [[nodiscard]] double believed(double rate) const;
  void learn(const LevelTick& tick);
  void learn_first(const LevelTick& tick);
  void relearn_since(double begin_s);
  void learn_ripe();
  void calibrate();
  /// Whether the later half of the last `length_s` is on the level of its first half.
  [[nodiscard]] bool settled(double length_s) const;
  std::optional<LevelClaim> look_for_change();
  std::optional<LevelClaim> follow_change(const LevelTick& tick);
  void forget_change();
  void adopt(double onset_s);
  void pass_start_up(const LevelTick& tick);
  /// Whether the change is what the series does at this time of day.
  [[nodiscard]] bool is_usual_now(const Change& change) const;
  /// Most likely first tick of a change to about `after`, as an index in the window.
  [[nodiscard]] size_t onset(double after) const;
  /// Median rate of the newest ticks, as many as the persistence asks for.
  [[nodiscard]] double recent() const;
  [[nodiscard]] double threshold() const { return log_threshold(policy_, 1); }
  [[nodiscard]] double smallest_change() const { return smallest_change(level()); }
  [[nodiscard]] double smallest_decrease() const { return smallest_decrease(level()); }
  [[nodiscard]] double smallest_change(double level) const;
  [[nodiscard]] double smallest_decrease(double level) const;
  [[nodiscard]] bool worth_telling(const Change& change, double part) const;

  DetectionPolicy policy_;
  Options options_;
  EvidenceGrid evidence_;
  BlockMoments moments_;
  LevelWindow window_;
  std::optional<Change> change_;
  double last_end_s_;
  double amount_ = 0;     // of the baseline
  double wanted_ = 0;     // likewise
  double exposure_ = 0;   // of the baseline, seconds
  double variance_ = 0;   // long-run, per second
  double deviation_ = 0;  // of one second, without the correlation over time
  double calibrated_s_ = 0;
  std::optional<double> learning_since_s_;
  std::optional<double> start_up_s_;  // of a successor: how long it has lasted
  bool inherited_ = false;
  DayProfile day_;
  int64_t local_s_ = -1;  // of the newest tick
  uint64_t learned_ticks_ = 0;
  uint64_t watched_from_ = 0;
  bool learning_ = true;
};

}  // namespace stackwatch
