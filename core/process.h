// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "core/ids.h"

namespace stackwatch {

/// Start times are told in clock ticks by /proc and in nanoseconds by the task iterator. Identity uses the coarser
/// of the two, so that both agree; a pid cannot come round within 10 ms.
inline constexpr uint64_t kStartTimeGranularityNs = 10'000'000;

/// The identity of a process: a pid alone is reused.
struct ProcessKey {
  int32_t pid = 0;             ///< thread-group id in the initial pid namespace
  uint64_t start_time_ns = 0;  ///< CLOCK_BOOTTIME, rounded down to kStartTimeGranularityNs
  constexpr auto operator<=>(const ProcessKey&) const = default;
};

enum class SchedulingPolicy : uint8_t { kNormal, kFifo, kRoundRobin, kBatch, kIso, kIdle, kDeadline, kExt };

/// One process in one census. Counters are totals since the start of the process, dead threads included, and never
/// go backwards while the process lives.
struct ProcessSample {
  ProcessKey key;
  int32_t pid_in_ns = 0;   ///< the pid as the daemon's own pid namespace (and so its /proc) shows it
  int32_t parent_pid = 0;  ///< of the initial pid namespace; 0 where there is none
  std::string comm;
  std::string cgroup;  ///< path below the hierarchy's root, e.g. /system.slice/redis.service
  ExecId exec;         ///< changes when the process executes another program
  bool kernel_thread = false;

  uint64_t on_cpu_ns = 0;
  uint64_t run_queue_ns = 0;  ///< awake and waiting for a CPU
  uint64_t voluntary_switches = 0;
  uint64_t involuntary_switches = 0;
  uint64_t minor_faults = 0;
  uint64_t major_faults = 0;
  uint64_t rss_bytes = 0;    ///< a level, not a total
  uint64_t read_bytes = 0;   ///< from storage
  uint64_t write_bytes = 0;  ///< to storage

  int8_t nice = 0;
  SchedulingPolicy policy = SchedulingPolicy::kNormal;
  uint32_t threads = 0;
  uint32_t uid = 0;  ///< effective
};

}  // namespace stackwatch

template <>
struct std::hash<stackwatch::ProcessKey> {
  size_t operator()(const stackwatch::ProcessKey& key) const noexcept {
    return static_cast<size_t>((static_cast<uint64_t>(static_cast<uint32_t>(key.pid)) * 0x9e3779b97f4a7c15ULL) ^
                               (key.start_time_ns / stackwatch::kStartTimeGranularityNs));
  }
};
