// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace stackwatch {

/// The only way to read time. All values are nanoseconds.
class Clock {
 public:
  virtual ~Clock() = default;
  /// CLOCK_MONOTONIC: never jumps; for intervals.
  [[nodiscard]] virtual uint64_t monotonic_ns() const = 0;
  /// CLOCK_BOOTTIME: what start times of processes are counted in.
  [[nodiscard]] virtual uint64_t boottime_ns() const = 0;
  /// CLOCK_REALTIME since the epoch: for people; may jump.
  [[nodiscard]] virtual uint64_t realtime_ns() const = 0;
};

class SystemClock final : public Clock {
 public:
  [[nodiscard]] uint64_t monotonic_ns() const override;
  [[nodiscard]] uint64_t boottime_ns() const override;
  [[nodiscard]] uint64_t realtime_ns() const override;
};

}  // namespace stackwatch
