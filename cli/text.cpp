// SPDX-License-Identifier: Apache-2.0
#include "cli/text.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <ctime>

#include "core/time_text.h"
#include "daemon/alerting/message.h"

namespace stackwatch {
namespace {

constexpr size_t kUncutBytes = size_t{64} << 10U;

std::string scaled(double value, double base, std::string_view suffixes) {
  size_t power = 0;
  while (std::abs(value) >= base && power + 1 < suffixes.size()) {
    value /= base;
    ++power;
  }
  std::string text = fixed_text(value, power == 0 ? 0 : 1);
  if (power > 0) text += suffixes[power];
  return text;
}

std::string two_parts(int64_t large, const char* large_unit, int64_t small, const char* small_unit) {
  return std::to_string(large) + " " + large_unit + " " + std::to_string(small) + " " + small_unit;
}

}  // namespace

std::string fixed_text(std::optional<double> value, int decimals) {
  if (!value) return "-";
  std::array<char, 400> text{};  // the largest double has 309 digits
  const int length = std::snprintf(text.data(), text.size(), "%.*f", std::clamp(decimals, 0, 9), *value);
  return {text.data(), static_cast<size_t>(length)};
}

std::string bytes_text(std::optional<double> bytes) { return bytes ? scaled(*bytes, 1024, " KMGTPE") : "-"; }

std::string count_text(std::optional<double> count) { return count ? scaled(*count, 1000, " kMGTPE") : "-"; }

std::string percent_text(std::optional<double> share) { return share ? fixed_text(*share * 100, 1) + " %" : "-"; }

std::string duration_text(std::optional<double> seconds) {
  if (!seconds) return "-";
  constexpr int64_t kMinute = 60;
  constexpr int64_t kHour = 3600;
  constexpr int64_t kDay = 86400;
  if (*seconds < 1) return fixed_text(*seconds * 1000, 0) + " ms";
  if (*seconds < 60) return fixed_text(*seconds, *seconds == std::floor(*seconds) ? 0 : 1) + " s";
  const auto whole = static_cast<int64_t>(std::min(*seconds, 1e15));
  if (whole < kHour) return two_parts(whole / kMinute, "m", whole % kMinute, "s");
  if (whole < kDay) return two_parts(whole / kHour, "h", whole % kHour / kMinute, "m");
  return two_parts(whole / kDay, "d", whole % kDay / kHour, "h");
}

std::string measure_text(std::optional<double> value, std::string_view unit_of_measure) {
  if (unit_of_measure.starts_with("share")) return percent_text(value);
  return fixed_text(value, 2) + " " + safe_text(unit_of_measure, 32);
}

std::string local_time_text(std::string_view iso) {
  const std::optional<uint64_t> time_ns = parse_time(iso, ZonelessTime::kRefused);
  if (!time_ns) return safe_text(iso, 32);
  const auto seconds = static_cast<time_t>(*time_ns / 1'000'000'000);
  std::tm fields{};
  localtime_r(&seconds, &fields);
  std::array<char, 64> text{};
  const size_t length = std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S", &fields);
  return {text.data(), length};
}

std::string safe_text(std::string_view text, size_t columns) { return printable(text, columns); }

std::string safe_text(std::string_view text) { return printable(text, kUncutBytes); }

size_t columns_of(std::string_view text) {
  const auto begins_character = [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; };
  return static_cast<size_t>(std::ranges::count_if(text, begins_character));
}

}  // namespace stackwatch
