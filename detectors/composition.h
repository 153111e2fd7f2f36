// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "detectors/attribution.h"
#include "detectors/cost_shift.h"
#include "detectors/detector.h"
#include "detectors/dispersion.h"
#include "detectors/evidence.h"
#include "detectors/settings.h"
#include "detectors/share_heritage.h"
#include "detectors/share_streams.h"
#include "detectors/stack_counts.h"

namespace stackwatch {

/// Finds changes in what a process spends its samples on: the inclusive share of every function and the share of every
/// stack, given the number of samples in the tick. More or less load with the same mix is no finding.
///
/// Method. Per stream a Shiryaev-Roberts mixture over sizes of change (evidence.h, alternatives.h) of binomial
/// likelihood ratios, to the power 1/dispersion (dispersion.h), against the edge of the interval in which the learned
/// share lies: the baseline has an error, and long watching against a wrong one would turn the error into evidence.
/// The alternatives are placed by absolute size, from the smallest change worth telling upwards, not by log-odds: a
/// function that was never seen has no finite log-odds, and small changes of large shares are not looked for at all.
/// Baseline. The first `learn_s` of ticks at once; later ticks when they are `quarantine_s` old and no evidence is
/// building up, so that a change is not learned while it is being noticed; nothing while a finding stands. It forgets
/// with a half-life of `memory_s`.
/// A successor of the process (save, restore) is compared with what its predecessor did, by the names of functions.
/// Finding. The stream with the most evidence gives the onset (maximum likelihood over the kept window), the shares
/// since then give the cause (attribution.h). Frame and onset stay for as long as the finding stands. It ends when
/// evidence for the baseline against the change has built up likewise (kReturnScore, at least kReturnTicks), when the
/// change since the onset is smaller than half of what is worth telling, or when it has become the baseline.
/// Where cost only moved (cost_shift.h), the finding says so. It becomes the baseline soon: who waits for an hour sees
/// no other change in that time.
/// Assumptions. Counts vary around a constant share with a dispersion that is about constant over `memory_s` and
/// correlated over no more than two minutes. One change at a time: while a finding stands, another one in the same
/// process is not told.
/// Sources: Shiryaev 1963, Roberts 1966, Pollak 1985 (the statistic); Wedderburn 1974 (quasi-likelihood); Ramdas,
/// Grünwald, Vovk, Shafer 2023 (evidence valid at any time).
class CompositionDetector final : public Detector {
 public:
  static constexpr std::string_view kName = "composition";
  /// A baseline of fewer samples tells nothing, however long it took.
  static constexpr double kMinBaselineSamples = 200;
  /// A finding ends at this evidence, e^10 to 1, for the baseline against the change; gathered in at least 10 ticks.
  static constexpr double kReturnScore = 10;
  static constexpr double kReturnTicks = 10;

  /// Where so many stacks lack their roots for longer than this, they always will: a JIT compiler's, say. Unwind tables
  /// took 17 s to come when 50 processes were attached at once.
  static constexpr double kMaxSettling_s = 60;

  CompositionDetector(const DetectionPolicy& policy, const CompositionSettings& settings);

  [[nodiscard]] std::string_view name() const override { return kName; }
  [[nodiscard]] std::optional<Finding> observe(const NamedDelta& delta) override;
  void set_policy(const DetectionPolicy& policy) override;
  [[nodiscard]] size_t streams() const override { return streams_.used(); }
  /// Empty while the first baseline is being learned.
  [[nodiscard]] std::string save() const override;
  /// The first `learn_s` of the successor are its start-up: neither compared nor learned.
  [[nodiscard]] Result<void> restore(std::string_view saved) override;
  [[nodiscard]] bool remembers() const override { return inherited_ && !start_up_s_; }

  /// What the detector knows, for tests and benchmarks.
  [[nodiscard]] bool is_learning() const { return learning_; }
  [[nodiscard]] const StackCounts& baseline() const { return baseline_; }
  [[nodiscard]] double strongest_score() const;

 private:
  struct Change {  // a finding that stands
    Cause cause;
    double onset_s = 0;
    double score = 0;
    double dispersion = 1;
    double returned = 0;  // evidence for the baseline
    std::optional<CostShift> shift;
    double shift_since_s = 0;  // it has been one without a break
    uint64_t ticks = 0;        // since it was found
    StackCounts after;
  };

  void start_over();
  void learn_names(const Tick& tick, const FunctionTable& functions);
  [[nodiscard]] bool is_settling(const NamedDelta& delta);
  [[nodiscard]] bool is_starting_up(const Tick& tick);
  void claim_heritage();
  [[nodiscard]] std::vector<uint64_t> function_keys() const;  // by number in index_
  [[nodiscard]] std::vector<uint64_t> frame_keys(uint32_t stack, const std::vector<uint64_t>& keys) const;
  [[nodiscard]] PastStacks past_stacks(const FunctionTable* functions) const;
  std::optional<Finding> skip() const;
  void learn(const Tick& tick);
  void learn_first(const Tick& tick);
  void learn_ripe();
  void calibrate_all();
  void calibrate(uint32_t stream);
  void admit(const Tick& tick);
  void make_room();
  void weigh(const Tick& tick);
  std::optional<Finding> look_for_change();
  std::optional<Finding> follow_change(const Tick& tick);
  void refresh(const Tick& tick);
  void weigh_return(const Tick& tick);
  void adopt();
  void forget_change();

  [[nodiscard]] double threshold() const;
  /// How much of a tick's samples counts as evidence.
  [[nodiscard]] double weight_of(const Tick& tick) const;
  [[nodiscard]] ShareDispersion::Share baseline_of(size_t stream) const;
  [[nodiscard]] double min_change(double share) const;
  /// Age at which a tick is learned.
  [[nodiscard]] double quarantine_s() const;
  /// `part` of the smallest change worth telling.
  [[nodiscard]] bool worth_telling(const Change& change, double part) const;
  /// A finding that is no more than cost that moved is the new baseline after this time.
  [[nodiscard]] bool is_to_be_adopted(const Change& change) const;
  void tell_shift(Change& change);
  [[nodiscard]] std::optional<Cause> cause_of(const StackCounts& after, double dispersion,
                                              std::optional<uint32_t> function);
  /// First tick of the window that belongs to the change of a function (or stack), most likely.
  [[nodiscard]] size_t onset_of(bool is_stack, uint32_t item);
  /// Counts of a function (or stack) in each tick of the window from `first` on.
  [[nodiscard]] std::vector<double> series_of(bool is_stack, uint32_t item, size_t first);
  [[nodiscard]] StackCounts sum_since(size_t first);
  /// Index in the window of the first tick that was watched, after learning and after the last finding.
  [[nodiscard]] size_t first_watched() const;
  /// Share before a change as it is used in ratios: never 0 or 1, which one stray sample would refute.
  [[nodiscard]] double share_before(bool is_stack, uint32_t item) const;
  [[nodiscard]] Finding report() const;

  DetectionPolicy policy_;
  CompositionSettings settings_;
  StackIndex index_;
  ShareStreams streams_;
  EvidenceGrid evidence_;
  BlockMoments moments_;
  ShareDispersion dispersion_;
  StackCounts baseline_;
  UnclaimedShares unclaimed_;
  const FunctionTable* functions_ = nullptr;  // of the last tick
  std::vector<uint64_t> stack_names_;         // by stack; 0: not seen yet
  std::vector<uint64_t> function_names_;      // by number in index_
  std::optional<double> start_up_s_;          // what is left of the time in which a successor is not judged
  double settling_s_ = 0;                     // time in which nothing was learned because stacks lacked their roots
  bool settled_ = false;
  bool inherited_ = false;  // the baseline is a predecessor's, and what was learned since
  TickWindow window_;
  Tick tick_;  // scratch
  std::optional<Change> change_;
  double last_end_s_;
  double calibrated_total_ = 0;  // samples in the baseline when the alternatives were placed
  uint64_t learned_ticks_ = 0;   // ticks of the window (by number) before this one are learned or given up
  uint64_t watched_from_ = 0;    // first tick (by number) after learning, or after the last finding
  uint64_t given_up_ = 0;        // ticks in a row that were not learned because of evidence
  uint64_t ticks_ = 0;
  uint64_t next_attempt_ = 0;  // tick from which on a change that was not worth telling is looked at again
  bool learning_ = true;
  ProbeKind probe_ = ProbeKind::kOnCpu;
};

}  // namespace stackwatch
