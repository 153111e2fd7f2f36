// SPDX-License-Identifier: Apache-2.0
#include "core/losses.h"

namespace stackwatch {

std::string_view to_string(LossReason reason) {
  static constexpr std::array<std::string_view, kLossReasons> kNames = {
      "map_full",    "frames_late",    "truncated",        "unwind_failed", "recursion_missed",
      "missed_tick", "names_late",     "stacks_full",      "watch_full",    "unknown_free",
      "missed_free", "abandoned_call", "unwind_incomplete"};
  return kNames[static_cast<size_t>(reason)];
}

Losses& Losses::operator+=(const Losses& other) {
  for (size_t i = 0; i < kLossReasons; ++i) count[i] += other.count[i];
  return *this;
}

uint64_t Losses::uncounted() const {
  return (*this)[LossReason::kMapFull] + (*this)[LossReason::kRecursionMissed] + (*this)[LossReason::kWatchFull];
}

}  // namespace stackwatch
