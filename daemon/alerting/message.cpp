// SPDX-License-Identifier: Apache-2.0
#include "daemon/alerting/message.h"

#include <fmt/format.h>

#include <cmath>
#include <ctime>

namespace stackwatch {
namespace {

constexpr uint64_t kNsPerSecond = 1'000'000'000;
constexpr size_t kMaxComm = 64;          // the kernel gives 15 bytes, each of which may become \xNN
constexpr size_t kMaxFrameInText = 400;  // C++ names reach many thousand; a line that is read on a phone does not
constexpr size_t kMaxWord = 40;          // names of detectors and units

std::tm local(uint64_t realtime_ns) {
  const auto seconds = static_cast<time_t>(realtime_ns / kNsPerSecond);
  std::tm out{};
  tzset();  // localtime_r need not do it
  localtime_r(&seconds, &out);
  return out;
}

bool is_share(std::string_view unit) { return unit.starts_with("share"); }

/// Of what a share is one.
std::string_view whole_of(ProbeKind probe) {
  switch (probe) {
    case ProbeKind::kOnCpu:
      return "CPU time";
    case ProbeKind::kBlocked:
      return "blocked time";
    case ProbeKind::kRunQueue:
      return "time waiting for a CPU";
    case ProbeKind::kMemory:
      return "outstanding memory";
    case ProbeKind::kPageFault:
      return "page faults";
    case ProbeKind::kCensus:
      break;  // no shares
  }
  return "time";
}

/// What a value and its unit are about: "4.3 %" of its CPU time, "0.93 cores" of CPU time, "2.00 threads waiting" for a
/// CPU. Begins with a space where there is anything to say.
std::string measured(const Alert& alert) {
  if (is_share(alert.unit_of_measure)) {
    const size_t where = alert.unit_of_measure.find(" in ");  // "share of samples in new stacks"
    const std::string part = where == std::string::npos ? "" : printable(alert.unit_of_measure.substr(where), kMaxWord);
    return fmt::format(" of its {}{}", whole_of(alert.probe), part);
  }
  switch (alert.probe) {
    case ProbeKind::kOnCpu:
      return " of CPU time";
    case ProbeKind::kBlocked:
      return " for something else than a CPU";
    case ProbeKind::kRunQueue:
      return " for a CPU";
    case ProbeKind::kMemory:
      return " of memory";
    case ProbeKind::kPageFault:
    case ProbeKind::kCensus:  // the unit says what is meant
      break;
  }
  return "";
}

struct Verb {
  std::string_view now, past;
};
Verb verb_of(const Alert& alert) {
  if (!alert.frame.empty()) return {"takes", "took"};
  return alert.probe == ProbeKind::kOnCpu || alert.probe == ProbeKind::kMemory ? Verb{"uses", "used"}
                                                                               : Verb{"has", "had"};
}

std::string value_of(const Alert& alert, double value) { return value_text(value, alert.unit_of_measure); }

/// The second value of a sentence stands without its unit, but for the percent sign that belongs to the number.
std::string bare_value_of(const Alert& alert, double value) {
  std::string text = value_of(alert, value);
  return is_share(alert.unit_of_measure) ? text : text.substr(0, text.find(' '));
}

std::string now_and_before(const Alert& alert, std::string_view verb) {
  return fmt::format("{} {}{}, was {}", verb, value_of(alert, alert.after), measured(alert),
                     bare_value_of(alert, alert.before));
}

/// A function that novelty names never ran before: there is no "was".
bool is_new(const Alert& alert) { return alert.detector == "novelty" && !alert.frame.empty() && alert.before == 0; }

/// What is told of cost that moved, in the words of its kind.
std::string shift_statement(const Alert& alert, const std::string& since) {
  const Alert::Shift& shift = *alert.shift;
  // What a predecessor called it may be known by a number alone.
  const std::string from = shift.from.empty() ? "another function" : printable(shift.from, kMaxFrameInText);
  const std::string to = printable(shift.to, kMaxFrameInText);
  if (shift.kind == "renamed") {
    const std::string share = value_of(alert, alert.frame == shift.from ? alert.before : alert.after);
    return fmt::format("{} has the place of {} and takes the same, {}{}, since {}", to, from, share, measured(alert),
                       since);
  }
  if (shift.kind == "inlined")
    return fmt::format("{} is a part of {} now, which takes the same, since {}", from, to, since);
  if (shift.kind == "outlined")
    return fmt::format("a part of {} is the function {} now and takes the same, since {}", from, to, since);
  return fmt::format("{} is called by {} instead of {} and takes the same, since {}",
                     printable(shift.what, kMaxFrameInText), to, from, since);
}

std::string statement(const Alert& alert, const std::string& subject, const std::string& since) {
  if (alert.shift) return shift_statement(alert, since);
  if (alert.state != AlertState::kResolved && is_new(alert))
    return fmt::format("{}takes {}{}, new since {}", subject, value_of(alert, alert.after), measured(alert), since);
  if (alert.state != AlertState::kResolved)
    return fmt::format("{}{}, since {}", subject, now_and_before(alert, verb_of(alert).now), since);
  if (alert.resolution == kBackToBaseline || alert.resolution.empty())
    return fmt::format("{}is back to about {}{}, was {} since {}", subject, value_of(alert, alert.before),
                       measured(alert), bare_value_of(alert, alert.after), since);
  const std::string was = fmt::format("{}{}, since {}", subject, now_and_before(alert, verb_of(alert).past), since);
  if (alert.resolution == kProcessExited) return fmt::format("has exited; {}", was);
  if (alert.resolution == kProgramReplaced) return fmt::format("executes another program now; {}", was);
  if (alert.resolution == kNotWatched) return fmt::format("is no longer watched; {}", was);
  return fmt::format("{}, and this counts as normal now", was);
}

}  // namespace

std::string local_time(uint64_t realtime_ns, uint64_t reference_ns) {
  const std::tm then = local(realtime_ns);
  const std::tm reference = local(reference_ns);
  const bool same_day = then.tm_yday == reference.tm_yday && then.tm_year == reference.tm_year;
  const std::string time = fmt::format("{:02}:{:02}:{:02}", then.tm_hour, then.tm_min, then.tm_sec);
  if (same_day) return time;
  return fmt::format("{:04}-{:02}-{:02} {}", then.tm_year + 1900, then.tm_mon + 1, then.tm_mday, time);
}

std::string iso8601(uint64_t realtime_ns) {
  const auto seconds = static_cast<time_t>(realtime_ns / kNsPerSecond);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z", utc.tm_year + 1900, utc.tm_mon + 1, utc.tm_mday,
                     utc.tm_hour, utc.tm_min, utc.tm_sec, realtime_ns % kNsPerSecond / 1000);
}

std::string value_text(double value, std::string_view unit_of_measure) {
  if (is_share(unit_of_measure)) {
    const double percent = value * 100;
    if (percent == 0) return "0 %";
    return std::abs(percent) < 1 ? fmt::format("{:.2f} %", percent) : fmt::format("{:.1f} %", percent);
  }
  const double size = std::abs(value);
  std::string number = value == 0   ? "0"
                       : size < 0.1 ? fmt::format("{:.3f}", value)
                       : size < 10  ? fmt::format("{:.2f}", value)
                       : size < 100 ? fmt::format("{:.1f}", value)
                                    : fmt::format("{:.0f}", value);
  if (!unit_of_measure.empty()) number.append(" ").append(printable(unit_of_measure, kMaxWord));
  return number;
}

std::string message_of(const Alert& alert) {
  const int32_t pid = alert.process.pid_in_ns != 0 ? alert.process.pid_in_ns : alert.process.key.pid;
  const std::string subject = alert.frame.empty() ? "" : printable(alert.frame, kMaxFrameInText) + " ";
  const std::string since = local_time(alert.onset_ns, alert.updated_ns);
  const uint64_t more = alert.process_count() - 1;
  return fmt::format("{}[{}]{}: {} ({})", printable(alert.process.comm, kMaxComm), pid,
                     more > 0 ? fmt::format(" and {} more", more) : "", statement(alert, subject, since),
                     printable(alert.detector, kMaxWord));
}

}  // namespace stackwatch
