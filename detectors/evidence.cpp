// SPDX-License-Identifier: Apache-2.0
#include "detectors/evidence.h"

#include <algorithm>
#include <cmath>

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
  const Alternatives none;
  columns_.push_back({none.per_count, none.per_exposure, AlternativeColumn::Zero()});
  sum_.push_back(0);
  settled_at_.push_back(exposure_);
  updated_tick_.push_back(tick_);
  decreases_.push_back(0);
  is_awake_.push_back(0);
  return sum_.size() - 1;
}

void EvidenceGrid::reset(size_t stream) {
  columns_[stream].evidence.setZero();
  sum_[stream] = 0;
  settled_at_[stream] = exposure_;
}

void EvidenceGrid::reset_all() {
  for (size_t stream = 0; stream < size(); ++stream) reset(stream);
}

void EvidenceGrid::calibrate(size_t stream, const Alternatives& alternatives) {
  settle(stream);
  columns_[stream].per_count = alternatives.per_count;
  columns_[stream].per_exposure = alternatives.per_exposure;
  decreases_[stream] = alternatives.decreases ? 1 : 0;
  if (alternatives.decreases) wake(stream);
}

void EvidenceGrid::begin_tick(double exposure, double cap) {
  ++tick_;
  tick_exposure_ = static_cast<float>(exposure);
  cap_ = static_cast<float>(std::min(cap, kMaxScore));
}

void EvidenceGrid::update(size_t stream, double count) {
  settle(stream);
  advance(stream, static_cast<float>(count), tick_exposure_);
  wake(stream);
}

void EvidenceGrid::finish_tick() {
  exposure_ += tick_exposure_;
  size_t kept = 0;
  for (const uint32_t stream : awake_) {
    if (updated_tick_[stream] != tick_) advance(stream, 0, tick_exposure_);
    settled_at_[stream] = exposure_;
    if (decreases_[stream] == 0 && sum_[stream] < kSleepSum) {
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

void EvidenceGrid::advance(size_t stream, float count, float exposure) {
  Column& column = columns_[stream];
  column.evidence = ((weights_ + column.evidence) *
                     (column.per_count * count + column.per_exposure * exposure).min(cap_).max(kFloor).exp())
                        .min(kMaxEvidence);
  sum_[stream] = column.evidence.sum();
  updated_tick_[stream] = tick_;
}

void EvidenceGrid::settle(size_t stream) {
  if (is_awake_[stream] != 0) return;
  const float asleep = static_cast<float>(exposure_ - settled_at_[stream]);
  settled_at_[stream] = exposure_;
  if (asleep <= 0) return;
  Column& column = columns_[stream];
  column.evidence *= (column.per_exposure * asleep).max(kFloor).exp();
  sum_[stream] = column.evidence.sum();
}

void EvidenceGrid::wake(size_t stream) {
  if (is_awake_[stream] != 0) return;
  is_awake_[stream] = 1;
  awake_.push_back(static_cast<uint32_t>(stream));
}

}  // namespace stackwatch
