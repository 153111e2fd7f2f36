// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/process.h"
#include "detectors/detector.h"
#include "detectors/level_change.h"
#include "detectors/settings.h"

namespace stackwatch {

/// One worker of a service in one tick.
struct PeerSample {
  ProcessKey process;
  /// Whose siblings it has: equal for processes of one name in one control group. 0: nobody's.
  uint64_t service = 0;
  double time_s = 0;
  double interval_s = 0;
  double on_cpu_s = 0;
  double run_queue_s = 0;
  /// What the scheduler owes it, relative to its siblings (its weight); > 0. Who is owed half is expected to use half.
  double weight = 1;
};

/// Finds the one worker of a service that does not behave like its siblings any more: a busy loop in one of ten.
///
/// Series. Per worker its cores minus the median of its siblings' cores, the siblings' scaled by what the scheduler
/// owes them against it. Load that changes for all of them changes nothing; and a worker that always did more than the
/// others has that distance as its level. What it wanted (CPU plus run queue) is treated likewise, so that a worker
/// which merely gets more than it got is none (level_change.h, whose method this is).
/// Bounded: kMaxWorkers processes are followed, 24 kB each. Not a Detector: it sees all processes of a tick at once.
/// Assumptions. At least `min_siblings` others, most of which are healthy; work is spread evenly or in fixed
/// proportions. Workers that take turns (one busy at a time) make wide distances, which are learned as variance.
class PeersDetector {
 public:
  static constexpr std::string_view kName = "peers";
  /// 10 MB. A service with more workers than that says enough with some of them.
  static constexpr size_t kMaxWorkers = 400;

  PeersDetector(const DetectionPolicy& policy, const PeersSettings& settings) : policy_(policy), settings_(settings) {}

  /// One tick, all watched processes; each at most once. What is claimed, in the order of `samples`. A process that is
  /// missing is forgotten.
  [[nodiscard]] std::vector<std::pair<ProcessKey, Finding>> observe(std::span<const PeerSample> samples);
  void set_policy(const DetectionPolicy& policy);
  [[nodiscard]] size_t streams() const { return workers_.size(); }
  /// Workers that were left out because kMaxWorkers are followed, in the last tick.
  [[nodiscard]] size_t left_out() const { return left_out_; }

 private:
  struct Worker {
    LevelChange core;
    uint64_t seen = 0;
  };
  [[nodiscard]] LevelChange::Options options() const;
  [[nodiscard]] double smallest_change() const;
  std::optional<Finding> observe_one(const PeerSample& sample, std::span<const PeerSample* const> service);

  DetectionPolicy policy_;
  PeersSettings settings_;
  std::unordered_map<ProcessKey, Worker> workers_;
  std::unordered_map<uint64_t, std::vector<const PeerSample*>> services_;
  std::vector<std::pair<double, double>> others_;  // got and wanted, per sibling; of the process at hand
  uint64_t ticks_ = 0;
  size_t left_out_ = 0;
};

}  // namespace stackwatch
