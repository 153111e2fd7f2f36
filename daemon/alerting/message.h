// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/alert.h"

namespace stackwatch {

/// Alert::resolution of a resolved alert: why it is over.
inline constexpr std::string_view kBackToBaseline = "back to its baseline";
inline constexpr std::string_view kProcessExited = "the process exited";
inline constexpr std::string_view kProgramReplaced = "the process executes another program";
/// It stood so long that the detectors took it for the new baseline, or ended just then: they cannot tell.
inline constexpr std::string_view kCountsAsNormal = "lasted so long that it counts as normal";
/// No counts of the process came any more, so nothing is known.
inline constexpr std::string_view kNotWatched = "no longer watched";
/// It stood when an earlier daemon ended, and its process ended before this one looked.
inline constexpr std::string_view kGoneMeanwhile = "the process ended while stackwatchd did not run";

/// Cost moved and did not grow: it never was an alarm.
inline constexpr std::string_view kCostMoved = "cost that moved: nothing takes more than before";

/// The alert as one line that a person understands alone, in the local time of the host:
/// `redis-server[4711]: dictFind takes 4.3 % of its CPU time, was 1.1 %, since 12:03:20 (composition)`.
/// Where it is about more processes: `redis-server[4711] and 9 more: …`, with the values of the first.
/// No control characters, at most some 600 bytes, whatever the names are.
[[nodiscard]] std::string message_of(const Alert& alert);

/// `value` in a unit of measure as people read it: 0.043 "share of samples" is "4.3 %", 0.93 "cores" is "0.93 cores".
[[nodiscard]] std::string value_text(double value, std::string_view unit_of_measure);

/// Text of strangers made harmless for a line of a terminal or a log: control characters, bytes that are no UTF-8 and
/// characters that are invisible or turn the direction of writing become \xNN or \u{NNNN}; text longer than `max_bytes`
/// (at least 16) is cut in the middle, where a "…" stands.
[[nodiscard]] std::string printable(std::string_view text, size_t max_bytes);

/// CLOCK_REALTIME as `2026-11-22T12:03:20.000000Z`.
[[nodiscard]] std::string iso8601(uint64_t realtime_ns);

/// `12:03:20` in the local time of the host, with the date before it where that is not the day of `reference_ns`.
[[nodiscard]] std::string local_time(uint64_t realtime_ns, uint64_t reference_ns);

}  // namespace stackwatch
