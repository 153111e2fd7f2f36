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
  /// What wall clocks show at its end, as for DayProfile; negative: not known. Not kept in the window.
  int64_t local_s = -1;

  [[nodiscard]] double begin_s() const { return end_s - interval_s; }
  [[nodiscard]] double rate() const { return amount / interval_s; }
  [[nodiscard]] double wanted_rate() const { return wanted / interval_s; }
  [[nodiscard]] double own_rate() const { return own / interval_s; }
};

/// The last ticks, oldest first; bounded. Times are kept to a thousandth of a second, amounts to seven digits: what is
/// computed with a tick of the past is a sum or a median. A tick that begins where the last one ended takes 8 bytes, 16
/// where more is wanted than got.
class LevelWindow {
 public:
  /// Eight minutes at a tick of 1 s, 4 or 8 kB: twice the longest quarantine. Onsets further back cannot be told.
  static constexpr size_t kCapacity = 512;

  /// Ticks that end later than the ones before.
  void push(const LevelTick& tick);
  [[nodiscard]] size_t size() const { return size_; }
  [[nodiscard]] LevelTick operator[](size_t i) const;
  /// How many ticks were ever pushed: the tick with number pushed() - 1 is the newest.
  [[nodiscard]] uint64_t pushed() const { return pushed_; }
  /// Index of the tick with this number; of the oldest where it is gone.
  [[nodiscard]] size_t index_of(uint64_t number) const;

 private:
  struct Packed {
    uint32_t end = 0;  // since origin_s_, in units of 1/kPerSecond; with kGap where the interval is in intervals_
    float amount = 0;
  };
  struct Own {
    float wanted = 0;
    float own = 0;
  };
  struct Interval {
    uint64_t number = 0;  // of the tick
    float interval_s = 0;
  };
  static constexpr double kPerSecond = 1024;
  static constexpr uint32_t kGap = 0x80000000;

  void drop_oldest();
  [[nodiscard]] uint32_t end_of(double end_s);
  [[nodiscard]] double interval_of(size_t i) const;
  [[nodiscard]] const Packed& packed(size_t i) const { return ticks_[(first_ + i) % kCapacity]; }

  std::vector<Packed> ticks_;
  std::vector<Own> owns_;            // empty while all that was wanted was got
  std::vector<Interval> intervals_;  // of ticks that do not begin where the one before ended, in order
  double origin_s_ = 0;
  uint32_t before_ = 0;  // end of the tick before the oldest
  size_t first_ = 0;
  size_t size_ = 0;
  uint64_t pushed_ = 0;
};

}  // namespace stackwatch
