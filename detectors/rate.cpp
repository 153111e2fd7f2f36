// SPDX-License-Identifier: Apache-2.0
#include "detectors/rate.h"

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
// Page faults below this many a second are nobody's trouble.
constexpr double kMinFaultsPerSecond = 100;

std::string_view unit_of_measure(ProbeKind probe) {
  switch (probe) {
    case ProbeKind::kOnCpu:
      return "cores";
    case ProbeKind::kBlocked:
    case ProbeKind::kRunQueue:
      return "threads waiting";
    case ProbeKind::kPageFault:
    case ProbeKind::kMemory:
      break;
  }
  return "faults per second";
}

}  // namespace

RateDetector::RateDetector(ProbeKind probe, const DetectionPolicy& policy, const RateSettings& settings)
    : probe_(probe), policy_(policy), settings_(settings), last_end_s_(-std::numeric_limits<double>::infinity()) {
  evidence_.add();
  moments_.add();
}

std::optional<Finding> RateDetector::observe(const NamedDelta& delta) {
  RateTick tick;
  if (!read_rate_tick(delta, last_end_s_, tick)) return change_ ? std::optional(report()) : std::nullopt;
  last_end_s_ = tick.end_s;
  window_.push(tick);
  if (learning_) {
    learn_first(tick);
    return std::nullopt;
  }
  evidence_.begin_tick(tick.interval_s, evidence_cap(threshold(), settings_.persistence_s, policy_.tick_s));
  evidence_.update(0, believed(tick) * tick.interval_s);
  evidence_.finish_tick();
  if (change_) return follow_change(tick);
  learn_ripe();
  return look_for_change();
}

void RateDetector::set_policy(const DetectionPolicy& policy) {
  policy_ = policy;
  if (!learning_) calibrate();
}

double RateDetector::smallest_change() const {
  const double least = probe_ == ProbeKind::kPageFault
                           ? kMinFaultsPerSecond
                           : std::max({settings_.min_change_cores, policy_.min_change_cores, 1e-3});
  return std::max(least, settings_.min_relative_change * level());
}

// ---- learning

double RateDetector::believed(const RateTick& tick) const {
  const double reach = std::max(kBelievedDeviations * deviation_, kBelievedChanges * smallest_change());
  return std::clamp(tick.rate(), level() - reach, level() + reach);
}

void RateDetector::learn(const RateTick& tick) {
  double amount = tick.amount;
  if (!learning_) {
    const double most = kWinsor * deviation_ + smallest_change();
    amount = std::clamp(tick.rate(), level() - most, level() + most) * tick.interval_s;
  }
  const BlockMoments::Count count{0, static_cast<float>(amount)};
  moments_.learn({&count, 1}, tick.interval_s);
  amount_ += amount;
  exposure_ += tick.interval_s;
  if (exposure_ >= 2 * settings_.memory_s && moments_.at_boundary()) {
    moments_.halve();
    amount_ /= 2;
    exposure_ /= 2;
    calibrated_s_ /= 2;
  }
}

void RateDetector::learn_first(const RateTick& tick) {
  if (learning_since_s_ == 0) learning_since_s_ = tick.begin_s();
  learn(tick);
  learned_ticks_ = window_.pushed();
  if (exposure_ < settings_.learn_s) return;
  const bool too_long = tick.end_s - learning_since_s_ > kMaxLearnFactor * settings_.learn_s;
  if (!settled() && !too_long) {
    relearn_since(tick.end_s - exposure_ / 2);
    return;
  }
  learning_ = false;
  watched_from_ = window_.pushed();
  calibrate();
}

bool RateDetector::settled() const {
  std::array<double, 2> amount{};
  std::array<double, 2> wall{};
  const double middle = last_end_s_ - exposure_ / 2;
  for (size_t i = 0; i < window_.size(); ++i) {
    const RateTick& tick = window_[i];
    if (tick.begin_s() < last_end_s_ - exposure_) continue;
    const size_t half = tick.end_s > middle ? 1 : 0;
    amount[half] += tick.amount;
    wall[half] += tick.interval_s;
  }
  if (wall[0] <= 0 || wall[1] <= 0) return true;
  return std::abs(amount[1] / wall[1] - amount[0] / wall[0]) <= kSettled * smallest_change();
}

void RateDetector::relearn_since(double begin_s) {
  moments_.clear();
  amount_ = exposure_ = calibrated_s_ = 0;
  for (size_t i = 0; i < window_.size(); ++i) {
    if (window_[i].begin_s() >= begin_s) learn(window_[i]);
  }
}

void RateDetector::learn_ripe() {
  const bool hold = evidence_.score(0) > kHoldLearning * threshold();
  for (int i = 0; i < kMaxLearnPerTick && learned_ticks_ < window_.pushed(); ++i) {
    const bool last_chance = window_.pushed() - learned_ticks_ >= RateWindow::kCapacity;
    const RateTick& oldest = window_[window_.index_of(learned_ticks_)];
    if (!last_chance && (hold || oldest.end_s > last_end_s_ - settings_.quarantine_s)) break;
    learn(oldest);
    ++learned_ticks_;
  }
  if (exposure_ >= kRecalibrateGrowth * calibrated_s_) calibrate();
}

void RateDetector::calibrate() {
  calibrated_s_ = exposure_;
  const double steadiest = kSteadiest * level() + kSteadiestChange * smallest_change();
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
  evidence_.calibrate(0, level_alternatives({level(), variance_, exposure_, smallest_change()}));
}

// ---- findings

std::optional<Finding> RateDetector::look_for_change() {
  if (evidence_.score(0) < threshold()) return std::nullopt;
  Change change;
  change.before = level();
  change.score = evidence_.score(0);
  const size_t first = onset(recent());
  change.onset_s = window_[first].begin_s();
  for (size_t i = first; i < window_.size(); ++i) {
    change.amount += window_[i].amount;
    change.wall_s += window_[i].interval_s;
  }
  if (!worth_telling(change, 1)) return std::nullopt;
  change_ = change;
  return report();
}

double RateDetector::recent() const {
  const double ticks = std::max(5.0, settings_.persistence_s / std::max(policy_.tick_s, 1e-3));
  const size_t count = static_cast<size_t>(std::min(ticks, static_cast<double>(window_.size())));
  std::vector<double> rates;
  for (size_t i = window_.size() - count; i < window_.size(); ++i) rates.push_back(window_[i].rate());
  const auto middle = rates.begin() + static_cast<std::ptrdiff_t>(rates.size() / 2);
  std::nth_element(rates.begin(), middle, rates.end());
  return *middle;
}

size_t RateDetector::onset(double after) const {
  const double before = level();
  const double middle = (before + after) / 2;
  const double reach = std::abs(after - before);
  double sum = 0;
  double most = 0;
  size_t first = window_.size() - 1;
  for (size_t i = window_.size(); i-- > window_.index_of(watched_from_);) {
    // Cut off around both levels: one tick that is far out must not be the whole change.
    const double rate = std::clamp(window_[i].rate(), middle - reach, middle + reach);
    sum += (rate - middle) * (after > before ? 1 : -1) * window_[i].interval_s;
    if (sum <= most) continue;
    most = sum;
    first = i;
  }
  return first;
}

bool RateDetector::worth_telling(const Change& change, double part) const {
  return std::abs(change.after() - change.before) >= part * smallest_change();
}

std::optional<Finding> RateDetector::follow_change(const RateTick& tick) {
  Change& change = *change_;
  change.amount += tick.amount;
  change.wall_s += tick.interval_s;
  change.score = std::max(change.score, evidence_.score(0));
  const double middle = (change.before + change.after()) / 2;
  const double ratio = (tick.rate() - middle) * (change.before - change.after()) * tick.interval_s / variance_;
  const double most = kReturnScore / kReturnTicks;
  change.returned = std::max(0.0, change.returned + std::clamp(ratio, -most, most));
  if (change.returned >= kReturnScore || !worth_telling(change, kStillWorth)) {
    forget_change();
    return std::nullopt;
  }
  if (last_end_s_ - change.onset_s >= settings_.adopt_after_s) {
    const double onset_s = change.onset_s;
    forget_change();
    learning_ = true;  // as it is, not cut off around the old level
    relearn_since(onset_s);
    learning_ = exposure_ < settings_.learn_s;
    learning_since_s_ = 0;
    if (!learning_) calibrate();
    return std::nullopt;
  }
  return report();
}

void RateDetector::forget_change() {
  change_.reset();
  evidence_.reset_all();
  learned_ticks_ = watched_from_ = window_.pushed();
}

Finding RateDetector::report() const {
  Finding out;
  out.detector = kName;
  out.probe = probe_;
  out.before = change_->before;
  out.after = change_->after();
  out.unit_of_measure = unit_of_measure(probe_);
  out.change_cores = probe_ == ProbeKind::kOnCpu ? out.after - out.before : 0;
  out.onset_s = change_->onset_s;
  out.score = change_->score;
  out.threshold = threshold();
  return out;
}

}  // namespace stackwatch
