// SPDX-License-Identifier: Apache-2.0
#include "detectors/growth.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace stackwatch {
namespace {

// As sure as anyone needs to be; keeps the account from taking hours to lose what it won in days.
constexpr double kMaxScore = 40;
// A record is believed to be no rarer than among so many: the bet stays fair, and one record never decides.
constexpr double kMostCompared = 32;
// So many blocks without a new lowest level end a claim: it has stopped to grow.
constexpr int kFlatBlocks = 4;
// Longer without a level is a process that slept, or a clock that jumped: what grew meanwhile grew in no block.
constexpr double kGapBlocks = 4;

}  // namespace

void Growth::begin(double time_s) {
  blocks_ = used_points_ = 0;
  keep_every_ = 1;
  score_ = 0;
  flat_blocks_ = 0;
  block_begin_s_ = time_s;
  block_lowest_ = level_;
  claimed_ = false;
}

void Growth::observe(double time_s, double level) {
  if (!std::isfinite(time_s) || !std::isfinite(level) || (started_ && time_s <= time_s_)) return;
  const double gap_s = time_s - time_s_;
  time_s_ = time_s;
  level_ = level;
  if (!started_) {
    started_ = true;
    first_s_ = last_fall_s_ = time_s;
    peak_ = floor_ = level;
    begin(time_s);
    return;
  }
  if (gap_s > kGapBlocks * block_s()) {
    peak_ = floor_ = level;
    last_fall_s_ = time_s;
    begin(time_s);
    return;
  }
  look_for_fall(time_s);
  block_lowest_ = std::min(block_lowest_, level);
  if (time_s - block_begin_s_ < block_s()) return;
  end_block(time_s);
  block_begin_s_ = time_s;
  block_lowest_ = level;
}

// A rise, then a fall by a good part of it: one tooth.
void Growth::look_for_fall(double time_s) {
  if (level_ > peak_) {
    peak_ = level_;
    return;
  }
  const double fall = peak_ - level_;
  if (fall < 0.1 * options_.min_growth || fall < kFall * (peak_ - floor_)) {
    floor_ = std::min(floor_, level_);
    return;
  }
  const double tooth_s = time_s - last_fall_s_;
  last_fall_s_ = time_s;
  peak_ = floor_ = level_;
  const bool outgrown = kToothBlocks * tooth_s > block_s();
  if (outgrown) block_s_ = std::min(kLongestBlockS, kToothBlocks * tooth_s);
  // A fall inside of a block of fitting length is what blocks are for; its lowest level tells whether floors rise.
  const bool gone = used_points_ > 0 && level_ < points_[0].level + kFall * (peak_ - points_[0].level);
  if (outgrown || gone) begin(time_s);
}

void Growth::end_block(double time_s) {
  if (time_s - first_s_ < options_.settle_s) return;
  const double lowest = block_lowest_;
  const bool record = blocks_ == 0 || lowest > highest_;
  if (blocks_ > 0) {
    const double fair = 1 / (std::min(static_cast<double>(blocks_), kMostCompared) + 1);
    score_ += record ? std::log(kBet / fair) : std::log((1 - kBet) / (1 - fair));
    if (score_ < 0) begin(time_s);
  }
  flat_blocks_ = record ? 0 : flat_blocks_ + 1;
  score_ = std::min(score_, kMaxScore);
  highest_ = blocks_ == 0 ? lowest : std::max(highest_, lowest);
  ++blocks_;
  keep({time_s, lowest});
}

void Growth::keep(const Point& point) {
  if ((blocks_ - 1) % keep_every_ != 0) return;
  if (used_points_ == kPoints) {
    for (size_t i = 0; i < kPoints / 2; ++i) points_[i] = points_[2 * i];
    used_points_ = kPoints / 2;
    keep_every_ *= 2;
  }
  points_[used_points_++] = point;
}

double Growth::level_at(double part) const {
  const double time_s = points_[0].time_s + part * (points_[used_points_ - 1].time_s - points_[0].time_s);
  size_t i = 1;
  while (i + 1 < used_points_ && points_[i].time_s < time_s) ++i;
  const Point& a = points_[i - 1];
  const Point& b = points_[i];
  return a.level + (b.level - a.level) * (time_s - a.time_s) / (b.time_s - a.time_s);
}

bool Growth::slows_down() const {
  const double first = level_at(0.5) - level_at(0);
  const double second = level_at(1) - level_at(0.5);
  const double last = level_at(1) - level_at(0.75);
  return second < kNotSlower * first || last < kNotSlower * first / 2;
}

std::optional<GrowthClaim> Growth::claim(double threshold) {
  if (used_points_ < 4) return std::nullopt;
  GrowthClaim out;
  out.before = points_[0].level;
  out.after = points_[used_points_ - 1].level;
  out.onset_s = points_[0].time_s - block_s();
  out.score = score_;
  const double grown = out.after - out.before;
  out.per_second = grown / (points_[used_points_ - 1].time_s - points_[0].time_s);
  if (claimed_) {
    claimed_ = flat_blocks_ < kFlatBlocks;
    if (!claimed_) begin(time_s_);
  } else {
    const bool enough = grown >= std::max(options_.min_growth, options_.min_relative * std::abs(out.before));
    claimed_ = score_ >= threshold && enough && !slows_down();
  }
  return claimed_ ? std::optional(out) : std::nullopt;
}

}  // namespace stackwatch
