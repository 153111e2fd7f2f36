// SPDX-License-Identifier: Apache-2.0
#include "daemon/governor.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace stackwatch {
namespace {

/// Steps of the CPU's ladder: rates 1/2 and 1/4, then no survey, then no suspects, then half of the places per step.
constexpr int kRateSteps = 2;

Shedding at_level(int cpu, int memory) {
  Shedding shedding;
  shedding.rate_factor = std::exp2(-std::min(cpu, kRateSteps));
  // A lower rate saves no memory: its ladder begins with the survey.
  const int places = std::max(cpu - kRateSteps, memory);
  shedding.survey = places < 1;
  shedding.suspects = places < 2;
  shedding.places = std::exp2(-std::max(0, places - 2));
  return shedding;
}

}  // namespace

std::string Shedding::text() const {
  if (!sheds()) return "";
  std::string text = reason;
  const char* between = ": ";
  const auto add = [&](std::string_view part) {
    text += between;
    text += part;
    between = ", ";
  };
  if (rate_factor < 1) add(fmt::format("sampling at {:.0f} % of the rates", 100 * rate_factor));
  if (!survey) add("no survey");
  if (!suspects) add("no suspects");
  if (places < 1) add(fmt::format("{:.2g} % of the attachments that rules may have", 100 * places));
  return text;
}

bool Governor::Ladder::step(double time_s, double used, int max_level) {
  if (used > 1) {
    calm_since_s = -1;
    if (over_since_s < 0) over_since_s = time_s;
    if (level == max_level || time_s - std::max(over_since_s, changed_s) < kStepS) return false;
    const bool came_back = lowered_s >= 0 && time_s - lowered_s < 2 * calm_s;
    calm_s = came_back ? std::min(2 * calm_s, kMaxCalmS) : kCalmS;
    ++level;
    changed_s = time_s;
    return true;
  }
  over_since_s = -1;
  if (level == 0 || used > kLow) {
    calm_since_s = -1;
    return false;
  }
  if (calm_since_s < 0) calm_since_s = time_s;
  if (time_s - std::max(calm_since_s, changed_s) < calm_s) return false;
  --level;
  changed_s = lowered_s = calm_since_s = time_s;
  return true;
}

Shedding Governor::shed(const Usage& usage) const {
  Shedding shedding = at_level(cpu_.level, memory_.level);
  if (cpu_.level > 0) {
    shedding.reason = fmt::format("stackwatchd was over its CPU limit, now {:.1f} % of a core of {:.4g} %",
                                  usage.cpu_percent, limits_.cpu_percent);
  }
  if (memory_.level > 0) {
    const auto mb = [](uint64_t bytes) { return static_cast<double>(bytes) / 1e6; };
    shedding.reason +=
        fmt::format("{}stackwatchd was over its memory limit, now {:.0f} MB of {:.0f} MB",
                    shedding.reason.empty() ? "" : "; ", mb(usage.memory_bytes), mb(limits_.memory_bytes));
  }
  return shedding;
}

bool Governor::observe(double time_s, const Usage& usage) {
  if (started_s_ < 0) started_s_ = time_s;
  const double memory = static_cast<double>(usage.memory_bytes) / static_cast<double>(limits_.memory_bytes);
  over_memory_ = memory > 1;
  bool changed = memory_.step(time_s, memory, kMaxMemoryLevel);
  if (time_s - started_s_ >= kStartS) {
    changed = cpu_.step(time_s, usage.cpu_percent / limits_.cpu_percent, kMaxCpuLevel) || changed;
  }
  if (changed) shedding_ = shed(usage);
  return changed;
}

}  // namespace stackwatch
