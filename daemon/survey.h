// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <unordered_set>
#include <vector>

#include "config/config.h"
#include "core/process.h"
#include "daemon/ranking.h"

namespace stackwatch {

/// Chooses whom the survey samples: every process that uses the CPU, as far as there is room; those that use it most
/// (which at one rate for all are those with most samples) first. Pure: it attaches nobody itself.
class Survey {
 public:
  /// Younger processes are not surveyed: a compiler's thousand children are gone before they have a past.
  static constexpr double kMinAgeS = 3;
  /// Six samples a minute at 19 Hz: from less, a change of a share takes hours to tell, and each surveyed process costs
  /// the daemon work in each tick.
  static constexpr double kMinCores = 0.005;
  /// Attached in one tick at most: each costs a read of its mappings, some 0.2 ms beside the loop.
  static constexpr size_t kMaxNewPerTick = 16;
  /// Who has a place keeps it unless another uses so many times its CPU time.
  static constexpr double kClearlyMore = 1.5;

  void configure(const SurveyConfig& config, size_t max_processes);
  [[nodiscard]] bool enabled() const { return config_.enabled; }
  [[nodiscard]] double frequency_hz() const { return config_.frequency_hz; }

  /// Of one tick's ranking: who is surveyed from now on. Returns those that were not before.
  std::vector<ProcessKey> choose(const std::vector<Ranked>& ranking);
  /// Nobody is surveyed; the next choose() begins anew.
  void clear() { chosen_.clear(); }
  [[nodiscard]] bool contains(const ProcessKey& process) const { return chosen_.contains(process); }
  [[nodiscard]] size_t size() const { return chosen_.size(); }

 private:
  SurveyConfig config_;
  size_t max_processes_ = 0;
  std::unordered_set<ProcessKey> chosen_;
};

}  // namespace stackwatch
