// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/alert.h"
#include "core/losses.h"
#include "core/probe_kind.h"
#include "core/process.h"
#include "core/stacks.h"

namespace stackwatch {

/// The lines of a capture as values; docs/captures.md tells the format. Times are seconds since `started`.

/// The first line.
struct CaptureHeader {
  uint64_t started_ns = 0;  ///< CLOCK_REALTIME where t is 0
  std::string host;
  double tick_s = 1;         ///< nominal length of a tick
  int64_t origin_s = 0;      ///< what t = 0 is on the recorded time line (CLOCK_MONOTONIC): whole seconds, see time_s()
  bool marks_ticks = false;  ///< every tick ends with a CapturedTick

  /// Times of the recorded time line come out bit for bit: the difference of a double and a whole number of seconds
  /// below it has no more digits than the double.
  [[nodiscard]] double time_s(double t) const { return static_cast<double>(origin_s) + t; }
  [[nodiscard]] double t(double time_s) const { return time_s - static_cast<double>(origin_s); }
  /// CLOCK_REALTIME minus the recorded time line at the start.
  [[nodiscard]] int64_t realtime_offset_ns() const {
    return static_cast<int64_t>(started_ns - static_cast<uint64_t>(origin_s) * 1'000'000'000ULL);
  }
};

/// A process by its number in the capture. Comes again, with the same number, when what is known about it changes.
struct CapturedProcess {
  uint32_t number = 0;
  ProcessIdentity identity;
  /// What does not change from census to census (nice, uid, parent, …), and the totals that the first CapturedSample
  /// is a difference to. Nothing where no census saw the process.
  std::optional<ProcessSample> census;
};

/// The name of a file, for the functions of stacks that are told later.
struct CapturedObject {
  uint32_t number = 0;  ///< 0 is never told: the unknown file
  std::string name;
};

struct CapturedStack {
  uint64_t number = 0;
  std::optional<uint32_t> process;  ///< whose it is; nothing: anybody's
  std::vector<std::string> frames;  ///< root first
  std::vector<uint32_t> objects;    ///< of each frame; empty where the capture does not say
};

/// The census of one process: counters are differences to the last one.
struct CapturedSample {
  double t = 0;
  uint32_t process = 0;
  ProcessSample difference;
};

struct CapturedDelta {
  struct Value {
    uint64_t stack = 0;
    int64_t value = 0;
  };
  double t = 0;
  uint32_t process = 0;
  ProbeKind probe = ProbeKind::kOnCpu;
  double exposure_s = 0;
  std::optional<double> interval_s;
  std::optional<double> frequency_hz;
  std::vector<Value> values;
  Losses lost;
};

/// The losses of a probe since it was attached, where they are not the sum of its deltas in the capture.
struct CapturedLosses {
  uint32_t process = 0;
  ProbeKind probe = ProbeKind::kOnCpu;
  Losses total;
};

struct CapturedEnd {
  enum class Kind : uint8_t {
    kExit,      ///< the process has ended
    kDetached,  ///< it lives on and is watched no longer
    kReplaced,  ///< it executes another program from this tick on
  };
  double t = 0;
  uint32_t process = 0;
  Kind kind = Kind::kExit;
};

/// Everything since the last one happened in this tick.
struct CapturedTick {
  double t = 0;
  /// How far CLOCK_REALTIME has moved against the recorded time line since `started`: 0 but for a clock that was set.
  std::optional<int64_t> clock_ns;
};

using CaptureRecord = std::variant<CapturedProcess, CapturedObject, CapturedStack, CapturedSample, CapturedDelta,
                                   CapturedLosses, CapturedEnd, CapturedTick>;

/// A line that is longer is refused. The longest that a recorder writes is a stack of 254 frames of 1,024 bytes each
/// (symbols/protocol.h cuts there), in which every byte may need an escape of six.
inline constexpr size_t kMaxCaptureLineBytes = size_t{4} << 20U;
/// Frames of one stack: the kernel gives at most 127 of each half; other profilers' stacks may be deeper.
inline constexpr size_t kMaxCaptureFrames = 1024;

}  // namespace stackwatch
