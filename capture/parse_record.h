// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string_view>

#include "capture/json_fields.h"
#include "capture/records.h"

namespace stackwatch {

/// One line of a capture but the first. Nothing where the type is unknown. What is wrong is left in `fields`.
[[nodiscard]] std::optional<CaptureRecord> parse_record(std::string_view type, JsonFields& fields);

}  // namespace stackwatch
