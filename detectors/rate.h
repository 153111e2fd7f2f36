// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "detectors/detector.h"
#include "detectors/level_change.h"
#include "detectors/settings.h"

namespace stackwatch {

/// What `rate` follows. The first two come from a probe's deltas, the others from the census.
enum class RateMetric : uint8_t {
  kCores,      ///< CPU time, which is exact, not from samples; conditioned on what the process wanted
  kFaults,     ///< page faults that the probe counted
  kStarved,    ///< threads that wait for a CPU
  kSwitches,   ///< context switches
  kAllFaults,  ///< page faults of processes without the probe
  kIo,         ///< bytes read from and written to storage
};

/// Finds lasting changes of how much a process does at all: level shifts and drifts of one metric. The method is that
/// of LevelChange (level_change.h); spikes shorter than the persistence are none.
///
/// More than it wants. `kCores` is judged on the smaller of two changes: of the CPU time it got and of the CPU time it
/// wanted (got + waited for a CPU, from the census). A process that gets 0.95 cores where it had 0.42 because a
/// competitor ended wants what it always wanted: no finding. Without a census what it got decides alone.
/// Starved. `kStarved` is the other side: the machine, not the process. It is told as such, in a unit of its own, and
/// only from `min_starved_threads` on (the default, 2, is more than contention between a few busy programs makes), and
/// only while the CPU time that the process gets has not grown.
/// Time of day. A load that comes each day at the same time is told on the first three days (level_change.h).
/// How much. `min_relative_change` is larger than a doubled load: twice as much of everything is what a service does
/// on a Monday, and nothing in these series tells it from a regression.
class RateDetector final : public Detector {
 public:
  static constexpr std::string_view kName = "rate";

  RateDetector(RateMetric metric, const DetectionPolicy& policy, const RateSettings& settings);

  [[nodiscard]] std::string_view name() const override { return kName; }
  [[nodiscard]] std::optional<Finding> observe(const NamedDelta& delta) override;
  [[nodiscard]] std::optional<Finding> observe_census(const CensusDelta& census) override;
  void set_policy(const DetectionPolicy& policy) override;
  [[nodiscard]] size_t streams() const override { return 1; }
  [[nodiscard]] std::string_view heritage_name() const override;
  [[nodiscard]] std::string save() const override;
  /// See LevelChange::inherit().
  [[nodiscard]] Result<void> restore(std::string_view saved) override;
  [[nodiscard]] bool remembers() const override { return core_.remembers(); }

  [[nodiscard]] bool is_learning() const { return core_.is_learning(); }
  [[nodiscard]] double level() const { return core_.level(); }
  [[nodiscard]] double score() const { return core_.score(); }

 private:
  /// How long threads waited for a CPU, per second, at the census nearest to a time; 0 where there was none.
  [[nodiscard]] double waiting_at(double time_s) const;
  /// What wall clocks show at this time, by the last census.
  [[nodiscard]] int64_t local_at(double time_s) const;
  [[nodiscard]] bool is_of_census() const { return metric_ >= RateMetric::kStarved; }
  [[nodiscard]] double smallest_change(const DetectionPolicy& policy) const;
  [[nodiscard]] std::optional<Finding> report(const std::optional<LevelClaim>& claim) const;
  [[nodiscard]] bool gets_more(const LevelClaim& claim) const;

  struct Census {
    double time_s = 0;
    double waiting = 0;  // threads
    double cores = 0;
  };
  /// Deltas come late by a few ticks at most: names that take longer are given up. What comes from the census itself
  /// looks at the newest alone.
  static constexpr size_t kCensuses = 16;

  RateMetric metric_;
  RateSettings settings_;
  LevelChange core_;
  std::vector<Census> censuses_;
  size_t next_census_ = 0;
  double usual_cores_ = 0;
  double usual_weight_ = 0;
  double local_at_s_ = 0;  // time of the census that told what wall clocks show, …
  int64_t local_s_ = -1;   // … and that
};

}  // namespace stackwatch
