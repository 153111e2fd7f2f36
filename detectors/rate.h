// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string_view>

#include "detectors/detector.h"
#include "detectors/dispersion.h"
#include "detectors/evidence.h"
#include "detectors/rate_window.h"
#include "detectors/settings.h"

namespace stackwatch {

/// Finds lasting changes of how much a probe counts in a process at all: CPU cores in use (on_cpu, from the CPU time,
/// which is exact, not from samples), threads that wait on average (blocked, run_queue), page faults per second.
///
/// Method. Shiryaev-Roberts mixture (evidence.h) of Gaussian likelihood ratios between the edge of the interval of the
/// learned level and levels from `min_relative_change` away to far away, both directions. The variance is the long-run
/// one: the largest of those of blocks of 1 to 128 ticks, so that bursts and phases of up to two minutes that were
/// seen while learning are no evidence. One tick adds at most threshold * tick / persistence_s: no change shorter than
/// `persistence_s` is told, and tails may be as heavy as they like.
/// Baseline. The first `learn_s`, longer where the level of its later half is not that of its first (start-up: the
/// first half is dropped and learning goes on); afterwards ticks that are `quarantine_s` old while no evidence builds
/// up. Each value is cut off at kWinsor standard deviations before it is learned.
/// Assumptions. The level is about constant over `memory_s`; no seasons: load that doubles every morning is told
/// every morning, where it passes the smallest change.
class RateDetector final : public Detector {
 public:
  static constexpr std::string_view kName = "rate";
  static constexpr double kWinsor = 8;
  static constexpr double kReturnScore = 10;
  static constexpr double kReturnTicks = 10;

  RateDetector(ProbeKind probe, const DetectionPolicy& policy, const RateSettings& settings);

  [[nodiscard]] std::string_view name() const override { return kName; }
  [[nodiscard]] std::optional<Finding> observe(const NamedDelta& delta) override;
  void set_policy(const DetectionPolicy& policy) override;
  [[nodiscard]] size_t streams() const override { return 1; }

  [[nodiscard]] bool is_learning() const { return learning_; }
  [[nodiscard]] double level() const { return amount_ / std::max(exposure_, 1e-9); }
  [[nodiscard]] double score() const { return evidence_.score(0); }

 private:
  struct Change {
    double before = 0;
    double onset_s = 0;
    double score = 0;
    double amount = 0;  // since the onset
    double wall_s = 0;
    double returned = 0;
    [[nodiscard]] double after() const { return amount / wall_s; }
  };

  /// The rate of a tick, cut off at the distance from the level that it may be evidence for.
  [[nodiscard]] double believed(const RateTick& tick) const;
  void learn(const RateTick& tick);
  void learn_first(const RateTick& tick);
  void relearn_since(double begin_s);
  void learn_ripe();
  void calibrate();
  /// Whether the later half of what was learned first is on the level of its first half.
  [[nodiscard]] bool settled() const;
  std::optional<Finding> look_for_change();
  std::optional<Finding> follow_change(const RateTick& tick);
  void forget_change();
  /// Most likely first tick of a change to about `after`, as an index in the window.
  [[nodiscard]] size_t onset(double after) const;
  /// Median rate of the newest ticks, as many as the persistence asks for.
  [[nodiscard]] double recent() const;
  [[nodiscard]] double threshold() const { return log_threshold(policy_, 1); }
  [[nodiscard]] double smallest_change() const;
  [[nodiscard]] bool worth_telling(const Change& change, double part) const;
  [[nodiscard]] Finding report() const;

  ProbeKind probe_;
  DetectionPolicy policy_;
  RateSettings settings_;
  EvidenceGrid evidence_;
  BlockMoments moments_;
  RateWindow window_;
  std::optional<Change> change_;
  double last_end_s_;
  double amount_ = 0;     // of the baseline
  double exposure_ = 0;   // of the baseline, seconds
  double variance_ = 0;   // long-run, per second
  double deviation_ = 0;  // of one second, without the correlation over time
  double calibrated_s_ = 0;
  double learning_since_s_ = 0;
  uint64_t learned_ticks_ = 0;
  uint64_t watched_from_ = 0;
  bool learning_ = true;
};

}  // namespace stackwatch
