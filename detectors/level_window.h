// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace stackwatch {

/// One value of a series: an amount that came about in an interval.
struct LevelTick {
  double end_s = 0;
  double interval_s = 0;  ///< > 0
  double amount = 0;      ///< e.g. CPU seconds; the level is amount / interval_s
  /// The amount that there would have been had nobody else been in the way, e.g. CPU plus run-queue seconds. The same
  /// as `amount` where there is no such thing.
  double wanted = 0;
  /// Set by the detector: `amount`, with what others did to it taken out.
  double own = 0;

  [[nodiscard]] double begin_s() const { return end_s - interval_s; }
  [[nodiscard]] double rate() const { return amount / interval_s; }
  [[nodiscard]] double wanted_rate() const { return wanted / interval_s; }
  [[nodiscard]] double own_rate() const { return own / interval_s; }
};

/// The last ticks, oldest first; bounded.
class LevelWindow {
 public:
  /// Eight minutes at a tick of 1 s, 12 kB: twice the longest quarantine. Onsets further back cannot be told.
  static constexpr size_t kCapacity = 512;

  void push(const LevelTick& tick);
  [[nodiscard]] size_t size() const { return size_; }
  /// Amounts and the interval are kept to seven digits: what is computed with a tick of the past is a sum or a median.
  [[nodiscard]] LevelTick operator[](size_t i) const {
    const Packed& tick = ticks_[(first_ + i) % kCapacity];
    return {tick.end_s, static_cast<double>(tick.interval_s), static_cast<double>(tick.amount),
            static_cast<double>(tick.wanted), static_cast<double>(tick.own)};
  }
  /// How many ticks were ever pushed: the tick with number pushed() - 1 is the newest.
  [[nodiscard]] uint64_t pushed() const { return pushed_; }
  /// Index of the tick with this number; of the oldest where it is gone.
  [[nodiscard]] size_t index_of(uint64_t number) const;

 private:
  struct Packed {
    double end_s = 0;
    float interval_s = 0;
    float amount = 0;
    float wanted = 0;
    float own = 0;
  };
  std::vector<Packed> ticks_;
  size_t first_ = 0;
  size_t size_ = 0;
  uint64_t pushed_ = 0;
};

}  // namespace stackwatch
