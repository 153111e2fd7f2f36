// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string_view>
#include <vector>

#include "detectors/detector.h"
#include "detectors/growth.h"
#include "detectors/settings.h"

namespace stackwatch {

/// Finds memory that grows without going back. On `memory` the outstanding bytes of each stack (allocated minus freed,
/// summed up over the deltas); on the census the resident memory of the whole process, for whoever has no probe. The
/// method is that of growth.h.
///
/// Bounded: `max_streams` stacks are followed; a stack that is new when all places are taken gets the place of the one
/// with the fewest outstanding bytes, if it has allocated more. Stacks without a delta cost a comparison per block.
/// Names. The deepest function of the stack that does more than allocate: the caller of malloc, operator new and the
/// like. Contributors: other stacks that are claimed to leak at the same time.
class LeakDetector final : public Detector {
 public:
  static constexpr std::string_view kName = "leak";

  /// `probe` is memory or census.
  LeakDetector(ProbeKind probe, const DetectionPolicy& policy, const LeakSettings& settings);

  [[nodiscard]] std::string_view name() const override { return kName; }
  [[nodiscard]] std::optional<Finding> observe(const NamedDelta& delta) override;
  [[nodiscard]] std::optional<Finding> observe_census(const CensusDelta& census) override;
  void set_policy(const DetectionPolicy& policy) override { policy_ = policy; }
  [[nodiscard]] size_t streams() const override { return streams_.empty() ? 1 : streams_.size(); }

 private:
  struct Stream {
    uint32_t stack = 0;
    double bytes = 0;  // outstanding, of what was allocated since it is followed
    Growth growth;
  };
  void take(uint32_t stack, double bytes, double time_s);
  /// For a stream that begins now.
  [[nodiscard]] Growth::Options options(double time_s) const;
  [[nodiscard]] std::optional<Finding> look(const NamedDelta& delta);
  /// Who asked for the memory of a stack that grows.
  [[nodiscard]] std::optional<FunctionId> function_of(uint32_t stack, const NamedDelta& delta,
                                                      std::span<const uint32_t> growing) const;
  [[nodiscard]] bool hands_on(std::span<const FunctionId> frames, size_t frame, const NamedDelta& delta,
                              std::span<const uint32_t> growing) const;

  ProbeKind probe_;
  DetectionPolicy policy_;
  LeakSettings settings_;
  std::vector<Stream> streams_;
  std::vector<uint32_t> places_;  // by stack: index in streams_ plus one; 0 where it is not followed
  const StackTable* table_ = nullptr;
  std::optional<Growth> resident_;
  std::optional<Finding> standing_;
  std::optional<double> first_s_;
  double last_end_s_ = -std::numeric_limits<double>::infinity();
};

}  // namespace stackwatch
