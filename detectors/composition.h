// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
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
/// building up, so that a change is not learned while it is being noticed. It forgets with a half-life of `memory_s`.
/// A successor of the process (save, restore) is compared with what its predecessor did, by the names of functions.
/// What stood then stands again as soon as there is evidence for it here (kReturnScore). Finding. The stream with the
/// most evidence gives the onset (maximum likelihood over the kept window), the shares since then give the cause
/// (attribution.h). Frame and onset stay for as long as the finding stands. It ends when evidence for the mix before it
/// against the one since has built up likewise (kReturnScore, at least kReturnTicks), when the change is smaller than
/// half of what is worth telling, or when it has become the baseline. Where cost only moved (cost_shift.h), the finding
/// says so. It becomes the baseline soon. More than one. While a finding stands the process is compared with the mix
/// since its onset, learned like a first baseline (`learn_s`, then with quarantine) around which the dispersion that
/// was known goes on. A change of that is a finding of its own. Each keeps the mix before it, the first one the
/// baseline. Shares sum to 1, so each is seen to go back by its share of the samples without what changed after it:
/// neither is a share that another one's growth takes away a return, nor what a return gives to others a change. The
/// same function once more in the same direction is its finding with one more of `growths`; a part of the way back is
/// none. When one of several ends, the mix is learned anew, and when the last one does, the baseline is what it was.
/// Promise. The evidence begins at 0 with each mix that it is measured against. So R_t - t is a martingale from there,
/// and the probability of a false finding in t ticks is at most t / A however often it began anew: what a finding adds
/// is its own return, which is no alarm.
/// Assumptions. Counts vary around a constant share with a dispersion that is about constant over `memory_s` and
/// correlated over no more than two minutes, and that a change leaves about as it was. What begins within `learn_s` of
/// a finding or of the end of one is not told by itself.
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
  /// Findings that stand at once; each keeps a mix, 3 kB for 750 functions and stacks. A further one becomes part of
  /// the mix without being told: the alert policy has 8 places for all probes of a process.
  static constexpr size_t kMaxStanding = ShareHeritage::kMaxStanding;

  /// Of all samples, in stacks of which most frames are [unknown]: as much as may be lost of a tick.
  static constexpr double kMaxUnknown = 0.1;

  /// Where so many stacks lack their roots for longer than this, they always will: a JIT compiler's, say. Unwind tables
  /// took 17 s to come when 50 processes were attached at once.
  static constexpr double kMaxSettling_s = 60;

  CompositionDetector(const DetectionPolicy& policy, const CompositionSettings& settings);

  [[nodiscard]] std::string_view name() const override { return kName; }
  [[nodiscard]] std::optional<Finding> observe(const NamedDelta& delta) override;
  [[nodiscard]] std::vector<Finding> further() const override;
  void set_policy(const DetectionPolicy& policy) override;
  [[nodiscard]] size_t streams() const override { return streams_.used(); }
  /// Empty while the first baseline is being learned, and where too much of it is in stacks without names
  /// (kMaxUnknown): a successor with names would be told as changed.
  [[nodiscard]] std::string save() const override;
  /// The first `learn_s` of the successor are its start-up: neither compared nor learned. Where its later half lacks
  /// names the successor learns by itself.
  [[nodiscard]] Result<void> restore(std::string_view saved) override;
  [[nodiscard]] bool remembers() const override { return inherited_ && !start_up_s_; }
  [[nodiscard]] bool remembers_each() const override { return remembers() && follows_each_; }

  /// What the detector knows, for tests and benchmarks.
  [[nodiscard]] bool is_learning() const { return learning_; }
  /// What it compares with: the mix since the last change where one stands.
  [[nodiscard]] const StackCounts& baseline() const { return baseline_; }
  [[nodiscard]] double strongest_score() const;
  [[nodiscard]] size_t standing() const { return standing_.size(); }

 private:
  struct Item {  // a function by its number in index_, or a stack by its id
    uint32_t index = 0;
    bool is_stack = false;
    bool operator==(const Item&) const = default;
  };
  struct Change {  // a finding that stands
    Cause cause;
    double onset_s = 0;
    double score = 0;
    double dispersion = 1;
    double cores = 0;     // of the process, since
    double evidence = 0;  // for the shares since against those before
    double returned = 0;  // evidence for those before, since it was last none
    size_t return_ticks = 0;
    std::optional<CostShift> shift;
    double shift_since_s = 0;  // it has been one without a break
    uint64_t ticks = 0;        // since it was found
    bool is_proven = true;     // of a predecessor: not before this process is seen to have it
    uint32_t growths = 0;
    double grown = 0;          // since another change came after it
    StackCounts before;        // the mix that it is a change of
    std::vector<Item> others;  // what else is not as it was in that
  };
  struct Portion {
    double count = 0;
    double total = 0;
    void add(double samples, bool is_counted) {
      total += samples;
      if (is_counted) count += samples;
    }
    [[nodiscard]] double share() const { return total > 0 ? count / total : 0; }
  };
  /// Shares of what a change is about, never 0 or 1, in samples without some others.
  struct Comparison {
    double before = 0;
    double after = 0;
    std::vector<Item> without;
  };

  void start_over();
  void note_seen(const Tick& tick, const FunctionTable& functions);
  [[nodiscard]] bool is_settling(const NamedDelta& delta);
  [[nodiscard]] bool is_starting_up(const Tick& tick);
  void claim_heritage();
  void claim_changes(const std::vector<ShareHeritage::Standing>& inherited, std::vector<StackCounts> mixes);
  /// Whether so many samples are in stacks without names that it cannot be compared by names.
  [[nodiscard]] bool lacks_names(const StackCounts& counts) const;
  [[nodiscard]] std::optional<Item> find_item(const ShareHeritage::Standing& change) const;
  [[nodiscard]] Cause cause_at(Item item, const StackCounts& after);
  [[nodiscard]] std::vector<float> since(Item item) const;
  // Names of what has been seen. They are not kept, which would be 7 kB: asked for when a baseline is saved, and while
  // a cost shift is looked for in what a predecessor left.
  [[nodiscard]] std::vector<uint32_t> largest_stacks(const StackCounts& counts) const;
  [[nodiscard]] uint64_t stack_name(uint32_t stack) const;
  [[nodiscard]] uint64_t function_name(uint32_t f) const;
  [[nodiscard]] std::vector<uint64_t> function_keys() const;  // by number in index_
  [[nodiscard]] std::vector<uint64_t> frame_keys(uint32_t stack, const std::vector<uint64_t>& keys) const;
  [[nodiscard]] PastStacks past_stacks(const FunctionTable* functions) const;
  [[nodiscard]] std::optional<Finding> first() const;
  void learn(const Tick& tick);
  void learn_first(const Tick& tick);
  void learn_ripe();
  void begin_comparing();
  void calibrate_all();
  void calibrate(uint32_t stream);
  void recentre();
  void admit(const Tick& tick);
  void make_room();
  void weigh(const Tick& tick);
  void look_for_change();

  // Findings that stand: composition_standing.cpp.
  void accept(Change change, size_t onset, const StackCounts& since);
  void renew(size_t first);
  void follow_changes(const Tick& tick);
  void refresh(size_t i);
  void weigh_return(Change& change, const Tick& tick);
  void end_change(size_t i);
  void adopt();
  static void add_other(Change& change, Item item);
  [[nodiscard]] static Item item_of(const Cause& cause);
  [[nodiscard]] bool is_in(uint32_t stack, Item item);
  [[nodiscard]] bool is_in_any(uint32_t stack, std::span<const Item> items);
  [[nodiscard]] Portion portion(const Tick& tick, Item item, std::span<const Item> without);
  [[nodiscard]] Portion portion(const StackCounts& counts, Item item, std::span<const Item> without);
  [[nodiscard]] Comparison compare(const Change& change, std::vector<Item> without);
  /// Whether a share is what it was only because something else has grown.
  [[nodiscard]] bool is_squeezed(const Change& change);
  /// Whether what changed is that a standing change is partly over.
  [[nodiscard]] bool goes_back(const Change& standing, const Cause& cause, const StackCounts& since);
  [[nodiscard]] bool is_returning() const;
  /// The mix since a standing change, until the next one.
  [[nodiscard]] const StackCounts& mix_after(size_t i) const;
  /// What the process did before anything that stands.
  [[nodiscard]] const StackCounts& home() const { return standing_.empty() ? baseline_ : standing_.front().before; }
  [[nodiscard]] StackCounts& home() { return standing_.empty() ? baseline_ : standing_.front().before; }
  [[nodiscard]] bool is_comparing() const { return !learning_ && !renewing_; }

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
  void tell_shift(Change& change, const StackCounts& before, const StackCounts& after, bool is_first);
  [[nodiscard]] std::optional<Cause> cause_of(const StackCounts& before, const StackCounts& after, double dispersion,
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
  [[nodiscard]] Finding report(const Change& change) const;

  DetectionPolicy policy_;
  CompositionSettings settings_;
  StackIndex index_;
  ShareStreams streams_;
  EvidenceGrid evidence_;
  BlockMoments moments_;
  ShareDispersion dispersion_;
  StackCounts baseline_;
  UnclaimedShares unclaimed_;
  std::vector<ShareHeritage::Standing> inherited_changes_;  // that stood when a predecessor was saved; until the end of
                                                            // the start-up
  const FunctionTable* functions_ = nullptr;                // of the last tick
  std::vector<bool> seen_stacks_;                           // by stack
  std::vector<bool> unknown_stacks_;                        // by stack: is_unknown()
  uint32_t seen_functions_ = 0;                             // of index_, that were seen
  std::optional<double> start_up_s_;  // what is left of the time in which a successor is not judged
  double settling_s_ = 0;             // time in which nothing was learned because stacks lacked their roots
  bool settled_ = false;
  bool inherited_ = false;     // the baseline is a predecessor's, and what was learned since
  bool follows_each_ = false;  // it took over each change that stood then
  TickWindow window_;
  Tick tick_;                     // scratch
  std::vector<Change> standing_;  // in the order in which they were found
  double last_end_s_;
  double calibrated_total_ = 0;  // samples in the baseline when the alternatives were placed
  uint64_t learned_ticks_ = 0;   // ticks of the window (by number) before this one are learned or given up
  uint64_t watched_from_ = 0;    // first tick (by number) after learning, or after the last finding
  uint64_t given_up_ = 0;        // ticks in a row that were not learned because of evidence
  uint64_t ticks_ = 0;
  uint64_t next_attempt_ = 0;  // tick from which on a change that was not worth telling is looked at again
  bool learning_ = true;       // the first baseline
  bool renewing_ = false;      // the mix since the last change is being learned: nothing is compared with it yet
  ProbeKind probe_ = ProbeKind::kOnCpu;
};

}  // namespace stackwatch
