// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Eigen/Core>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "detectors/detector.h"

namespace stackwatch {

/// How far a stream's change may reach: half of the alternatives are increases, half decreases. Six sizes in each
/// direction, from the smallest upwards, a factor of about 1.9 apart: a change that falls between two costs less than
/// 10 % more delay.
inline constexpr int kAlternatives = 12;
using AlternativeColumn = Eigen::Array<float, kAlternatives, 1>;

/// What one tick says for each alternative against no change: log-likelihood ratio = per_count x + per_exposure n.
/// Binomial and Gaussian streams both have this form.
struct Alternatives {
  AlternativeColumn per_count = AlternativeColumn::Zero();
  AlternativeColumn per_exposure = AlternativeColumn::Constant(kNever);
  bool decreases = false;  ///< whether any alternative is a decrease: then a tick without counts is evidence too

  /// Exposure alone brings an alternative that may not join to nothing.
  static constexpr float kNever = -100.0F;
};

/// The natural logarithm of the evidence at which a finding may be made: one false alarm on the whole host in the
/// policy's period, over max(policy.expected_streams, own_streams) streams.
/// The Shiryaev-Roberts statistic R of a stream has R_t - t as a martingale under no change, hence E[ticks until
/// R >= A] >= A; the mean of R over K streams has the same property however they depend on one another, so
/// A = K * ticks of the period makes the promise for the host. (Pollak 1985; Ramdas et al. 2023 for the e-process
/// view.)
[[nodiscard]] double log_threshold(const DetectionPolicy& policy, size_t own_streams);

/// Most evidence that a single tick may add, so that no change shorter than `persistence_s` reaches the threshold.
/// Cutting a likelihood ratio from above keeps every promise about false alarms; it also disarms the heavy tails that
/// real counts have and the binomial has not.
[[nodiscard]] double evidence_cap(double threshold, double persistence_s, double tick_s);

/// What the mixture gives to size i of each direction, smallest first: in proportion to 0.6^|i - 1|, in all 1/2. A
/// change that is twice as large is found four times faster anyway, so its smaller weight costs it less time than a
/// smaller one gains. The smallest size itself is told late whatever its weight: its estimate must exceed it.
[[nodiscard]] const AlternativeColumn& mixture_weights();

/// The evidence of many streams for a change: Shiryaev-Roberts, R <- (w + R) exp(LLR), for each stream and
/// alternative with weight w; a stream's evidence is the sum over its alternatives. The evidence of all streams
/// together is their sum: streams that say the same (a function and its only stack, a share and what is left of it)
/// then cost nothing, though they are counted in the threshold.
///
/// A stream without counts costs nothing: while it has no alternative of a decrease and little evidence it sleeps, and
/// when counts arrive the exposure in between is taken off at once. What is left out is that the change may have begun
/// in a tick without counts: it makes R smaller, never larger, so the promise holds, and costs no power worth naming
/// because such a start would have lost its weight at once.
class EvidenceGrid {
 public:
  [[nodiscard]] size_t size() const { return sum_.size(); }
  /// Appends a stream; it may see nothing until it is calibrated.
  size_t add();
  /// All evidence of a stream is forgotten.
  void reset(size_t stream);
  void reset_all();
  /// New alternatives; the evidence gathered so far stays (each tick was weighed by what was known before it).
  void calibrate(size_t stream, const Alternatives& alternatives);

  /// One tick: begin, update() at most once for each stream with counts, finish. `exposure` > 0.
  void begin_tick(double exposure, double cap);
  void update(size_t stream, double count);
  void finish_tick();

  /// Natural logarithm of the evidence of a stream, at most kMaxScore.
  [[nodiscard]] double score(size_t stream) const;
  /// Streams whose evidence was brought up to date in the last tick. All with a positive score are among them.
  [[nodiscard]] std::span<const uint32_t> awake() const { return awake_; }
  /// The awake stream with the most evidence; size() where none is awake.
  [[nodiscard]] size_t strongest() const;
  /// Natural logarithm of the evidence of all awake streams together, at most kMaxScore.
  [[nodiscard]] double total_score() const;

  /// e^80 is as sure as anyone needs to be and fits a float.
  static constexpr double kMaxScore = 80;

 private:
  void advance(size_t stream, float count, float exposure);
  void settle(size_t stream);  // takes off the exposure that passed while it slept
  void wake(size_t stream);

  static constexpr int kSizes = kAlternatives / 2;
  using Sizes = std::array<float, kSizes>;
  /// The alternatives of one direction.
  struct Direction {
    Sizes per_count{};
    Sizes per_exposure{};
    Sizes evidence{};
  };
  static constexpr uint16_t kNone = 0xffff;
  /// One tick, for one direction; the sum of its evidence.
  [[nodiscard]] float weigh(Direction& direction, float count, float exposure) const;
  /// The half of the alternatives from `first` on.
  static void put(Direction& direction, const Alternatives& alternatives, int first);

  // Most streams have small shares, and small shares have no decrease worth telling: only those that have one take the
  // room for it.
  std::vector<Direction> increases_;   // by stream
  std::vector<Direction> decreases_;   // of streams that have them
  std::vector<uint16_t> decrease_of_;  // by stream: its place in decreases_, or kNone
  std::vector<uint16_t> free_;         // places in decreases_
  std::vector<float> sum_;             // of the evidence over the alternatives
  std::vector<double> settled_at_;     // exposure_ when the stream was last up to date
  std::vector<uint8_t> is_awake_;
  std::vector<uint8_t> is_updated_;  // in this tick
  std::vector<uint32_t> awake_;
  double exposure_ = 0;  // of all ticks
  float tick_exposure_ = 0;
  float cap_ = 0;
};

}  // namespace stackwatch
