// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/delta.h"

namespace stackwatch {

/// How much of its probe a process had in one tick.
struct RateTick {
  double end_s = 0;
  double interval_s = 0;
  double amount = 0;  ///< CPU seconds (on_cpu), seconds waited (blocked, run_queue), faults (page_fault)

  [[nodiscard]] double begin_s() const { return end_s - interval_s; }
  [[nodiscard]] double rate() const { return amount / interval_s; }
};

/// Checks a delta and takes the amount out of it. False where it must not be used: a time that goes back or is no
/// number, a negative value, an exposure that is none, or (where counts are the amount) too much that was not counted.
[[nodiscard]] bool read_rate_tick(const NamedDelta& delta, double last_end_s, RateTick& out);

/// The last ticks, oldest first; bounded.
class RateWindow {
 public:
  /// A quarter of an hour at a tick of 1 s, 24 kB.
  static constexpr size_t kCapacity = 1024;

  void push(const RateTick& tick);
  [[nodiscard]] size_t size() const { return size_; }
  [[nodiscard]] const RateTick& operator[](size_t i) const { return ticks_[(first_ + i) % kCapacity]; }
  /// How many ticks were ever pushed: the tick with number pushed() - 1 is the newest.
  [[nodiscard]] uint64_t pushed() const { return pushed_; }
  /// Index of the tick with this number; of the oldest where it is gone.
  [[nodiscard]] size_t index_of(uint64_t number) const;

 private:
  std::vector<RateTick> ticks_;
  size_t first_ = 0;
  size_t size_ = 0;
  uint64_t pushed_ = 0;
};

}  // namespace stackwatch
