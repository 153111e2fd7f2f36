// SPDX-License-Identifier: Apache-2.0
#include "detectors/rate.h"

#include <algorithm>
#include <cmath>

#include "detectors/stack_counts.h"

namespace stackwatch {
namespace {

// Beyond this (a million cores, or threads, or 10^15 of anything else a second) a number is garbage.
constexpr double kMaxCores = 1e6;
constexpr double kMaxPerSecond = 1e15;
// Below these a change is nobody's trouble: faults and switches a second, bytes a second.
constexpr double kMinFaults = 100;
constexpr double kMinAllFaults = 2000;  // the census sees minor faults of every allocation
constexpr double kMinSwitches = 5000;
constexpr double kMinIoBytes = 4e6;
// What the process usually gets is forgotten with this half-life: minutes, as starvation takes minutes to matter.
constexpr double kUsualHalfLifeS = 600;
// Deltas come at most some ticks after the census that told the time of day.
constexpr double kLocalTimeHoldsS = 60;

LevelChange::Options options_of(const RateSettings& settings, double min_change) {
  LevelChange::Options out;
  out.learn_s = settings.learn_s;
  out.quarantine_s = settings.quarantine_s;
  out.memory_s = settings.memory_s;
  out.persistence_s = settings.persistence_s;
  out.adopt_after_s = settings.adopt_after_s;
  out.min_relative_change = settings.min_relative_change;
  out.min_change = min_change;
  return out;
}

bool usable_time(double time_s, double interval_s, double last_end_s) {
  return std::isfinite(time_s) && time_s > last_end_s && std::isfinite(interval_s) && interval_s > 0;
}

/// False where the delta must not be used.
bool amount_of(const NamedDelta& delta, double& amount) {
  if (delta.probe == ProbeKind::kOnCpu) {
    amount = delta.exposure_s;
    return std::isfinite(amount) && amount >= 0 && amount <= kMaxCores * delta.interval_s;
  }
  amount = 0;
  for (const NamedDelta::Value& value : delta.values) {
    if (value.value < 0) return false;
    amount += static_cast<double>(value.value);
  }
  return amount <= kMaxPerSecond * delta.interval_s && !too_lossy(delta, amount);
}

double amount_of(const CensusDelta& census, RateMetric metric) {
  switch (metric) {
    case RateMetric::kStarved:
      return census.run_queue_s;
    case RateMetric::kSwitches:
      return census.voluntary_switches + census.involuntary_switches;
    case RateMetric::kAllFaults:
      return census.minor_faults + census.major_faults;
    case RateMetric::kIo:
      return census.read_bytes + census.write_bytes;
    case RateMetric::kCores:
    case RateMetric::kFaults:
      break;
  }
  return 0;
}

std::string_view unit_of_measure(RateMetric metric) {
  switch (metric) {
    case RateMetric::kCores:
      return "cores";
    case RateMetric::kFaults:
    case RateMetric::kAllFaults:
      return "faults per second";
    case RateMetric::kStarved:
      return "threads starved of CPU";
    case RateMetric::kSwitches:
      return "context switches per second";
    case RateMetric::kIo:
      return "bytes of disk I/O per second";
  }
  return "";
}

}  // namespace

RateDetector::RateDetector(RateMetric metric, const DetectionPolicy& policy, const RateSettings& settings)
    : metric_(metric),
      settings_(settings),
      core_(policy, options_of(settings, smallest_change(policy))),
      censuses_(is_of_census() ? 1 : kCensuses) {}

double RateDetector::smallest_change(const DetectionPolicy& policy) const {
  switch (metric_) {
    case RateMetric::kCores:
      return std::max({settings_.min_change_cores, policy.min_change_cores, 1e-3});
    case RateMetric::kFaults:
      return kMinFaults;
    case RateMetric::kAllFaults:
      return kMinAllFaults;
    case RateMetric::kStarved:
      return settings_.min_starved_threads;
    case RateMetric::kSwitches:
      return kMinSwitches;
    case RateMetric::kIo:
      return kMinIoBytes;
  }
  return 1;
}

void RateDetector::set_policy(const DetectionPolicy& policy) { core_.set_policy(policy, smallest_change(policy)); }

std::optional<Finding> RateDetector::observe(const NamedDelta& delta) {
  LevelTick tick{delta.time_s, delta.interval_s};
  if (!usable_time(delta.time_s, delta.interval_s, core_.last_end_s()) || !amount_of(delta, tick.amount)) {
    return report(core_.standing());
  }
  tick.wanted = tick.amount;
  if (metric_ == RateMetric::kCores) tick.wanted += waiting_at(delta.time_s) * delta.interval_s;
  tick.local_s = local_at(delta.time_s);
  return report(core_.observe(tick));
}

std::optional<Finding> RateDetector::observe_census(const CensusDelta& census) {
  if (!usable_time(census.time_s, census.interval_s, -1e300)) return report(core_.standing());
  const double cores = census.on_cpu_s / census.interval_s;
  const double waiting = census.run_queue_s / census.interval_s;
  if (cores >= 0 && cores <= kMaxCores && waiting >= 0 && waiting <= kMaxCores) {
    censuses_[next_census_++ % censuses_.size()] = {census.time_s, waiting, cores};
  }
  local_s_ = census.local_s;
  local_at_s_ = census.time_s;
  if (!is_of_census()) return std::nullopt;
  LevelTick tick{census.time_s, census.interval_s, amount_of(census, metric_)};
  tick.wanted = tick.amount;
  tick.local_s = census.local_s;
  const bool usable = std::isfinite(tick.amount) && tick.amount >= 0 && tick.rate() <= kMaxPerSecond;
  if (!usable || census.time_s <= core_.last_end_s()) return report(core_.standing());
  const auto claim = core_.observe(tick);
  if (!claim) {
    const double step = std::max(1 - std::exp2(-census.interval_s / kUsualHalfLifeS),
                                 census.interval_s / (usual_weight_ += census.interval_s));
    usual_cores_ += step * (cores - usual_cores_);
  }
  return report(claim);
}

int64_t RateDetector::local_at(double time_s) const {
  const double since_s = time_s - local_at_s_;
  return local_s_ >= 0 && std::abs(since_s) <= kLocalTimeHoldsS ? local_s_ + std::llround(since_s) : -1;
}

std::string_view RateDetector::heritage_name() const {
  switch (metric_) {
    case RateMetric::kCores:
      return "rate/cores";
    case RateMetric::kFaults:
      return "rate/faults";
    case RateMetric::kStarved:
      return "rate/starved";
    case RateMetric::kSwitches:
      return "rate/switches";
    case RateMetric::kAllFaults:
      return "rate/all_faults";
    case RateMetric::kIo:
      return "rate/io";
  }
  return kName;
}

std::string RateDetector::save() const {
  auto heritage = core_.heritage();
  if (!heritage) return {};
  heritage->usual_cores = usual_cores_;
  heritage->usual_weight = usual_weight_;
  return encode(*heritage);
}

Result<void> RateDetector::restore(std::string_view saved) {
  const auto heritage = decode_level_heritage(saved);
  if (!heritage) return Failure(heritage.error());
  core_.inherit(*heritage);
  usual_cores_ = heritage->usual_cores;
  usual_weight_ = heritage->usual_weight;
  return {};
}

double RateDetector::waiting_at(double time_s) const {
  const Census* nearest = &censuses_[0];
  for (const Census& census : censuses_) {
    if (std::abs(census.time_s - time_s) < std::abs(nearest->time_s - time_s)) nearest = &census;
  }
  return nearest->time_s > 0 ? nearest->waiting : 0;
}

// Who waits more and gets more asks for more: that is its own doing, and `kCores` tells it.
bool RateDetector::gets_more(const LevelClaim& claim) const {
  const Census& now = censuses_[(next_census_ + censuses_.size() - 1) % censuses_.size()];
  return claim.after > claim.before && now.cores > usual_cores_ * (1 + settings_.min_relative_change / 2) + 0.05;
}

std::optional<Finding> RateDetector::report(const std::optional<LevelClaim>& claim) const {
  if (!claim) return std::nullopt;
  // A queue that got shorter is good news, and not the process's.
  if (metric_ == RateMetric::kStarved && (claim->after < claim->before || gets_more(*claim))) return std::nullopt;
  Finding out;
  out.detector = kName;
  out.probe = metric_ == RateMetric::kCores    ? ProbeKind::kOnCpu
              : metric_ == RateMetric::kFaults ? ProbeKind::kPageFault
                                               : ProbeKind::kCensus;
  out.before = claim->before;
  out.after = claim->after;
  out.unit_of_measure = unit_of_measure(metric_);
  out.change_cores = metric_ == RateMetric::kCores ? out.after - out.before : 0;
  out.onset_s = claim->onset_s;
  out.score = claim->score;
  out.threshold = claim->threshold;
  return out;
}

}  // namespace stackwatch
