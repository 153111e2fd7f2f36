// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "core/clock.h"
#include "core/probe.h"
#include "core/probe_kind.h"
#include "core/result.h"

namespace stackwatch {

/// How a kind's values are printed.
struct ProbeUnits {
  ProbeKind kind;
  bool is_time = false;         ///< nanoseconds, or samples that stand for them
  int64_t classic_divisor = 1;  ///< value / divisor is what `classic` prints
  std::string_view json;        ///< unit of the value itself
};
[[nodiscard]] const ProbeUnits& units_of(ProbeKind kind);

/// Kinds that are printed as one: blocked and run_queue are off_cpu where both are counted.
struct ProbeGroup {
  std::string_view name;
  std::vector<ProbeKind> kinds;
};
/// The groups of what is counted, in order of ProbeKind.
[[nodiscard]] std::vector<ProbeGroup> groups_of(std::span<const ProbeKind> kinds);

/// Engines on the real kernel for all of these kinds; one engine may serve two of them. Error: kUnsupported where this
/// version has no such probe, or the kernel or the privileges do not allow it.
[[nodiscard]] Result<std::vector<std::unique_ptr<ProbeEngine>>> make_engines(std::span<const ProbeKind> kinds,
                                                                             const Clock& clock);

}  // namespace stackwatch
