// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace stackwatch {

/// Why something that happened in a process is not, or not wholly, in its counts.
enum class LossReason : uint8_t {
  kMapFull,           ///< no room for another stack in the kernel's map: the value is not counted
  kFramesLate,        ///< the ring buffer was full when a stack's frames were to be told: told again at its next sample
  kTruncated,         ///< deeper than the kernel's limit: counted, but the root is missing
  kUnwindFailed,      ///< no user frame could be read: counted under its kernel part alone
  kRecursionMissed,   ///< the program was already running on this CPU: not counted
  kMissedTick,        ///< a tick came late: this delta covers more than one interval
  kNamesLate,         ///< the names came too late or not at all: counted under [unnamed]
  kStacksFull,        ///< more stacks than stacks_per_process: counted under [other]
  kWatchFull,         ///< no room to watch another process: a child is not counted; or another thread: a wait is not
  kUnknownFree,       ///< memory: the address freed is none whose allocation was counted (calls, not bytes)
  kMissedFree,        ///< memory: an address came again while it was live: its free was not seen; set right (calls)
  kAbandonedCall,     ///< memory: a call into the allocator that never returned: nothing is counted (calls)
  kUnwindIncomplete,  ///< the user stack ends before its thread's start: counted, but the root is missing
  kCount
};

inline constexpr size_t kLossReasons = static_cast<size_t>(LossReason::kCount);

/// The name that users see, as in `"lost":{"map_full":0}`.
[[nodiscard]] std::string_view to_string(LossReason reason);

/// How often each reason struck. In the unit of the probe (samples, bytes) unless the reason says otherwise.
struct Losses {
  std::array<uint64_t, kLossReasons> count{};

  uint64_t& operator[](LossReason reason) { return count[static_cast<size_t>(reason)]; }
  uint64_t operator[](LossReason reason) const { return count[static_cast<size_t>(reason)]; }
  Losses& operator+=(const Losses& other);
  bool operator==(const Losses&) const = default;

  /// Values that are in no stack at all (map_full, recursion_missed, watch_full); the others are counted somewhere.
  [[nodiscard]] uint64_t uncounted() const;
};

}  // namespace stackwatch
