// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace stackwatch {

/// `2026-11-22T12:00:00.123456Z`. The argument is CLOCK_REALTIME in nanoseconds; what is finer than a microsecond is
/// cut.
[[nodiscard]] std::string format_utc(uint64_t realtime_ns);

/// What wall clocks show here (TZ, else /etc/localtime) at this CLOCK_REALTIME, in seconds since 1970-01-01 00:00 on
/// them. Negative where it is no time after that.
[[nodiscard]] int64_t local_seconds(int64_t realtime_ns);

/// What a time without a zone means.
enum class ZonelessTime { kRefused, kLocal };

/// Reads ISO 8601: `2026-11-22T12:00:00`, with `T` or a blank, seconds and their fraction optional, then `Z`, `+01:00`,
/// `+0100` or nothing. Also a date alone (midnight) where a zone is not asked for. Nothing where it is no such time,
/// lies before 1970 or past the year 2261 (what fits into 64 bits of nanoseconds, with room).
[[nodiscard]] std::optional<uint64_t> parse_time(std::string_view text, ZonelessTime zoneless);

}  // namespace stackwatch
