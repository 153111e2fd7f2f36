// SPDX-License-Identifier: Apache-2.0
#include "daemon/detection.h"

#include <algorithm>

namespace stackwatch {

std::vector<Observation> Detection::observe(const TickBatch& batch) {
  std::vector<Observation> observations;
  observations.reserve(batch.deltas.size());
  for (const ProcessKey& process : batch.replaced) processes_.erase(process);
  for (const NamedDelta& delta : batch.deltas) {
    const auto [entry, is_new] = processes_[delta.process].probes.try_emplace(delta.probe);
    if (is_new) entry->second = make_detectors(delta.probe, policy_, settings_);
    Observation& observation = observations.emplace_back();
    observation.process = delta.process;
    observation.probe = delta.probe;
    observation.time_s = delta.time_s;
    observation.stacks = delta.stacks;
    observation.functions = delta.functions;
    for (const auto& detector : entry->second) {
      if (auto finding = detector->observe(delta)) observation.findings.push_back(std::move(*finding));
    }
  }
  for (const ProcessKey& process : batch.exits) processes_.erase(process);
  for (const ProcessKey& process : batch.detached) processes_.erase(process);
  share_budget();
  return observations;
}

// The false-alarm budget is the host's: the more series are tested, the more evidence each one needs.
void Detection::share_budget() {
  size_t streams = 0;
  for (const auto& [process, watched] : processes_) {
    for (const auto& [probe, detectors] : watched.probes) {
      for (const auto& detector : detectors) streams += detector->streams();
    }
  }
  streams_ = streams;
  // Thresholds go with the logarithm: a change of less than a tenth moves them by less than 0.1.
  const double now = std::max(1000.0, static_cast<double>(streams));
  if (std::abs(now - policy_.expected_streams) < policy_.expected_streams / 10) return;
  policy_.expected_streams = now;
  configure(policy_, settings_);
}

void Detection::configure(const DetectionPolicy& policy, const DetectorSettings& settings) {
  const double streams = policy_.expected_streams;
  policy_ = policy;
  policy_.expected_streams = std::max(policy.expected_streams, streams);
  settings_ = settings;
  for (const auto& [process, watched] : processes_) {
    for (const auto& [probe, detectors] : watched.probes) {
      for (const auto& detector : detectors) detector->set_policy(policy_);
    }
  }
}

}  // namespace stackwatch
