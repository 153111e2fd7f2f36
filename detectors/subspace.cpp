// SPDX-License-Identifier: Apache-2.0
#include "detectors/subspace.h"

#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>

namespace stackwatch {
namespace {

// Shares of one tick are a handful of samples; so they are means of about so long.
constexpr double kShareMeanS = 15;
// More functions than that on the leaves of one process while it is looked at: the rest is not leading.
constexpr size_t kMaxCandidates = 4096;
// Added before the logarithm, so that nothing and next to nothing are the same: cores, switches, faults, faults,
// bytes, bytes, bytes.
constexpr std::array<double, SubspaceDetector::kRates> kFloor = {0.02, 20, 50, 2, 1e5, 1e5, 1e6};
// A series is never believed to be steadier than this: logarithms of rates, shares.
constexpr double kSteadiestRate = 0.05;
constexpr double kSteadiestShare = 0.02;
constexpr double kMinDistance = 2;  // deviations; smaller changes of the distance are nothing
constexpr double kMaxValue = 1e18;
// The direction that was taken out comes back among the eigenvectors, with variance 0.
constexpr double kIsLoad = 0.7;
// Of a direction, in squared deviations of the series: none is believed to be steadier.
constexpr double kLeastVariance = 0.02;

LevelChange::Options options_of(const SubspaceSettings& settings) {
  LevelChange::Options out;
  out.learn_s = settings.learn_s / 2;
  out.memory_s = settings.memory_s;
  out.persistence_s = settings.persistence_s;
  out.adopt_after_s = settings.adopt_after_s;
  out.min_relative_change = settings.min_relative_change;
  out.min_change = kMinDistance;
  return out;
}

}  // namespace

SubspaceDetector::SubspaceDetector(const DetectionPolicy& policy, const SubspaceSettings& settings)
    : settings_(settings), core_(policy, options_of(settings)) {}

void SubspaceDetector::set_policy(const DetectionPolicy& policy) { core_.set_policy(policy, kMinDistance); }

std::optional<Finding> SubspaceDetector::observe_census(const CensusDelta& census) {
  const std::array<double, kRates> rates = {census.on_cpu_s,
                                            census.voluntary_switches,
                                            census.minor_faults,
                                            census.major_faults,
                                            census.read_bytes,
                                            census.write_bytes,
                                            census.rss_bytes * census.interval_s};
  for (const double rate : rates) {
    if (!(rate >= 0 && rate <= kMaxValue * census.interval_s)) return std::nullopt;
  }
  for (int i = 0; i < kRates; ++i) {
    const auto index = static_cast<size_t>(i);
    now_[i] = std::log(rates[index] / census.interval_s + kFloor[index]);
  }
  has_census_ = true;
  return std::nullopt;
}

std::optional<Finding> SubspaceDetector::observe(const NamedDelta& delta) {
  const bool usable = delta.stacks != nullptr && std::isfinite(delta.time_s) && delta.time_s > last_end_s_ &&
                      std::isfinite(delta.interval_s) && delta.interval_s > 0 && has_census_;
  if (!usable) return report(core_.standing());
  last_end_s_ = delta.time_s;
  has_census_ = false;
  if (table_ != delta.stacks) {
    forget_all();
    table_ = delta.stacks;
  }
  read_shares(delta);
  const double half_s = settings_.learn_s / 2;
  if (learned_s_ < half_s) {
    learned_s_ += delta.interval_s;
    return std::nullopt;
  }
  if (!chosen_) choose_functions();
  const double learned_s = learned_s_ - half_s;
  if (learned_s < half_s) {
    learn(now_, delta.interval_s);
    if (learned_s_ - half_s >= half_s) find_directions();
    return std::nullopt;
  }
  const Vector z = standardised(now_);
  last_residual_ = residual(z);
  distance_ = last_residual_.norm();
  LevelTick tick{delta.time_s, delta.interval_s, distance_ * delta.interval_s};
  tick.wanted = tick.amount;
  const auto claim = core_.observe(tick);
  if (!claim) {
    // Winsorised: what is far out moves the model by as much as what is just out.
    learn(mean_ + z.cwiseMax(-kWinsor).cwiseMin(kWinsor).cwiseProduct(deviation_), delta.interval_s);
    if (--until_refresh_ <= 0) find_directions();
  }
  return report(claim);
}

void SubspaceDetector::forget_all() {
  counts_.clear();
  functions_ = {};
  now_.tail<kShares>().setZero();
  mean_.setZero();
  covariance_.setZero();
  learned_s_ = 0;
  chosen_ = false;
}

void SubspaceDetector::read_shares(const NamedDelta& delta) {
  double total = 0;
  std::array<double, kShares> counts{};
  for (const NamedDelta::Value& value : delta.values) {
    if (value.value <= 0 || value.stack.value >= table_->size()) continue;
    const auto frames = (*table_)[value.stack];
    if (frames.empty()) continue;
    const FunctionId leaf = frames.back();
    const double count = static_cast<double>(value.value);
    total += count;
    if (!chosen_ && (counts_.size() < kMaxCandidates || counts_.contains(leaf.value))) counts_[leaf.value] += count;
    for (size_t i = 0; i < kShares; ++i) {
      if (functions_[i] == leaf) counts[i] += count;
    }
  }
  if (total <= 0 || !chosen_) return;  // no samples say nothing about shares
  const double step = 1 - std::exp(-delta.interval_s / kShareMeanS);
  for (int i = 0; i < kShares; ++i) {
    double& share = now_[kRates + i];
    share += step * (counts[static_cast<size_t>(i)] / total - share);
  }
}

void SubspaceDetector::choose_functions() {
  std::vector<std::pair<double, uint32_t>> leading;
  double total = 0;
  for (const auto& [function, count] : counts_) {
    leading.emplace_back(-count, function);  // ties in order of the id: the same input, the same choice
    total += count;
  }
  std::ranges::sort(leading);
  for (size_t i = 0; i < std::min<size_t>(kShares, leading.size()); ++i) {
    functions_[i] = FunctionId{leading[i].second};
    now_[kRates + static_cast<int>(i)] = -leading[i].first / total;
  }
  counts_ = {};
  chosen_ = true;
}

void SubspaceDetector::learn(const Vector& values, double interval_s) {
  learned_s_ += interval_s;
  const double age_s = learned_s_ - settings_.learn_s / 2;
  const double step = std::min(1.0, interval_s / std::min(age_s, settings_.memory_s));
  const Vector off = values - mean_;
  mean_ += step * off;
  covariance_ += step * (off * (values - mean_).transpose() - covariance_);
}

void SubspaceDetector::find_directions() {
  until_refresh_ = kRefreshTicks;
  deviation_ = covariance_.diagonal().cwiseMax(0).cwiseSqrt();
  for (int i = 0; i < kSeries; ++i) {
    deviation_[i] = std::max(deviation_[i], i < kRates ? kSteadiestRate : kSteadiestShare);
  }
  // Load: every rate times the same factor; resident memory and shares stay.
  Vector load = Vector::Zero();
  for (int i = 0; i < kRates - 1; ++i) {
    // What hardly ever happens does not follow the load either.
    const bool is_active = mean_[i] > std::log(2 * kFloor[static_cast<size_t>(i)]);
    if (is_active) load[i] = 1 / deviation_[i];
  }
  load.normalize();
  const Square without_load = Square::Identity() - load * load.transpose();
  const Vector inverse = deviation_.cwiseInverse();
  const Square correlation = without_load * (inverse.asDiagonal() * covariance_ * inverse.asDiagonal()) * without_load;
  const Eigen::SelfAdjointEigenSolver<Square> solver(correlation);
  if (solver.info() != Eigen::Success) return;  // the last directions go on
  // What the usual directions do not hold, each direction measured in its own usual deviation.
  outside_.setZero();
  const double total = std::max(solver.eigenvalues().sum(), 1e-12);
  double held = 0;
  for (int i = kSeries - 1; i >= 0; --i) {  // ascending order
    const double variance = solver.eigenvalues()[i];
    const auto direction = solver.eigenvectors().col(i);
    const bool is_usual = held < settings_.explained * total;
    held += variance;
    if (is_usual || std::abs(direction.dot(load)) > kIsLoad) continue;
    outside_ += direction * direction.transpose() / std::sqrt(std::max(variance, kLeastVariance));
  }
}

SubspaceDetector::Vector SubspaceDetector::standardised(const Vector& values) const {
  return (values - mean_).cwiseQuotient(deviation_);
}

SubspaceDetector::Vector SubspaceDetector::residual(const Vector& z) const { return outside_ * z; }

std::optional<Finding> SubspaceDetector::report(const std::optional<LevelClaim>& claim) const {
  if (!claim || claim->after < claim->before) return std::nullopt;
  Finding out;
  out.detector = kName;
  out.probe = ProbeKind::kOnCpu;
  out.before = claim->before;
  out.after = claim->after;
  out.unit_of_measure = "deviations from its usual pattern";
  out.onset_s = claim->onset_s;
  out.score = claim->score;
  out.threshold = claim->threshold;
  return out;
}

}  // namespace stackwatch
