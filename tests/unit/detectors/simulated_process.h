// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <random>
#include <string>
#include <vector>

#include "core/delta.h"

namespace stackwatch {

/// A process whose samples are drawn from known shares: the ground under the tests and benchmarks of detectors.
class SimulatedProcess {
 public:
  struct Leaf {
    std::vector<std::string> stack;  ///< root first
    double share = 0;                ///< exclusive, of all samples; normalised when drawn
    std::string object = "program";  ///< that all its frames are in
  };

  SimulatedProcess(std::vector<Leaf> leaves, uint64_t seed, double samples_per_tick = 99);

  void set_share(size_t leaf, double share) { leaves_[leaf].share = share; }
  /// Takes from one leaf and gives to another.
  void move_share(size_t from, size_t to, double share);
  void set_samples(double per_tick) { samples_ = per_tick; }
  /// Samples of a tick are correlated: variance of a count `factor` times the binomial one (Dirichlet-multinomial).
  void set_dispersion(double factor) { dispersion_ = factor; }
  /// Shares wander: each is multiplied by exp(AR(1)) with this standard deviation and correlation time.
  void set_wandering(double deviation, double correlation_ticks);
  /// The number of samples varies like a Poisson count; else it is exact.
  void set_poisson(bool on) { poisson_ = on; }

  /// The next tick of a second; the reference is valid until the next call.
  const NamedDelta& tick();
  [[nodiscard]] double time_s() const { return delta_.time_s; }
  [[nodiscard]] FunctionId function(const std::string& name) { return functions_.intern("program", name); }
  [[nodiscard]] const std::string& name(FunctionId id) const { return functions_[id].name; }
  [[nodiscard]] NamedDelta& delta() { return delta_; }
  [[nodiscard]] StackTable& stacks() { return stacks_; }

 private:
  void draw_shares();

  std::mt19937_64 random_;
  std::vector<Leaf> leaves_;
  std::vector<StackId> ids_;
  FunctionTable functions_;
  StackTable stacks_;
  NamedDelta delta_;
  double samples_;
  double dispersion_ = 1;
  double wandering_ = 0;
  double memory_ = 0;  // of the AR(1), per tick
  bool poisson_ = false;
  std::vector<double> wander_;
  std::vector<double> cumulative_;
  std::vector<int64_t> counts_;
};

}  // namespace stackwatch
