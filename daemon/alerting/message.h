// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/alert.h"

namespace stackwatch {

/// The alert as one line that a person understands alone, in the local time of the host:
/// `redis-server[4711]: dictFind takes 4.3 % of its CPU time, was 1.1 %, since 12:03:20 (composition)`.
[[nodiscard]] std::string message_of(const Alert& alert);

/// `value` in the alert's unit as people read it: "4.3 %", "0.93 cores".
[[nodiscard]] std::string value_text(const Alert& alert, double value);

/// Text of strangers made harmless for a line of a terminal or a log: control characters, bidirectional overrides and
/// bytes that are no UTF-8 become \xNN or \u{NNNN}; longer than `max_bytes` (at least 16) it is cut in the middle by
/// "…".
[[nodiscard]] std::string printable(std::string_view text, size_t max_bytes);

/// CLOCK_REALTIME as `2026-11-22T12:03:20.000000Z`.
[[nodiscard]] std::string iso8601(uint64_t realtime_ns);

}  // namespace stackwatch
