// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "core/probe_kind.h"
#include "detectors/detector.h"
#include "detectors/settings.h"

namespace stackwatch {

/// Every detector there is, in the order in which they are run: the names that `[detectors.NAME]` may use.
[[nodiscard]] std::span<const std::string_view> detector_names();

/// The enabled detectors that make sense for a probe (or for the census), for one process. `peers` is not among them:
/// it looks at all processes at once. `settings` must have passed validate().
[[nodiscard]] std::vector<std::unique_ptr<Detector>> make_detectors(ProbeKind probe, const DetectionPolicy& policy,
                                                                    const DetectorSettings& settings = {});

}  // namespace stackwatch
