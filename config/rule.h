// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "config/config.h"
#include "core/result.h"

namespace stackwatch {

/// Fewer samples than one per second and CPU say nothing within a minute. More than 4000, what `perf record` takes
/// unless told, cost a process over 5 % of its CPU time.
inline constexpr double kMinFrequencyHz = 1;
inline constexpr double kMaxFrequencyHz = 4000;

/// Checks a rule and completes it: adds `.service` to a bare unit name, makes the id where there is none. Errors are of
/// kind kUsage, what is the key: "frequency", "unit", …, and empty where the rule as a whole is meant.
[[nodiscard]] Result<WatchRule> checked_rule(WatchRule rule);

/// The matchers in one line, as people recognise the rule: `name=redis-server user=redis`.
[[nodiscard]] std::string describe(const WatchRule& rule);

}  // namespace stackwatch
