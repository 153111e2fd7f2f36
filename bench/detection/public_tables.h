// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "core/result.h"

namespace stackwatch {

/// Prints, as Markdown, how `stackwatch detect` and the baselines do on the public series in `directory` (its folders
/// `nab` and `asd`, what there is), and what each part of the detector contributes.
[[nodiscard]] Result<void> print_public_tables(const std::string& directory);

}  // namespace stackwatch
