// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "config/config.h"
#include "config/problems.h"
#include "config/tree.h"

namespace stackwatch {

/// What is in force before any file is read: the defaults, those of the detectors included.
[[nodiscard]] Config default_config(std::span<const DetectorSchema> detectors);

/// Applies one file to `config`: scalars override, tables merge, watch rules are appended. What is wrong goes to
/// `problems` and leaves its value as it was.
void apply(const TreeTable& root, std::span<const DetectorSchema> detectors, Config& config, Problems& problems);

/// Checks what no single file can know, after the last one: adds Config::warnings.
void complete(Config& config);

}  // namespace stackwatch
