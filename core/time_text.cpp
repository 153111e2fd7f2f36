// SPDX-License-Identifier: Apache-2.0
#include "core/time_text.h"

#include <array>
#include <cstdio>
#include <ctime>

namespace stackwatch {
namespace {

constexpr uint64_t kNsPerSecond = 1'000'000'000;
constexpr int kLastYear = 2261;

/// Takes pieces off the front of a text; after the first piece that is not there everything fails.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : rest_(text) {}

  /// A number of exactly `digits` digits in [low, high].
  int number(size_t digits, int low, int high) {
    int value = 0;
    if (rest_.size() < digits) return give_up();
    for (size_t i = 0; i < digits; ++i) {
      if (rest_[i] < '0' || rest_[i] > '9') return give_up();
      value = value * 10 + (rest_[i] - '0');
    }
    rest_.remove_prefix(digits);
    return value >= low && value <= high ? value : give_up();
  }
  bool skip(char wanted) {
    if (!ok_ || rest_.empty() || rest_.front() != wanted) return false;
    rest_.remove_prefix(1);
    return true;
  }
  void expect(char wanted) {
    if (!skip(wanted)) give_up();
  }
  /// The digits behind a decimal point as nanoseconds; digits past the ninth are cut.
  uint64_t fraction_ns() {
    uint64_t value = 0;
    uint64_t scale = kNsPerSecond;
    size_t digits = 0;
    for (; digits < rest_.size() && rest_[digits] >= '0' && rest_[digits] <= '9'; ++digits) {
      if (scale < 10) continue;
      scale /= 10;
      value += static_cast<uint64_t>(rest_[digits] - '0') * scale;
    }
    if (digits == 0) give_up();
    rest_.remove_prefix(digits);
    return value;
  }
  [[nodiscard]] bool at_end() const { return rest_.empty(); }
  [[nodiscard]] bool ok() const { return ok_; }

 private:
  int give_up() {
    ok_ = false;
    return 0;
  }
  std::string_view rest_;
  bool ok_ = true;
};

struct ClockTime {
  bool given = false;
  uint64_t fraction_ns = 0;
};

ClockTime read_clock_time(Scanner& scan, std::tm& fields) {
  if (!scan.skip('T') && !scan.skip(' ')) return {};
  ClockTime time{true, 0};
  fields.tm_hour = scan.number(2, 0, 23);
  scan.expect(':');
  fields.tm_min = scan.number(2, 0, 59);
  if (scan.skip(':')) {
    fields.tm_sec = scan.number(2, 0, 60);
    if (scan.skip('.')) time.fraction_ns = scan.fraction_ns();
  }
  return time;
}

/// Seconds east of Greenwich; nothing where no zone is given.
std::optional<int> read_zone(Scanner& scan) {
  if (scan.skip('Z')) return 0;
  const bool east = scan.skip('+');
  if (!east && !scan.skip('-')) return std::nullopt;
  const int hours = scan.number(2, 0, 14);
  scan.skip(':');
  const int minutes = scan.number(2, 0, 59);
  return (east ? 1 : -1) * (hours * 3600 + minutes * 60);
}

bool day_exists(std::tm fields) {
  const int day = fields.tm_mday;
  const int month = fields.tm_mon;
  fields.tm_hour = fields.tm_min = fields.tm_sec = 0;
  timegm(&fields);  // carries the 31st of February over into March
  return fields.tm_mday == day && fields.tm_mon == month;
}

}  // namespace

std::string format_utc(uint64_t realtime_ns) {
  const auto seconds = static_cast<time_t>(realtime_ns / kNsPerSecond);
  std::tm fields{};
  gmtime_r(&seconds, &fields);
  std::array<char, 64> text{};
  const int length =
      std::snprintf(text.data(), text.size(), "%04d-%02d-%02dT%02d:%02d:%02d.%06uZ", fields.tm_year + 1900,
                    fields.tm_mon + 1, fields.tm_mday, fields.tm_hour, fields.tm_min, fields.tm_sec,
                    static_cast<unsigned>(realtime_ns % kNsPerSecond / 1000));
  return {text.data(), static_cast<size_t>(length)};
}

int64_t local_seconds(int64_t realtime_ns) {
  if (realtime_ns < 0) return -1;
  const auto seconds = static_cast<time_t>(realtime_ns / 1'000'000'000);
  std::tm fields{};
  if (localtime_r(&seconds, &fields) == nullptr) return -1;
  return static_cast<int64_t>(seconds) + fields.tm_gmtoff;
}

std::optional<uint64_t> parse_time(std::string_view text, ZonelessTime zoneless) {
  Scanner scan(text);
  std::tm fields{};
  fields.tm_year = scan.number(4, 1970, kLastYear) - 1900;
  scan.expect('-');
  fields.tm_mon = scan.number(2, 1, 12) - 1;
  scan.expect('-');
  fields.tm_mday = scan.number(2, 1, 31);
  const ClockTime time = read_clock_time(scan, fields);
  const std::optional<int> zone = time.given ? read_zone(scan) : std::nullopt;
  if (!scan.ok() || !scan.at_end() || !day_exists(fields)) return std::nullopt;
  if (!zone && zoneless == ZonelessTime::kRefused) return std::nullopt;

  fields.tm_isdst = -1;
  const time_t seconds = zone ? timegm(&fields) - *zone : mktime(&fields);
  if (seconds < 0) return std::nullopt;
  return static_cast<uint64_t>(seconds) * kNsPerSecond + time.fraction_ns;
}

}  // namespace stackwatch
