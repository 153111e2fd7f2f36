// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Eigen/Core>
#include <array>
#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "detectors/detector.h"
#include "detectors/level_change.h"
#include "detectors/settings.h"

namespace stackwatch {

/// Finds a process whose series no longer move together as they used to, though none of them left its range: twice the
/// faults at the usual load, say.
///
/// Series. Logarithms of rates of the census (CPU, voluntary switches, minor and major faults, reads, writes, resident
/// bytes) and the smoothed shares of the kShares functions that were on the CPU most while the first half of the
/// baseline was learned. What contention moves (run queue, involuntary switches) is left out.
/// Method. Principal components of the standardised series (Jackson and Mudholkar 1979: the squared prediction error
/// outside of the directions that hold `explained` of the variance), each remaining direction measured in its own
/// deviations. One direction is always among them: all rates
/// growing by the same factor, which is load. Mean and covariance are exponentially weighted, each value cut off at
/// kWinsor deviations, and stand still while a change stands. The distance, the root of the squared error, is a series
/// for LevelChange (level_change.h), increases only.
/// Not proven: quiet in simulation, but it missed twice the faults at half the load within 200 s. Off by default.
/// Assumptions. Linear dependence between logarithms. It is off by default: a load that the process has never had moves
/// its metrics by unequal factors, and nothing here tells that from a fault. Turn it on where the load is steady.
/// Cost. 0.3 us a tick, and 30 us for the directions every kRefreshTicks; 30 kB.
class SubspaceDetector final : public Detector {
 public:
  static constexpr std::string_view kName = "subspace";
  static constexpr int kRates = 7;
  static constexpr int kShares = 8;
  static constexpr int kSeries = kRates + kShares;
  static constexpr double kWinsor = 6;
  static constexpr int kRefreshTicks = 60;

  SubspaceDetector(const DetectionPolicy& policy, const SubspaceSettings& settings);

  [[nodiscard]] std::string_view name() const override { return kName; }
  [[nodiscard]] std::optional<Finding> observe(const NamedDelta& delta) override;
  [[nodiscard]] std::optional<Finding> observe_census(const CensusDelta& census) override;
  void set_policy(const DetectionPolicy& policy) override;
  [[nodiscard]] size_t streams() const override { return 1; }
  [[nodiscard]] double distance() const { return distance_; }

 private:
  using Vector = Eigen::Matrix<double, kSeries, 1>;
  using Square = Eigen::Matrix<double, kSeries, kSeries>;

  void forget_all();
  void read_shares(const NamedDelta& delta);
  void choose_functions();
  void learn(const Vector& values, double interval_s);
  void find_directions();
  [[nodiscard]] Vector standardised(const Vector& values) const;
  [[nodiscard]] Vector residual(const Vector& z) const;
  [[nodiscard]] std::optional<Finding> report(const std::optional<LevelClaim>& claim) const;

  SubspaceSettings settings_;
  LevelChange core_;
  std::unordered_map<uint32_t, double> counts_;  // by function, leaf only, while functions are chosen; bounded
  std::array<std::optional<FunctionId>, kShares> functions_{};
  Vector now_ = Vector::Zero();
  Vector mean_ = Vector::Zero();
  Vector deviation_ = Vector::Ones();
  Vector last_residual_ = Vector::Zero();
  Square covariance_ = Square::Zero();
  Square outside_ = Square::Zero();  // what the usual directions do not hold, in deviations
  const StackTable* table_ = nullptr;
  double last_end_s_ = -std::numeric_limits<double>::infinity();
  double learned_s_ = 0;
  double distance_ = 0;
  int until_refresh_ = 0;
  bool has_census_ = false;
  bool chosen_ = false;
};

}  // namespace stackwatch
