// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "config/config.h"

namespace stackwatch {

/// What the daemon does without because it is over a limit of its own: least important first.
struct Shedding {
  double rate_factor = 1;  ///< of every sampling rate
  bool survey = true;
  bool suspects = true;
  double places = 1;   ///< share of [limits] attachments that may be filled
  std::string reason;  ///< which limit, and what of it is used; empty where nothing is shed
  bool operator==(const Shedding& other) const {
    return rate_factor == other.rate_factor && survey == other.survey && suspects == other.suspects &&
           places == other.places;
  }
  [[nodiscard]] bool sheds() const { return *this != Shedding{}; }
  /// One line for people: what, and why. Empty where nothing is shed.
  [[nodiscard]] std::string text() const;
};

/// Holds the daemon to [limits] cpu_percent and memory before the kernel does. A ladder for each: over the limit for
/// kStepS it goes one step up; below kLow of it for a while, one down. Who went down and had to go up again waits twice
/// as long before the next try, so that a load at the limit does not flap. Pure: it only says what to do.
class Governor {
 public:
  /// One step needs so long to show: detaching, and a new mean of the CPU share over kWindowS.
  static constexpr double kStepS = 20;
  /// CPU time is looked at over so long: shorter ones are one census or one alert.
  static constexpr double kWindowS = 10;
  /// At the start everything is named for the first time: its cost is no sign of what comes.
  static constexpr double kStartS = 60;
  /// Share of the limit below which there is room for one step down: a step of rates is a factor of two.
  static constexpr double kLow = 0.6;
  static constexpr double kCalmS = 60;
  static constexpr double kMaxCalmS = 960;
  static constexpr int kMaxCpuLevel = 8;
  static constexpr int kMaxMemoryLevel = 6;

  struct Usage {
    double cpu_percent = 0;  ///< of one core, over the last kWindowS
    uint64_t memory_bytes = 0;
  };

  void set_limits(const LimitsConfig& limits) { limits_ = limits; }
  /// Once per tick; time on any line that never jumps. True where what is shed changed.
  bool observe(double time_s, const Usage& usage);
  [[nodiscard]] const Shedding& shedding() const { return shedding_; }
  [[nodiscard]] bool over_memory() const { return over_memory_; }

 private:
  struct Ladder {
    int level = 0;
    double over_since_s = -1;
    double calm_since_s = -1;
    double changed_s = 0;
    double lowered_s = -1;
    double calm_s = kCalmS;
    bool step(double time_s, double used, int max_level);
  };
  [[nodiscard]] Shedding shed(const Usage& usage) const;

  LimitsConfig limits_;
  double started_s_ = -1;
  Ladder cpu_;
  Ladder memory_;
  bool over_memory_ = false;
  Shedding shedding_;
};

}  // namespace stackwatch
