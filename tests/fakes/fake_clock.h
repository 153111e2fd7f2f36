// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/clock.h"

namespace stackwatch {

/// A clock that stands still until it is told to go on.
class FakeClock final : public Clock {
 public:
  [[nodiscard]] uint64_t monotonic_ns() const override { return monotonic_ns_; }
  [[nodiscard]] uint64_t boottime_ns() const override { return monotonic_ns_; }
  [[nodiscard]] uint64_t realtime_ns() const override { return realtime_ns_; }

  void advance_s(double seconds) {
    monotonic_ns_ += static_cast<uint64_t>(seconds * 1e9);
    realtime_ns_ += static_cast<uint64_t>(seconds * 1e9);
  }
  void set_realtime_ns(uint64_t now) { realtime_ns_ = now; }

 private:
  uint64_t monotonic_ns_ = 1'000'000'000'000;
  uint64_t realtime_ns_ = 1'790'000'000'000'000'000;
};

}  // namespace stackwatch
