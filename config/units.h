// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/probe_kind.h"
#include "core/result.h"

namespace stackwatch {

/// All errors here are of kind kUsage.

/// "500ms", "1s", "10m" or "10min", "2h", "30d": a number, which may have a fraction, and one unit. Seconds, never
/// negative, at most kMaxDurationS.
[[nodiscard]] Result<double> parse_duration(std::string_view text);
/// 100 years: nobody means more, and nanoseconds of it fit into 64 bits.
inline constexpr double kMaxDurationS = 100 * 365.25 * 86400;

/// "64M", "1.5G", "65536": bytes, with K, M, G, T for powers of 1024 as in systemd (an "iB" or "B" behind is allowed).
/// Less than 2^63.
[[nodiscard]] Result<uint64_t> parse_bytes(std::string_view text);

struct FalseAlarmBudget {
  double count = 1;
  double period_s = 30 * 86400.0;
};
/// "1 per 30d": a positive number and a duration that is not 0.
[[nodiscard]] Result<FalseAlarmBudget> parse_false_alarm_budget(std::string_view text);

/// Names of probes, `off_cpu` standing for blocked and run_queue, into kinds: each once, in order of ProbeKind. An
/// unknown name and an empty list are errors.
[[nodiscard]] Result<std::vector<ProbeKind>> parse_probes(std::span<const std::string> names);

/// A duration for people, in the largest unit that divides it: "500ms", "90s", "30d".
[[nodiscard]] std::string format_duration(double seconds);

}  // namespace stackwatch
