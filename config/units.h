// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

#include "core/result.h"

namespace stackwatch {

/// "500ms", "1s", "10m" or "10min", "2h", "30d": a number, which may have a fraction, and one unit. Seconds.
/// Never negative; nothing is said about an upper bound but that the value is finite.
[[nodiscard]] Result<double> parse_duration(std::string_view text);

/// "64M", "1.5G", "65536": bytes, with K, M, G, T for powers of 1024 as in systemd (an "iB" or "B" behind is allowed).
[[nodiscard]] Result<uint64_t> parse_bytes(std::string_view text);

struct FalseAlarmBudget {
  double count = 1;
  double period_s = 30 * 86400.0;
};
/// "1 per 30d": a positive number and a duration.
[[nodiscard]] Result<FalseAlarmBudget> parse_false_alarm_budget(std::string_view text);

}  // namespace stackwatch
