// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "detectors/detector.h"
#include "detectors/dispersion.h"
#include "detectors/evidence.h"
#include "detectors/settings.h"
#include "detectors/share_streams.h"
#include "detectors/stack_counts.h"
#include "detectors/wait_heritage.h"
#include "detectors/wait_kind.h"

namespace stackwatch {

/// Finds functions and stacks in which threads came to wait longer: a lock that became contended, a disk that became
/// slow. For `blocked`; waiting for a CPU is the machine's doing and `rate`'s to tell.
///
/// Series. Threads waiting on average (seconds waited per second), of every function, callees included, and of every
/// stack that matters, over waits in the middle of work alone. Waits for work to come (wait_kind.h) are left out: they
/// are all the time that is left, and change with every change of load. So are, where names do not tell, stacks in
/// which at least kMainWait threads waited while the baseline was learned: a pool of workers parked in a bare futex.
/// Load. Work waits grow with the work. Each tick's waits are divided by how much more CPU time than usual the process
/// uses (mean of kLoadMeanS); never multiplied where it uses less, since a lock that everybody waits for is what makes
/// it use less.
/// Method. Shiryaev-Roberts mixture of Gaussian likelihood ratios of the level, increases only, with the long-run
/// variance over blocks of 1 to 81 ticks, as in level_change.h. Durations have heavy tails: a wait that lasts is
/// counted in every tick that it spans, at most 1 s a thread and second; a tick is believed no further than
/// kBelieved deviations out; and one tick adds no more evidence than threshold * tick / persistence_s.
/// Names. The deepest function that carries 80 % of the largest growth and does more than wait: `Table::lock_row`, not
/// `futex_wait`. Assumptions: the mix of waits is about constant over memory_s; one change at a time.
/// Cost. 0.1 us per stream with waits and tick; streams without cost nothing. About 250 bytes per stream, and 300
/// ticks.
class WaitDetector final : public Detector {
 public:
  static constexpr std::string_view kName = "wait";
  static constexpr double kMainWait = 0.3;
  static constexpr double kLoadMeanS = 10;
  static constexpr double kBelieved = 3;

  WaitDetector(const DetectionPolicy& policy, const WaitSettings& settings);

  [[nodiscard]] std::string_view name() const override { return kName; }
  [[nodiscard]] std::optional<Finding> observe(const NamedDelta& delta) override;
  [[nodiscard]] std::optional<Finding> observe_census(const CensusDelta& census) override;
  void set_policy(const DetectionPolicy& policy) override;
  [[nodiscard]] size_t streams() const override { return streams_.used(); }
  /// Empty while the first baseline is being learned.
  [[nodiscard]] std::string save() const override;
  /// The first `learn_s` of the successor are its start-up: neither compared nor learned. Where names do not tell, what
  /// it waits in most then is where it is idle, as while learning.
  [[nodiscard]] Result<void> restore(std::string_view saved) override;
  [[nodiscard]] bool remembers() const override { return inherited_ && !start_up_s_; }

  [[nodiscard]] bool is_learning() const { return learning_; }

 private:
  using Item = ShareStreams::Item;
  struct Change {
    Item item;           // what is followed
    uint32_t stack = 0;  // where it grew most
    double before = 0;
    double amount = 0;  // seconds since the onset
    double wall_s = 0;
    double onset_s = 0;
    double score = 0;
    double returned = 0;
    double variance = 0;
    std::vector<Contributor> contributors;
    [[nodiscard]] double after() const { return amount / wall_s; }
  };

  void forget_all();
  /// Leaves waits for work out and takes the load off. False where the tick says nothing.
  bool prepare(const NamedDelta& delta, Tick& tick);
  [[nodiscard]] bool counts(uint32_t stack, const NamedDelta& delta);
  void update_evidence(const Tick& tick);
  void learn(const Tick& tick);
  void learn_ripe();
  void end_learning();
  /// `seen`: counts of some time in which the process did what it usually does.
  void leave_out_main_waits(const StackCounts& seen);
  void learn_names(const Tick& tick);
  void end_start_up();
  void begin_moments(uint32_t stream);
  void calibrate_all();
  void calibrate(size_t stream);
  [[nodiscard]] double variance_of(size_t stream) const;
  [[nodiscard]] double level(const Item& item) const;
  [[nodiscard]] double amount_in(const Tick& tick, const Item& item);  // seconds
  [[nodiscard]] double smallest_change(double level) const;
  [[nodiscard]] double threshold() const { return log_threshold(policy_, streams_.used()); }
  std::optional<Finding> look_for_change();
  [[nodiscard]] size_t onset(const Item& item, double before, double after);
  [[nodiscard]] std::optional<Change> change_since(size_t first, const Item& item, size_t stream);
  void name_cause(Change& change, const StackCounts& after);
  std::optional<Finding> follow_change(const Tick& tick);
  [[nodiscard]] std::optional<Finding> standing() const;

  DetectionPolicy policy_;
  WaitSettings settings_;
  StackIndex index_;
  ShareStreams streams_;
  EvidenceGrid evidence_;
  BlockMoments moments_;
  TickWindow window_;
  StackCounts baseline_;
  std::vector<uint8_t> kinds_;      // by stack: 0 not known, else 1 + WaitKind
  std::vector<uint8_t> left_out_;   // by stack: a main wait without a name
  std::vector<double> deviations_;  // by stream, of one tick of a second
  std::optional<Change> change_;
  const FunctionTable* functions_ = nullptr;
  double last_end_s_ = -std::numeric_limits<double>::infinity();
  double calibrated_s_ = 0;
  double load_ = 0;        // cores, now
  double usual_load_ = 0;  // cores
  double load_seen_s_ = 0;
  uint64_t learned_ticks_ = 0;
  uint64_t watched_from_ = 0;
  bool learning_ = true;
  std::vector<uint64_t> stack_names_;     // by stack; 0: not seen yet
  std::vector<uint64_t> function_names_;  // by number in index_
  InheritedWaits inherited_stacks_;
  InheritedWaits inherited_functions_;
  std::unordered_set<uint64_t> parked_;  // names of stacks that a predecessor left out
  std::optional<double> start_up_s_;     // what is left of the time in which a successor is not judged
  bool inherited_ = false;
};

}  // namespace stackwatch
