// SPDX-License-Identifier: Apache-2.0
#include "detectors/evidence.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <utility>

namespace stackwatch {
namespace {

// A policy from a test or a damaged configuration must not give a threshold that is never or always passed.
constexpr double kMinThreshold = 3;
constexpr double kMaxThreshold = 75;  // below kMaxScore, so that it can be reached

// One tick takes off at most so much: e^-60 is nothing, and a float still holds it.
constexpr float kFloor = -60.0F;
const float kMaxEvidence = std::exp(static_cast<float>(EvidenceGrid::kMaxScore));

// Below this evidence a stream without decreases may sleep.
constexpr float kSleepSum = 1.0F;
constexpr float kWeightRatio = 0.6F;

/// Six sizes and two that are always 0: the processor computes four at a time.
using Wide = Eigen::Array<float, 8, 1>;

Wide widen(const std::array<float, kAlternatives / 2>& sizes) {
  Wide out = Wide::Zero();
  std::copy_n(sizes.begin(), sizes.size(), out.data());
  return out;
}

/// Both directions have the same.
const Wide& weights() {
  static const Wide wide = [] {
    Wide out = Wide::Zero();
    out.head<kAlternatives / 2>() = mixture_weights().head<kAlternatives / 2>();
    return out;
  }();
  return wide;
}

double log_of(double evidence) {
  return evidence > 0 ? std::clamp(std::log(evidence), -EvidenceGrid::kMaxScore, EvidenceGrid::kMaxScore)
                      : -EvidenceGrid::kMaxScore;
}

double positive_or(double value, double fallback) { return std::isfinite(value) && value > 0 ? value : fallback; }

}  // namespace

double log_threshold(const DetectionPolicy& policy, size_t own_streams) {
  const DetectionPolicy defaults;
  const double period_s = positive_or(policy.false_alarm_period_s, defaults.false_alarm_period_s);
  const double tick_s = positive_or(policy.tick_s, defaults.tick_s);
  const double alarms = positive_or(policy.false_alarms, defaults.false_alarms);
  const double streams = std::max(positive_or(policy.expected_streams, 1), static_cast<double>(own_streams));
  return std::clamp(std::log(period_s / tick_s / alarms * streams), kMinThreshold, kMaxThreshold);
}

double evidence_cap(double threshold, double persistence_s, double tick_s) {
  const double ticks = persistence_s / positive_or(tick_s, 1);
  return ticks > 1 ? threshold / ticks : threshold;
}

const AlternativeColumn& mixture_weights() {
  static const AlternativeColumn weights = [] {
    AlternativeColumn out;
    constexpr int kSizes = kAlternatives / 2;
    for (int i = 0; i < kAlternatives; ++i)
      out[i] = std::pow(kWeightRatio, static_cast<float>(std::abs(i % kSizes - 1)));
    return AlternativeColumn(out / out.sum());
  }();
  return weights;
}

size_t EvidenceGrid::add() {
  assert(size() < kNone);  // detectors test at most 8192
  increases_.emplace_back();
  increases_.back().per_exposure.fill(Alternatives::kNever);
  decrease_of_.push_back(kNone);
  sum_.push_back(0);
  settled_at_.push_back(exposure_);
  is_awake_.push_back(0);
  is_updated_.push_back(0);
  return sum_.size() - 1;
}

void EvidenceGrid::reset(size_t stream) {
  increases_[stream].evidence.fill(0);
  if (decrease_of_[stream] != kNone) decreases_[decrease_of_[stream]].evidence.fill(0);
  sum_[stream] = 0;
  settled_at_[stream] = exposure_;
}

void EvidenceGrid::reset_all() {
  for (size_t stream = 0; stream < size(); ++stream) reset(stream);
}

void EvidenceGrid::calibrate(size_t stream, const Alternatives& alternatives) {
  settle(stream);
  put(increases_[stream], alternatives, 0);
  uint16_t& place = decrease_of_[stream];
  if (!alternatives.decreases) {
    if (place != kNone) free_.push_back(place);
    place = kNone;
    return;
  }
  if (place == kNone) {
    if (free_.empty()) {
      free_.push_back(static_cast<uint16_t>(decreases_.size()));
      decreases_.emplace_back();
    }
    place = free_.back();
    free_.pop_back();
    decreases_[place].evidence.fill(0);
  }
  put(decreases_[place], alternatives, kSizes);
  wake(stream);
}

void EvidenceGrid::put(Direction& direction, const Alternatives& alternatives, int first) {
  for (int i = 0; i < kSizes; ++i) {
    direction.per_count[static_cast<size_t>(i)] = alternatives.per_count[first + i];
    direction.per_exposure[static_cast<size_t>(i)] = alternatives.per_exposure[first + i];
  }
}

void EvidenceGrid::begin_tick(double exposure, double cap) {
  tick_exposure_ = static_cast<float>(exposure);
  cap_ = static_cast<float>(std::min(cap, kMaxScore));
}

void EvidenceGrid::update(size_t stream, double count) {
  settle(stream);
  advance(stream, static_cast<float>(count), tick_exposure_);
  is_updated_[stream] = 1;
  wake(stream);
}

void EvidenceGrid::finish_tick() {
  exposure_ += tick_exposure_;
  size_t kept = 0;
  for (const uint32_t stream : awake_) {
    if (std::exchange(is_updated_[stream], 0) == 0) advance(stream, 0, tick_exposure_);
    settled_at_[stream] = exposure_;
    if (decrease_of_[stream] == kNone && sum_[stream] < kSleepSum) {
      is_awake_[stream] = 0;
    } else {
      awake_[kept++] = stream;
    }
  }
  awake_.resize(kept);
}

double EvidenceGrid::score(size_t stream) const { return log_of(static_cast<double>(sum_[stream])); }

double EvidenceGrid::total_score() const {
  double total = 0;
  for (const uint32_t stream : awake_) total += static_cast<double>(sum_[stream]);
  return log_of(total);
}

size_t EvidenceGrid::strongest() const {
  size_t best = size();
  for (const uint32_t stream : awake_) {
    if (best == size() || sum_[stream] > sum_[best]) best = stream;
  }
  return best;
}

float EvidenceGrid::weigh(Direction& direction, float count, float exposure) const {
  Wide evidence = widen(direction.evidence);
  evidence =
      ((weights() + evidence) *
       (widen(direction.per_count) * count + widen(direction.per_exposure) * exposure).min(cap_).max(kFloor).exp())
          .min(kMaxEvidence);
  std::copy_n(evidence.data(), direction.evidence.size(), direction.evidence.begin());
  return evidence.sum();
}

void EvidenceGrid::advance(size_t stream, float count, float exposure) {
  sum_[stream] = weigh(increases_[stream], count, exposure);
  if (decrease_of_[stream] != kNone) sum_[stream] += weigh(decreases_[decrease_of_[stream]], count, exposure);
}

// Only streams without decreases sleep.
void EvidenceGrid::settle(size_t stream) {
  if (is_awake_[stream] != 0) return;
  const float asleep = static_cast<float>(exposure_ - settled_at_[stream]);
  settled_at_[stream] = exposure_;
  if (asleep <= 0) return;
  Direction& direction = increases_[stream];
  const Wide evidence = widen(direction.evidence) * (widen(direction.per_exposure) * asleep).max(kFloor).exp();
  std::copy_n(evidence.data(), direction.evidence.size(), direction.evidence.begin());
  sum_[stream] = evidence.sum();
}

void EvidenceGrid::wake(size_t stream) {
  if (is_awake_[stream] != 0) return;
  is_awake_[stream] = 1;
  awake_.push_back(static_cast<uint32_t>(stream));
}

}  // namespace stackwatch
