// SPDX-License-Identifier: Apache-2.0
#include "detectors/level_window.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace stackwatch {
namespace {

// What no tick and no amount is, and a float holds: rates of such numbers are still numbers.
constexpr double kMost = 1e18;
constexpr float kShortestS = 1e-18F;

float narrow(double number) { return static_cast<float>(std::clamp(number, -kMost, kMost)); }

}  // namespace

void LevelWindow::push(const LevelTick& tick) {
  if (ticks_.empty()) ticks_.resize(kCapacity);
  if (size_ == kCapacity) drop_oldest();
  uint32_t end = end_of(tick.end_s);
  const uint32_t last = size_ > 0 ? packed(size_ - 1).end & ~kGap : before_;
  const double begin = (tick.begin_s() - origin_s_) * kPerSecond;
  if (pushed_ == 0 || end == last || std::abs(begin - last) >= 1) {
    end |= kGap;
    intervals_.push_back({pushed_, std::max(narrow(tick.interval_s), kShortestS)});
  }
  const size_t place = (first_ + size_) % kCapacity;
  ticks_[place] = {end, narrow(tick.amount)};
  const Own own{narrow(tick.wanted), narrow(tick.own)};
  if (owns_.empty() && (own.wanted != ticks_[place].amount || own.own != ticks_[place].amount)) {
    for (const Packed& each : ticks_) owns_.push_back({each.amount, each.amount});
  }
  if (!owns_.empty()) owns_[place] = own;
  ++size_;
  ++pushed_;
}

void LevelWindow::drop_oldest() {
  before_ = packed(0).end & ~kGap;
  if ((packed(0).end & kGap) != 0) intervals_.erase(intervals_.begin());
  first_ = (first_ + 1) % kCapacity;
  --size_;
}

LevelTick LevelWindow::operator[](size_t i) const {
  const size_t place = (first_ + i) % kCapacity;
  const Packed& tick = ticks_[place];
  const Own own = owns_.empty() ? Own{tick.amount, tick.amount} : owns_[place];
  return {origin_s_ + (tick.end & ~kGap) / kPerSecond,
          interval_of(i),
          static_cast<double>(tick.amount),
          static_cast<double>(own.wanted),
          static_cast<double>(own.own),
          -1};
}

double LevelWindow::interval_of(size_t i) const {
  const uint32_t end = packed(i).end;
  if ((end & kGap) != 0) {
    const auto found = std::ranges::lower_bound(intervals_, pushed_ - size_ + i, {}, &Interval::number);
    return static_cast<double>(found->interval_s);
  }
  return (end - (i > 0 ? packed(i - 1).end & ~kGap : before_)) / kPerSecond;
}

// What 31 bits hold is 24 days. Of a process that slept for longer the ticks before are moved nearer; a tick that
// follows such a sleep has its interval kept.
uint32_t LevelWindow::end_of(double end_s) {
  constexpr double kMax = kGap - 1;
  if (pushed_ == 0) origin_s_ = end_s;
  double end = std::round((end_s - origin_s_) * kPerSecond);
  if (end > kMax) {
    const double shift = std::ceil(std::max(static_cast<double>(before_), end - kMax));
    const auto moved = [shift](uint32_t at) { return static_cast<uint32_t>(std::max(0.0, at - shift)); };
    for (Packed& tick : ticks_) tick.end = moved(tick.end & ~kGap) | (tick.end & kGap);
    before_ = moved(before_);
    origin_s_ += shift / kPerSecond;
    end = std::min(kMax, std::round((end_s - origin_s_) * kPerSecond));
  }
  return static_cast<uint32_t>(std::max(0.0, end));
}

size_t LevelWindow::index_of(uint64_t number) const {
  const uint64_t oldest = pushed_ - size_;
  return number > oldest ? static_cast<size_t>(number - oldest) : 0;
}

}  // namespace stackwatch
