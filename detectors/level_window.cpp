// SPDX-License-Identifier: Apache-2.0
#include "detectors/level_window.h"

#include <algorithm>

namespace stackwatch {
namespace {

// What no tick and no amount is, and a float holds: rates of such numbers are still numbers.
constexpr double kMost = 1e18;
constexpr float kShortestS = 1e-18F;

float narrow(double number) { return static_cast<float>(std::clamp(number, -kMost, kMost)); }

}  // namespace

void LevelWindow::push(const LevelTick& tick) {
  if (ticks_.empty()) ticks_.resize(kCapacity);
  if (size_ == kCapacity) {
    first_ = (first_ + 1) % kCapacity;
    --size_;
  }
  ticks_[(first_ + size_) % kCapacity] = {tick.end_s, std::max(narrow(tick.interval_s), kShortestS),
                                          narrow(tick.amount), narrow(tick.wanted), narrow(tick.own)};
  ++size_;
  ++pushed_;
}

size_t LevelWindow::index_of(uint64_t number) const {
  const uint64_t oldest = pushed_ - size_;
  return number > oldest ? static_cast<size_t>(number - oldest) : 0;
}

}  // namespace stackwatch
