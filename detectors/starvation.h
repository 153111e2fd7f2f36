// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "core/census_delta.h"
#include "core/result.h"

namespace stackwatch {

/// Tells whether a process waits for the CPU much more, or much less, than it used to: its quota was changed, or who
/// competes with it came or went. That is the machine's doing; what it changes in the process is told by what waits,
/// not by what the kernel does on the way in and out.
///
/// Why. Each time that a quota is used up, a thread is preempted, or a timer has expired when it is set, costs the
/// kernel 10 to 100 µs under the process's name, in functions like _raw_spin_unlock_irqrestore. In a program of short
/// requests that is some points of its CPU time (measured: from 1 to 4 %), and no line of its code has changed.
///
/// Method. Seconds of waiting per second of CPU time: of the last quarter of a minute, against its usual value, which
/// is forgotten with a half-life of ten minutes and not learned during an episode. An episode begins where the two
/// differ by kMuch and the larger is at least kStarved (the process gets a third of what it wants), ends where they
/// differ by less than kStillMuch, and is usual after an hour. Waiting that comes with more CPU time than usual is the
/// process's own: more threads that want the same.
/// Assumptions: none about distributions; the factors are far from what scheduling noise makes of a process that gets
/// its CPU time. 80 bytes a process.
/// A successor is handed on what is usual, and an episode that lasts (save, restore): `composition` remembers what was
/// before the episode, and would tell what began with it. The time in between does not count.
class Starvation {
 public:
  /// Under which its bytes are kept beside those of detectors.
  static constexpr std::string_view kHeritageName = "starvation";

  static constexpr double kStarved = 2;
  static constexpr double kMuch = 4;
  static constexpr double kStillMuch = 2;

  void observe(const CensusDelta& census);
  /// Whether a change that began at `onset_s` and is seen at `now_s` began in an episode, or about with one, that has
  /// not been over for long.
  [[nodiscard]] bool explains(double onset_s, double now_s) const;

  /// Versioned bytes; empty where nothing is usual yet.
  [[nodiscard]] std::string save() const;
  /// Begins anew at `now_s` with what a predecessor had seen. An error where the bytes are not what save() gave:
  /// nothing has changed then.
  [[nodiscard]] Result<void> restore(std::string_view saved, double now_s);

 private:
  struct Mean {
    double waited_s = 0, ran_s = 0, weight_s = 0;
    void add(const CensusDelta& census, double half_life_s);
    [[nodiscard]] double ratio() const;
  };
  void begin_or_end(double time_s);

  Mean recent_, usual_;
  double began_s_ = 0, ended_s_ = 0;
  double last_s_ = 0;  // of the last census
  bool lasts_ = false;
  bool was_any_ = false;
};

}  // namespace stackwatch
