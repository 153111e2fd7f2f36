// SPDX-License-Identifier: Apache-2.0
#include "config/units.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <optional>

#include "config/text.h"

namespace stackwatch {
namespace {

struct Unit {
  std::string_view name;
  double factor;
};

// The first name of each size is the one that format_duration() writes.
constexpr std::array<Unit, 6> kDurations{{{"d", 86400}, {"h", 3600}, {"m", 60}, {"s", 1}, {"ms", 0.001}, {"min", 60}}};
constexpr double kKibi = 1024;
constexpr std::array<Unit, 4> kSizes{
    {{"K", kKibi}, {"M", kKibi* kKibi}, {"G", kKibi* kKibi* kKibi}, {"T", kKibi* kKibi* kKibi* kKibi}}};

constexpr char kDurationHint[] = "a number and ms, s, m, h or d, like \"10s\"";
constexpr char kSizeHint[] = "a number of bytes, or one with K, M, G or T, like \"64M\"";
constexpr char kBudgetHint[] = "a number and a duration, like \"1 per 30d\"";

std::string_view trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(' ');
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(' ') - begin + 1);
}

// The decimal number at the beginning of `text`, which is cut off it. No sign, no exponent, no "inf".
std::optional<double> take_number(std::string_view& text) {
  const size_t end = std::min(text.find_first_not_of("0123456789."), text.size());
  double value = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + end, value, std::chars_format::fixed);
  if (error != std::errc{} || stop != text.data() + end) return std::nullopt;
  text.remove_prefix(end);
  return value;
}

Failure bad(std::string_view kind, std::string_view text, std::string_view reason, const char* hint) {
  return fail(ErrorKind::kUsage, std::string(kind) + " " + in_quotes(text), std::string(reason), hint);
}

}  // namespace

Result<double> parse_duration(std::string_view text) {
  constexpr std::string_view kWhat = "duration";
  std::string_view rest = trim(text);
  if (rest.starts_with('-')) return bad(kWhat, text, "it is negative", kDurationHint);
  const std::optional<double> number = take_number(rest);
  if (!number) return bad(kWhat, text, "it does not begin with a number", kDurationHint);
  rest = trim(rest);
  if (rest.empty()) return bad(kWhat, text, "it has no unit", kDurationHint);
  const auto* unit = std::find_if(kDurations.begin(), kDurations.end(), [&](const Unit& u) { return u.name == rest; });
  if (unit == kDurations.end()) return bad(kWhat, text, "unknown unit " + in_quotes(rest), kDurationHint);
  const double seconds = *number * unit->factor;
  if (!(seconds <= kMaxDurationS)) return bad(kWhat, text, "it is longer than 100 years", kDurationHint);
  return seconds;
}

Result<uint64_t> parse_bytes(std::string_view text) {
  constexpr std::string_view kWhat = "size";
  std::string_view rest = trim(text);
  if (rest.starts_with('-')) return bad(kWhat, text, "it is negative", kSizeHint);
  const std::optional<double> number = take_number(rest);
  if (!number) return bad(kWhat, text, "it does not begin with a number", kSizeHint);
  rest = trim(rest);
  std::string_view unit_name = rest;
  if (unit_name.ends_with('B')) unit_name.remove_suffix(1);
  if (unit_name.size() == 2 && unit_name.ends_with('i')) unit_name.remove_suffix(1);
  double factor = 1;
  if (!unit_name.empty()) {
    const auto* unit = std::find_if(kSizes.begin(), kSizes.end(), [&](const Unit& u) { return u.name == unit_name; });
    if (unit == kSizes.end()) return bad(kWhat, text, "unknown unit " + in_quotes(rest), kSizeHint);
    factor = unit->factor;
  }
  const double bytes = *number * factor;
  if (!(bytes < 0x1p63)) return bad(kWhat, text, "it is too large", kSizeHint);
  return static_cast<uint64_t>(bytes);
}

Result<FalseAlarmBudget> parse_false_alarm_budget(std::string_view text) {
  constexpr std::string_view kWhat = "false-alarm budget";
  constexpr std::string_view kPer = " per ";
  const size_t per = text.find(kPer);
  if (per == std::string_view::npos) return bad(kWhat, text, "it has no \"per\"", kBudgetHint);
  std::string_view count_text = trim(text.substr(0, per));
  const std::optional<double> count = take_number(count_text);
  if (!count || !count_text.empty()) return bad(kWhat, text, "it does not begin with a plain number", kBudgetHint);
  const Result<double> period = parse_duration(text.substr(per + kPer.size()));
  if (!period) return bad(kWhat, text, period.error().what + ": " + period.error().why, kBudgetHint);
  if (!(*count > 0)) return bad(kWhat, text, "no false alarm at all means no alarm at all", kBudgetHint);
  if (!(*period > 0)) return bad(kWhat, text, "the time is 0", kBudgetHint);
  return FalseAlarmBudget{*count, *period};
}

Result<std::vector<ProbeKind>> parse_probes(std::span<const std::string> names) {
  static constexpr std::array<std::string_view, 6> kNames = {"on_cpu", "off_cpu",    "blocked",
                                                             "memory", "page_fault", "run_queue"};
  std::vector<ProbeKind> kinds;
  for (const std::string& name : names) {
    if (name == "off_cpu") {
      kinds.insert(kinds.end(), {ProbeKind::kBlocked, ProbeKind::kRunQueue});
    } else if (const std::optional<ProbeKind> kind = parse_counted_probe(name)) {
      kinds.push_back(*kind);
    } else {
      return fail(ErrorKind::kUsage, "probe " + in_quotes(name), "there is no such probe", suggestion(name, kNames));
    }
  }
  if (kinds.empty()) return fail(ErrorKind::kUsage, "probes", "the list is empty", "the default is [\"on_cpu\"]");
  std::sort(kinds.begin(), kinds.end());
  kinds.erase(std::unique(kinds.begin(), kinds.end()), kinds.end());
  return kinds;
}

std::string format_duration(double seconds) {
  constexpr double kLeast = 0.001;  // finer than that no duration is written
  for (const Unit& unit : kDurations) {
    const double count = seconds / unit.factor;
    if (count >= 1 && std::abs(count - std::round(count)) * unit.factor < kLeast / 2) {
      return format_number(std::round(count)) + std::string(unit.name);
    }
  }
  return format_number(seconds) + "s";
}

}  // namespace stackwatch
