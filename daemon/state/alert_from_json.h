// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "core/alert.h"
#include "core/result.h"

namespace stackwatch {

/// The alert that write_alert() wrote. Its process keys lack the pid of the initial pid namespace, which JSON does not
/// tell: they are 0. Members that are unknown are skipped; numbers that were not finite are 0. Error: no such object.
[[nodiscard]] Result<Alert> alert_from_json(std::string_view json);

}  // namespace stackwatch
