// SPDX-License-Identifier: Apache-2.0
#include "detectors/rate_window.h"

#include <cmath>

#include "detectors/stack_counts.h"

namespace stackwatch {
namespace {

// Beyond this (a million cores, or threads, or 10^12 faults a second) a number is garbage, not a measurement.
constexpr double kMaxSecondsPerSecond = 1e6;
constexpr double kMaxFaultsPerSecond = 1e12;

}  // namespace

bool read_rate_tick(const NamedDelta& delta, double last_end_s, RateTick& out) {
  if (!std::isfinite(delta.time_s) || delta.time_s <= last_end_s) return false;
  if (!std::isfinite(delta.interval_s) || delta.interval_s <= 0) return false;
  out = {delta.time_s, delta.interval_s, 0};
  if (delta.probe == ProbeKind::kOnCpu) {
    out.amount = delta.exposure_s;
    return std::isfinite(out.amount) && out.amount >= 0 && out.rate() <= kMaxSecondsPerSecond;
  }
  double total = 0;
  for (const NamedDelta::Value& value : delta.values) {
    if (value.value < 0) return false;
    total += static_cast<double>(value.value);
  }
  if (too_lossy(delta, total)) return false;
  const bool is_time = delta.probe == ProbeKind::kBlocked || delta.probe == ProbeKind::kRunQueue;
  out.amount = is_time ? total * 1e-9 : total;
  return out.rate() <= (is_time ? kMaxSecondsPerSecond : kMaxFaultsPerSecond);
}

void RateWindow::push(const RateTick& tick) {
  if (ticks_.empty()) ticks_.resize(kCapacity);
  if (size_ == kCapacity) {
    first_ = (first_ + 1) % kCapacity;
    --size_;
  }
  ticks_[(first_ + size_) % kCapacity] = tick;
  ++size_;
  ++pushed_;
}

size_t RateWindow::index_of(uint64_t number) const {
  const uint64_t oldest = pushed_ - size_;
  return number > oldest ? static_cast<size_t>(number - oldest) : 0;
}

}  // namespace stackwatch
