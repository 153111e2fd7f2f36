// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace stackwatch {

/// Numbers as people read them; "-" where there is none.
[[nodiscard]] std::string fixed_text(std::optional<double> value, int decimals);
/// "11.8M": powers of 1024.
[[nodiscard]] std::string bytes_text(std::optional<double> bytes);
/// "950", "12.3k", "4.5M": powers of 1000.
[[nodiscard]] std::string count_text(std::optional<double> count);
/// "4.3 %" of a share between 0 and 1.
[[nodiscard]] std::string percent_text(std::optional<double> share);
/// "850 ms", "12.5 s", "10 m 0 s", "3 h 5 m", "4 d 2 h".
[[nodiscard]] std::string duration_text(std::optional<double> seconds);
/// A value of an alert in its unit: "4.3 %" where the unit is a share, else "0.93 cores".
[[nodiscard]] std::string measure_text(std::optional<double> value, std::string_view unit_of_measure);
/// A time of the daemon's JSON in local time without its fraction: `2026-11-22 13:00:00`; as it is where it is none.
[[nodiscard]] std::string local_time_text(std::string_view iso);

/// Text of strangers for a terminal: harmless, at most `columns` characters wide (at least 16).
[[nodiscard]] std::string safe_text(std::string_view text, size_t columns);
/// The same uncut. Names of functions may be thousands of characters long; past 64 KiB they are cut all the same.
[[nodiscard]] std::string safe_text(std::string_view text);

/// How many columns a safe text takes: its characters. (Wide characters count once.)
[[nodiscard]] size_t columns_of(std::string_view text);

}  // namespace stackwatch
