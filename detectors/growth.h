// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "detectors/detector.h"

namespace stackwatch {

/// A level that grows without going back, at one tick.
struct GrowthClaim {
  double before = 0;      ///< the lowest level of the block in which the growth began
  double after = 0;       ///< the level now
  double per_second = 0;  ///< mean growth since then
  double onset_s = 0;
  double score = 0;  ///< ln of the evidence
};

/// Tells a level that grows without end from one that fills up, and from one that rises and falls. One series; O(1)
/// memory (0.7 kB) and about 20 ns per tick.
///
/// Method. Time is cut into blocks; of each only the lowest level counts, so that whatever is given back within a block
/// does not matter. The evidence is the product of bets, one per block, that its lowest level is above all since the
/// account was opened. With k blocks before it a bet that wins multiplies by kBet (k+1), one that loses by
/// (1-kBet) (k+1)/k. For exchangeable blocks (a level without a trend, whatever its distribution) records are
/// independent and come with probability 1/(k+1) (Renyi 1962), so the account is a martingale and its logarithm can be
/// held against the threshold of the budget (betting against exchangeability: Vovk 2021). An account that has lost its
/// stake is opened anew, which makes it a CUSUM: it is never above the Shiryaev-Roberts sum that the budget is for.
/// Saw-teeth (garbage collection, pools that are emptied). When the level falls by a good part of what it had risen,
/// the time since the last such fall is the length of a tooth: blocks become at least kToothBlocks times as long and
/// the account starts anew, so that each block contains a floor and only rising floors win.
/// Caches that fill. The growth must not slow down: the later half of it must have at least kNotSlower of the earlier
/// half's growth, and the last quarter as much in proportion.
/// What it cannot see. A cache that fills at an even pace for longer than it takes to be sure; the first tooth of a
/// saw whose teeth are longer than that. Falls end the claim in both cases.
class Growth {
 public:
  static constexpr double kBet = 0.85;
  static constexpr double kToothBlocks = 1.5;
  static constexpr double kFall = 0.3;
  static constexpr double kNotSlower = 0.6;
  static constexpr double kLongestBlockS = 3600;

  struct Options {
    double settle_s = 300;    ///< growth in the first so many seconds is start-up
    double block_s = 15;      ///< shortest block
    double min_growth = 2e6;  ///< smallest growth worth telling, absolute; falls below a tenth of it are no teeth
    double min_relative = 0;  ///< likewise, as a part of the level before
  };

  explicit Growth(const Options& options) : options_(options) {}

  /// The level at a time; later times in later calls. Levels that are no number are skipped.
  void observe(double time_s, double level);
  /// What is claimed now, against ln of the evidence that the budget asks for.
  [[nodiscard]] std::optional<GrowthClaim> claim(double threshold);
  [[nodiscard]] double score() const { return score_; }
  [[nodiscard]] double level() const { return level_; }
  [[nodiscard]] double block_s() const { return block_s_ > 0 ? block_s_ : options_.block_s; }

 private:
  /// The lowest levels since the account was opened, thinned out by halves when they are too many.
  struct Point {
    double time_s = 0;
    double level = 0;
  };
  static constexpr size_t kPoints = 32;

  void begin(double time_s);
  void end_block(double time_s);
  void keep(const Point& point);
  void look_for_fall(double time_s);
  [[nodiscard]] bool slows_down() const;
  [[nodiscard]] double level_at(double part) const;

  Options options_;
  double highest_ = 0;  // of the lowest levels of the blocks
  size_t blocks_ = 0;
  std::array<Point, kPoints> points_{};
  size_t used_points_ = 0;
  size_t keep_every_ = 1;
  double level_ = 0;
  double time_s_ = 0;
  double first_s_ = 0;
  double block_begin_s_ = 0;
  double block_lowest_ = 0;
  double block_s_ = 0;
  double score_ = 0;
  double peak_ = 0;   // since the last floor
  double floor_ = 0;  // lowest since the last peak
  double last_fall_s_ = 0;
  int flat_blocks_ = 0;
  bool started_ = false;
  bool claimed_ = false;
};

}  // namespace stackwatch
