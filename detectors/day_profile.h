// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "detectors/saved_bytes.h"

namespace stackwatch {

/// What one series usually is at each time of day, so that a load that rises each morning is not told each morning.
/// For series of amounts, not of differences.
///
/// Method. For each of the last kDays days and each half hour of it the mean rate is kept. What is usual in a half hour
/// is an order statistic over those days: the load that was reached, or not exceeded, on kNeeded of them at least.
/// No distribution is assumed, and the days' own scatter is in it: a half hour whose days do not agree has a third
/// highest near its lowest. Nothing is usual before kNeeded days are known. One day proves nothing; of two, a burst of
/// an hour at a random time of each day would make 8 % of all half hours look usual; with three of seven it is 1 %.
/// Assumptions. What repeats does so each day, or on most: with three of seven, working days count and a pattern of
/// Mondays alone does not. Neighbouring half hours count too, so it may come early or late by so much.
/// Bounds. 672 bytes and some. A half hour of which less than half was seen is not known; that of a clock that jumps
/// is lost, and so is at most a day of each jump: days that are not among the last seven are not looked at.
/// Source: nonparametric tolerance limits, Wilks 1941.
class DayProfile {
 public:
  static constexpr size_t kDays = 7;
  static constexpr size_t kNeeded = 3;
  static constexpr int64_t kBinS = 1800;
  static constexpr int64_t kBins = 86400 / kBinS;
  /// No tick is longer; what is was not watched.
  static constexpr double kLongestTickS = 600;
  /// The hour and a half before now, and the half hour now: what rises over them rises at this time of day.
  static constexpr int64_t kBefore = 4;

  /// What was usual at a time of day.
  struct Usual {
    double low = 0;   ///< it was at most this on kNeeded days
    double high = 0;  ///< it was at least this on kNeeded days
  };

  /// A tick that ends at this local time, seconds since 1970-01-01 00:00 as wall clocks show it; negative: not known.
  void observe(int64_t local_s, double amount, double interval_s);
  /// Of the half hour with this number since 1970, by the kDays days before it.
  [[nodiscard]] std::optional<Usual> usual(int64_t bin) const;
  /// How high it usually gets in the half hours around this time, and how low it was on the way here; nothing where
  /// either is not known.
  struct Around {
    Usual now;     ///< the widest of the half hour and its neighbours
    Usual before;  ///< the lowest `high` and the highest `low` since kBefore half hours ago
  };
  [[nodiscard]] std::optional<Around> around(int64_t local_s) const;

  [[nodiscard]] bool empty() const { return rates_.empty(); }
  void save(SavedWriter& out) const;
  /// Only numbers from 0 on get in; `in` is not ok() after garbage, and nothing has changed then.
  void restore(SavedReader& in);

 private:
  static constexpr uint16_t kUnknown = 0xffff;
  static constexpr int64_t kNoDay = -1;

  void close();
  void put(int64_t bin, double rate);

  std::vector<uint16_t> rates_;  // [day % kDays][bin], the upper half of a float; empty while nothing is known
  std::array<int64_t, kDays> days_{kNoDay, kNoDay, kNoDay, kNoDay, kNoDay, kNoDay, kNoDay};
  int64_t open_bin_ = kNoDay;
  double open_amount_ = 0;
  double open_s_ = 0;
};

}  // namespace stackwatch
