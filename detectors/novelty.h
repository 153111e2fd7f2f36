// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <limits>
#include <map>
#include <optional>
#include <string_view>
#include <vector>

#include "detectors/detector.h"
#include "detectors/dispersion.h"
#include "detectors/evidence.h"
#include "detectors/settings.h"
#include "detectors/stack_counts.h"

namespace stackwatch {

/// Finds code that never ran before and takes a share that matters, all of it together: a plugin of which each function
/// is small, a path that many callers take, a new function while composition is busy with another change.
///
/// Series. Of the samples of a tick, those in stacks that no tick older than `quarantine_s` had, and those in stacks
/// with a function that none had. Both as a share.
/// Null. A process that changes in nothing goes on to show rare stacks for the first time, a young one all the time.
/// The share of such samples is the unseen mass of Good (1953, after Turing). It is not computed from singletons, which
/// samples in clumps spoil, but measured: each tick's samples outside of all that was older are counted when it is
/// observed, and that count is learned when it is `quarantine_s` old. For exchangeable ticks the expected unseen mass
/// never grows with what was seen before, so the mean over the past bounds that of now from above.
/// It falls as a power of what was seen, and a rate that falls looks like dispersion: so the baseline is never much
/// more than the later half of the past, and at most 2 `memory_s` of it. Method. As in composition: Shiryaev-Roberts
/// mixtures of beta-binomial likelihood ratios (evidence.h, alternatives.h) with the dispersion of the series over
/// blocks of ticks (dispersion.h), increases alone, the threshold from the budget. Valid under continuous looking as
/// those are. Time. What was seen is known when it is `quarantine_s` old, whatever it may have been; nothing holds this
/// up, so the series means the same at every tick. So a change must be found within `quarantine_s`, or never. While a
/// finding stands nothing becomes known; when it ends all that was seen is, so the same code is new once. Finding. The
/// deepest new function with at least kExplains of the new samples is named, with its share (before: 0). Where there is
/// none the finding has no function, but the entries into new code with the most samples as contributors. It ends when
/// the evidence that it is gone has built up, when less than half of what is worth telling is left of it, or after
/// `adopt_after_s`. Assumptions. Ticks are exchangeable but for correlation over at most the longest block, 81 ticks;
/// why `quarantine_s` is not much longer. A program that moves on to other code for good is told, once for each time it
/// does. A job that comes for the first time and lasts longer than `persistence_s` too. After a restart it learns anew:
/// a new build is full of new names, and composition tells those that matter. Stacks with [other] or [unnamed] are
/// never new, so what comes when the table of stacks is full is not seen. Bounds. A bit per stack and function of the
/// tables, the new stacks of kMaxYoung ticks: some kB per process.
/// Off by default: quiet in simulation and over recorded programs, but it found nothing there that others had not, and
/// a job that comes for the first time is no fault.
class NoveltyDetector final : public Detector {
 public:
  static constexpr std::string_view kName = "novelty";
  /// Ticks that are not known yet; the longest quarantine at a tick of 1 s. With shorter ticks they are known sooner.
  static constexpr size_t kMaxYoung = 240;
  static constexpr double kExplains = 0.8;
  /// A rate of new samples from fewer samples tells nothing.
  static constexpr double kMinBaselineSamples = 500;
  static constexpr size_t kMaxContributors = 8;

  NoveltyDetector(const DetectionPolicy& policy, const NoveltySettings& settings);

  [[nodiscard]] std::string_view name() const override { return kName; }
  [[nodiscard]] std::optional<Finding> observe(const NamedDelta& delta) override;
  void set_policy(const DetectionPolicy& policy) override;
  [[nodiscard]] size_t streams() const override { return kSeries; }

  /// What the detector knows, for tests and benchmarks.
  [[nodiscard]] bool is_learning() const { return learning_; }
  /// Share of samples in new stacks, as the baseline has it.
  [[nodiscard]] double usual_share() const { return usual(kNewStacks); }
  [[nodiscard]] size_t young() const { return young_.size(); }

 private:
  static constexpr size_t kNewStacks = 0;
  static constexpr size_t kNewFunctions = 1;
  static constexpr size_t kSeries = 2;

  struct Young {  // a tick that is not known yet; its entries are the stacks that were new in it
    Tick tick;
    std::array<float, kSeries> fresh{};
  };
  struct Baseline {  // what the usual rate of new samples is
    BlockMoments moments;
    std::array<double, kSeries> counts{};
    double total = 0;
    double squares = 0;  // of the ticks' totals
    double wall_s = 0;

    Baseline();
    void add(const Young& young, double weight);
  };
  struct Change {  // a finding that stands
    size_t series = kNewStacks;
    std::optional<FunctionId> frame;
    StackId stack;
    double before = 0;
    double dispersion = 1;
    double onset_s = 0;
    double score = 0;
    double returned = 0;  // evidence that it is gone
    double count = 0;     // since the onset
    double total = 0;
    double wall_s = 0;
    double cpu_s = 0;
    std::vector<Contributor> contributors;

    [[nodiscard]] double after() const { return total > 0 ? count / total : 0; }
    [[nodiscard]] double cores() const { return wall_s > 0 ? cpu_s / wall_s : 0; }
  };

  void start_over();
  [[nodiscard]] std::optional<Finding> standing() const;
  /// Leaves the stacks that are new in the tick at hand, and counts.
  void keep_new();
  [[nodiscard]] bool is_new_function(FunctionId id) const;
  [[nodiscard]] bool has_new_function(uint32_t stack) const;
  void know(uint32_t stack);
  void learn_first();
  void learn_ripe();
  void measure(const Young& young);
  void calibrate();
  void weigh();
  [[nodiscard]] std::optional<Finding> look_for_change();
  [[nodiscard]] std::optional<Finding> follow_change();
  void forget_change();

  [[nodiscard]] double threshold() const { return log_threshold(policy_, kSeries); }
  [[nodiscard]] double usual(size_t series) const;
  [[nodiscard]] double min_change(double share) const;
  [[nodiscard]] double weight_of(const Tick& tick) const;
  [[nodiscard]] bool worth_telling(const Change& change, double part) const;
  /// Samples of a tick that belong to the change.
  [[nodiscard]] double count_of(const Tick& tick, const Change& change) const;
  /// The first young tick of the change, most likely; sets what came since.
  size_t set_onset(Change& change) const;
  void name(Change& change, size_t first) const;
  [[nodiscard]] std::vector<Contributor> entries_of(const std::map<uint32_t, double>& counts, double total) const;

  DetectionPolicy policy_;
  NoveltySettings settings_;
  const StackTable* table_ = nullptr;
  std::vector<bool> seen_stacks_;
  std::vector<bool> known_stacks_;
  std::vector<bool> known_functions_;  // by id in the table of the machine, at most 32 kB
  std::deque<Young> young_;            // oldest first
  Young now_;
  EvidenceGrid evidence_;
  Baseline baseline_;
  Baseline next_;  // the younger part of it, which succeeds it
  ShareDispersion dispersion_;
  double calibrated_total_ = 0;
  double lead_s_ = 0;      // seen before the first tick that could be measured
  size_t unmeasured_ = 0;  // young ticks, the oldest ones, that are in the baseline already
  std::optional<Change> change_;
  double last_end_s_ = -std::numeric_limits<double>::infinity();
  bool learning_ = true;
  ProbeKind probe_ = ProbeKind::kOnCpu;
};

}  // namespace stackwatch
