// SPDX-License-Identifier: Apache-2.0
#include "detectors/peers.h"

#include <algorithm>
#include <cmath>

namespace stackwatch {
namespace {

constexpr double kMaxWorkerCores = 1e6;
// A median over the nearest so many siblings in the list is as good as over thousands, and bounds a tick of a service
// with n workers to 32 n.
constexpr size_t kCompared = 32;

bool usable(const PeerSample& sample) {
  return sample.service != 0 && std::isfinite(sample.time_s) && std::isfinite(sample.interval_s) &&
         sample.interval_s > 0 && sample.on_cpu_s >= 0 && sample.on_cpu_s <= kMaxWorkerCores * sample.interval_s &&
         sample.run_queue_s >= 0 && sample.run_queue_s <= kMaxWorkerCores * sample.interval_s && sample.weight > 0 &&
         std::isfinite(sample.weight);
}

/// Of the first or the second of each pair; the upper one where there are two.
double median(std::vector<std::pair<double, double>>& values, double std::pair<double, double>::*which) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::ranges::nth_element(values, middle, {}, which);
  return (*middle).*which;
}

}  // namespace

LevelChange::Options PeersDetector::options() const {
  LevelChange::Options out;
  out.learn_s = settings_.learn_s;
  out.memory_s = settings_.memory_s;
  out.persistence_s = settings_.persistence_s;
  out.adopt_after_s = settings_.adopt_after_s;
  out.min_relative_change = 1;  // of its usual distance
  out.min_change = smallest_change();
  out.may_be_negative = true;
  return out;
}

double PeersDetector::smallest_change() const { return std::max(settings_.min_change_cores, policy_.min_change_cores); }

void PeersDetector::set_policy(const DetectionPolicy& policy) {
  policy_ = policy;
  for (auto& [process, worker] : workers_) worker.core.set_policy(policy, smallest_change());
}

std::vector<std::pair<ProcessKey, Finding>> PeersDetector::observe(std::span<const PeerSample> samples) {
  ++ticks_;
  left_out_ = 0;
  services_.clear();
  for (const PeerSample& sample : samples) {
    if (usable(sample)) services_[sample.service].push_back(&sample);
  }
  std::vector<std::pair<ProcessKey, Finding>> findings;
  for (const PeerSample& sample : samples) {
    if (!usable(sample)) continue;
    if (auto finding = observe_one(sample, services_[sample.service])) {
      findings.emplace_back(sample.process, std::move(*finding));
    }
  }
  std::erase_if(workers_, [this](const auto& entry) { return entry.second.seen != ticks_; });
  return findings;
}

std::optional<Finding> PeersDetector::observe_one(const PeerSample& sample,
                                                  std::span<const PeerSample* const> service) {
  if (service.size() <= settings_.min_siblings) return std::nullopt;
  auto found = workers_.find(sample.process);
  if (found == workers_.end()) {
    if (workers_.size() >= kMaxWorkers) {
      ++left_out_;
      return std::nullopt;
    }
    found = workers_.emplace(sample.process, Worker{LevelChange(policy_, options()), 0}).first;
  }
  Worker& worker = found->second;
  worker.seen = ticks_;

  others_.clear();
  const size_t own = static_cast<size_t>(std::ranges::find(service, &sample) - service.begin());
  for (size_t i = 1; i < service.size() && others_.size() < kCompared; ++i) {
    const PeerSample& other = *service[(own + i) % service.size()];
    const double scale = sample.weight / other.weight / other.interval_s;
    others_.emplace_back(other.on_cpu_s * scale, (other.on_cpu_s + other.run_queue_s) * scale);
  }
  LevelTick tick{sample.time_s, sample.interval_s};
  tick.amount = sample.on_cpu_s - median(others_, &std::pair<double, double>::first) * sample.interval_s;
  tick.wanted =
      sample.on_cpu_s + sample.run_queue_s - median(others_, &std::pair<double, double>::second) * sample.interval_s;
  const auto claim = sample.time_s > worker.core.last_end_s() ? worker.core.observe(tick) : worker.core.standing();
  if (!claim) return std::nullopt;
  Finding out;
  out.detector = kName;
  out.probe = ProbeKind::kCensus;
  out.before = claim->before;
  out.after = claim->after;
  out.unit_of_measure = "cores more than its siblings";
  out.change_cores = out.after - out.before;
  out.onset_s = claim->onset_s;
  out.score = claim->score;
  out.threshold = claim->threshold;
  return out;
}

}  // namespace stackwatch
