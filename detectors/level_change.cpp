// SPDX-License-Identifier: Apache-2.0
#include "detectors/level_change.h"

#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "detectors/alternatives.h"

namespace stackwatch {
namespace {

constexpr double kHoldLearning = 0.3;        // as for composition
constexpr double kRecalibrateGrowth = 1.05;  // likewise
constexpr int kMaxLearnPerTick = 4;          // likewise
constexpr double kStillWorth = 0.5;          // likewise
// A load that never settles (long phases) is learned as it is after so many times learn_s.
constexpr double kMaxLearnFactor = 10;
// The halves of the first baseline may differ by this part of the smallest change worth telling.
constexpr double kSettled = 0.5;
// What is usual at a time of day holds within this part of a change worth telling.
constexpr double kUsual = 0.5;
// Fewer blocks say nothing about a variance; few say little, so the estimate is raised by two standard errors of it.
constexpr double kMinBlocks = 5;
constexpr double kVarianceMargin = 2;
// Growth from one block length to the next, three times as long, is taken to go on up to four times as long.
const double kGrowthSteps = std::log(4.0) / std::log(3.0);
// A level is never believed to be steadier than this, per second: part of the level, and of the smallest change.
constexpr double kSteadiest = 0.05;
constexpr double kSteadiestChange = 0.1;
// A tick far out is evidence for no more than this distance from the level: loads have long upper tails, and a busy
// half minute is not a new level.
constexpr double kBelievedDeviations = 3;
constexpr double kBelievedChanges = 2;

/// The smaller of two deviations where they have the same sign, else none.
double common_part(double a, double b) {
  if (a > 0 && b > 0) return std::min(a, b);
  if (a < 0 && b < 0) return std::max(a, b);
  return 0;
}

}  // namespace

void LevelChange::Change::add(const LevelTick& tick) {
  amount += tick.amount;
  own += tick.own;
  wall_s += tick.interval_s;
}

LevelChange::LevelChange(const DetectionPolicy& policy, const Options& options)
    : policy_(policy), options_(options), last_end_s_(-std::numeric_limits<double>::infinity()) {
  evidence_.add();
  moments_.add();
}

std::optional<LevelClaim> LevelChange::observe(LevelTick tick) {
  last_end_s_ = tick.end_s;
  tick.own = learning_ ? tick.amount : own_rate(tick) * tick.interval_s;
  window_.push(tick);
  local_s_ = tick.local_s;
  day_.observe(tick.local_s, tick.amount, tick.interval_s);
  if (start_up_s_) {
    pass_start_up(tick);
    return std::nullopt;
  }
  if (learning_) {
    learn_first(tick);
    return std::nullopt;
  }
  evidence_.begin_tick(tick.interval_s, evidence_cap(threshold(), options_.persistence_s, policy_.tick_s));
  evidence_.update(0, believed(tick.own_rate()) * tick.interval_s);
  evidence_.finish_tick();
  if (change_) return follow_change(tick);
  learn_ripe();
  return look_for_change();
}

void LevelChange::set_policy(const DetectionPolicy& policy, double min_change) {
  policy_ = policy;
  options_.min_change = min_change;
  if (!learning_) calibrate();
}

double LevelChange::smallest_change(double level) const {
  return std::max(options_.min_change, options_.min_relative_change * std::abs(level));
}

double LevelChange::smallest_decrease(double level) const {
  const double factor = options_.min_relative_change / (1 + options_.min_relative_change);
  return std::max(options_.min_change, factor * std::abs(level));
}

double LevelChange::own_rate(const LevelTick& tick) const {
  if (tick.wanted == tick.amount && wanted_ == amount_) return tick.rate();
  return level() + common_part(tick.rate() - level(), tick.wanted_rate() - wanted_level());
}

// ---- learning

double LevelChange::believed(double rate) const {
  const double reach = std::max(kBelievedDeviations * deviation_, kBelievedChanges * smallest_change());
  return std::clamp(rate, level() - reach, level() + reach);
}

void LevelChange::learn(const LevelTick& tick) {
  double amount = tick.amount;
  double wanted = tick.wanted;
  if (!learning_) {
    const double most = kWinsor * deviation_ + smallest_change();
    amount = std::clamp(tick.rate(), level() - most, level() + most) * tick.interval_s;
    wanted = std::clamp(tick.wanted_rate(), wanted_level() - most, wanted_level() + most) * tick.interval_s;
  }
  const BlockMoments::Count count{0, static_cast<float>(amount)};
  moments_.learn({&count, 1}, tick.interval_s);
  amount_ += amount;
  wanted_ += wanted;
  exposure_ += tick.interval_s;
  if (exposure_ >= 2 * options_.memory_s && moments_.at_boundary()) {
    moments_.halve();
    amount_ /= 2;
    wanted_ /= 2;
    exposure_ /= 2;
    calibrated_s_ /= 2;
  }
}

void LevelChange::learn_first(const LevelTick& tick) {
  if (!learning_since_s_) learning_since_s_ = tick.begin_s();
  learn(tick);
  learned_ticks_ = window_.pushed();
  if (exposure_ < options_.learn_s) return;
  const bool too_long = tick.end_s - *learning_since_s_ > kMaxLearnFactor * options_.learn_s;
  if (!settled(exposure_) && !too_long) {
    relearn_since(tick.end_s - exposure_ / 2);
    return;
  }
  learning_ = false;
  watched_from_ = window_.pushed();
  calibrate();
}

bool LevelChange::settled(double length_s) const {
  std::array<double, 2> amount{};
  std::array<double, 2> wall{};
  const double middle = last_end_s_ - length_s / 2;
  for (size_t i = 0; i < window_.size(); ++i) {
    const LevelTick& tick = window_[i];
    if (tick.begin_s() < last_end_s_ - length_s) continue;
    const size_t half = tick.end_s > middle ? 1 : 0;
    amount[half] += tick.amount;
    wall[half] += tick.interval_s;
  }
  if (wall[0] <= 0 || wall[1] <= 0) return true;
  return std::abs(amount[1] / wall[1] - amount[0] / wall[0]) <= kSettled * smallest_decrease();
}

void LevelChange::relearn_since(double begin_s) {
  moments_.clear();
  amount_ = wanted_ = exposure_ = calibrated_s_ = 0;
  for (size_t i = 0; i < window_.size(); ++i) {
    if (window_[i].begin_s() >= begin_s) learn(window_[i]);
  }
}

void LevelChange::learn_ripe() {
  const bool hold = evidence_.score(0) > kHoldLearning * threshold();
  for (int i = 0; i < kMaxLearnPerTick && learned_ticks_ < window_.pushed(); ++i) {
    const bool last_chance = window_.pushed() - learned_ticks_ >= LevelWindow::kCapacity;
    const LevelTick& oldest = window_[window_.index_of(learned_ticks_)];
    if (!last_chance && (hold || oldest.end_s > last_end_s_ - options_.quarantine_s)) break;
    learn(oldest);
    ++learned_ticks_;
  }
  if (exposure_ >= kRecalibrateGrowth * calibrated_s_) calibrate();
}

void LevelChange::calibrate() {
  calibrated_s_ = exposure_;
  const double steadiest = kSteadiest * std::abs(level()) + kSteadiestChange * smallest_change();
  double variance = steadiest * steadiest;
  double shorter = 0;
  double growth = 1;
  for (size_t scale = 0; scale < kBlockScales && moments_.blocks(scale) >= kMinBlocks; ++scale) {
    const double degrees = moments_.blocks(scale) - 1;
    const double estimate = moments_.scatter(0, scale) / degrees;
    if (scale == 0) deviation_ = std::sqrt(estimate);
    variance = std::max(variance, estimate * (1 + kVarianceMargin * std::sqrt(2 / degrees)));
    growth = shorter > 0 ? std::clamp(estimate / shorter, 1.0, 3.0) : 1;
    shorter = estimate;
  }
  // Where the estimate still grows at the longest blocks it would have gone on to grow at longer ones: phases are
  // longer than what was seen so far.
  variance_ = variance * std::pow(growth, kGrowthSteps);
  evidence_.calibrate(0, level_alternatives({level(), variance_, exposure_, smallest_change(), smallest_decrease(),
                                             true, options_.may_be_negative}));
}

// ---- claims

std::optional<LevelClaim> LevelChange::look_for_change() {
  if (evidence_.score(0) < threshold()) return std::nullopt;
  Change change;
  change.before = level();
  change.score = evidence_.score(0);
  const size_t first = onset(recent());
  change.onset_s = window_[first].begin_s();
  for (size_t i = first; i < window_.size(); ++i) change.add(window_[i]);
  if (!worth_telling(change, 1)) return std::nullopt;
  if (is_usual_now(change)) {
    adopt(change.onset_s);
    return std::nullopt;
  }
  change_ = change;
  return standing();
}

double LevelChange::recent() const {
  const double ticks = std::max(5.0, options_.persistence_s / std::max(policy_.tick_s, 1e-3));
  const size_t count = static_cast<size_t>(std::min(ticks, static_cast<double>(window_.size())));
  std::vector<double> rates;
  for (size_t i = window_.size() - count; i < window_.size(); ++i) rates.push_back(window_[i].own_rate());
  const auto middle = rates.begin() + static_cast<std::ptrdiff_t>(rates.size() / 2);
  std::nth_element(rates.begin(), middle, rates.end());
  return *middle;
}

size_t LevelChange::onset(double after) const {
  const double before = level();
  const double middle = (before + after) / 2;
  const double reach = std::abs(after - before);
  double sum = 0;
  double most = 0;
  size_t first = window_.size() - 1;
  for (size_t i = window_.size(); i-- > window_.index_of(watched_from_);) {
    // Cut off around both levels: one tick that is far out must not be the whole change.
    const double rate = std::clamp(window_[i].own_rate(), middle - reach, middle + reach);
    sum += (rate - middle) * (after > before ? 1 : -1) * window_[i].interval_s;
    if (sum <= most) continue;
    most = sum;
    first = i;
  }
  return first;
}

bool LevelChange::worth_telling(const Change& change, double part) const {
  const double size = change.own_after() - change.before;
  return size > 0 ? size >= part * smallest_change() : -size >= part * smallest_decrease();
}

std::optional<LevelClaim> LevelChange::follow_change(const LevelTick& tick) {
  Change& change = *change_;
  change.add(tick);
  change.score = std::max(change.score, evidence_.score(0));
  const double middle = (change.before + change.own_after()) / 2;
  const double ratio = (tick.own_rate() - middle) * (change.before - change.own_after()) * tick.interval_s / variance_;
  const double most = kReturnScore / kReturnTicks;
  change.returned = std::max(0.0, change.returned + std::clamp(ratio, -most, most));
  if (change.returned >= kReturnScore || !worth_telling(change, kStillWorth)) {
    forget_change();
    return std::nullopt;
  }
  if (last_end_s_ - change.onset_s >= options_.adopt_after_s) {
    adopt(change.onset_s);
    return std::nullopt;
  }
  return standing();
}

void LevelChange::adopt(double onset_s) {
  forget_change();
  learning_ = true;  // as it is, not cut off around the old level
  relearn_since(onset_s);
  learning_ = exposure_ < options_.learn_s;
  learning_since_s_.reset();
  if (!learning_) calibrate();
}

bool LevelChange::is_usual_now(const Change& change) const {
  const auto around = day_.around(local_s_);
  if (!around) return false;
  const double after = change.after();
  const auto& [now, before] = *around;
  if (change.own_after() > change.before) {
    return after <= now.high + kUsual * smallest_change(now.high) &&
           now.high >= before.high + kUsual * smallest_change(before.high);
  }
  return after >= now.low - kUsual * smallest_decrease(now.low) &&
         now.low <= before.low - kUsual * smallest_decrease(before.low);
}

// ---- successors

std::optional<LevelHeritage> LevelChange::heritage() const {
  if (learning_ && day_.empty()) return std::nullopt;
  LevelHeritage out;
  out.day = day_;
  if (learning_) return out;
  out.amount = amount_;
  out.wanted = wanted_;
  out.exposure_s = exposure_;
  out.blocks = moments_.blocks();
  out.scatter = moments_.scatter(0);
  return out;
}

void LevelChange::inherit(const LevelHeritage& heritage) {
  const double last_end_s = last_end_s_;
  *this = LevelChange(policy_, options_);
  last_end_s_ = last_end_s;
  day_ = heritage.day;
  if (heritage.exposure_s < options_.learn_s) return;
  amount_ = heritage.amount;
  wanted_ = heritage.wanted;
  exposure_ = heritage.exposure_s;
  moments_.inherit(heritage.blocks, exposure_);
  moments_.resume(0, level(), heritage.scatter);
  learning_ = false;
  inherited_ = true;
  start_up_s_ = 0;
  calibrate();
}

void LevelChange::pass_start_up(const LevelTick& tick) {
  *start_up_s_ += tick.interval_s;
  learned_ticks_ = watched_from_ = window_.pushed();
  if (*start_up_s_ < options_.learn_s) return;
  if (!settled(options_.learn_s) && *start_up_s_ < kMaxLearnFactor * options_.learn_s) return;
  start_up_s_.reset();
}

void LevelChange::forget_change() {
  change_.reset();
  evidence_.reset_all();
  learned_ticks_ = watched_from_ = window_.pushed();
}

std::optional<LevelClaim> LevelChange::standing() const {
  if (!change_) return std::nullopt;
  return LevelClaim{change_->before, change_->after(), change_->onset_s, change_->score, threshold()};
}

}  // namespace stackwatch
