// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "config/config.h"
#include "detectors/detector.h"
#include "detectors/settings.h"

namespace stackwatch {

/// What `[detectors.NAME]` may hold: the detectors' settings as config/ wants to know them.
[[nodiscard]] std::vector<DetectorSchema> detector_schemas();
/// The settings that a configuration asks for.
[[nodiscard]] DetectorSettings detector_settings(const Config& config);
/// How wrong the host's detectors may be, and what is worth telling.
[[nodiscard]] DetectionPolicy detection_policy(const Config& config);

}  // namespace stackwatch
