// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <unordered_map>
#include <vector>

#include "core/process.h"
#include "daemon/alerting/alert_policy.h"
#include "daemon/delta_source.h"
#include "detectors/registry.h"

namespace stackwatch {

/// The detectors of all watched processes: each process has its own, each probe of it too. One thread.
class Detection {
 public:
  Detection(const DetectionPolicy& policy, const DetectorSettings& settings) : policy_(policy), settings_(settings) {}

  /// What the detectors say about a batch: one observation per delta. Processes that ended or were detached lose their
  /// detectors afterwards.
  [[nodiscard]] std::vector<Observation> observe(const TickBatch& batch);

  /// The policy takes effect at once and forgets nothing; settings are for detectors made from now on.
  void configure(const DetectionPolicy& policy, const DetectorSettings& settings);
  [[nodiscard]] size_t streams() const { return streams_; }

 private:
  using Detectors = std::vector<std::unique_ptr<Detector>>;
  struct Watched {
    std::unordered_map<ProbeKind, Detectors> probes;
  };
  void share_budget();

  DetectionPolicy policy_;
  DetectorSettings settings_;
  std::unordered_map<ProcessKey, Watched> processes_;
  size_t streams_ = 0;
};

}  // namespace stackwatch
