// SPDX-License-Identifier: Apache-2.0
#include "core/clock.h"

#include <ctime>

namespace stackwatch {
namespace {

uint64_t read_clock(clockid_t id) {
  timespec now{};
  clock_gettime(id, &now);  // cannot fail for the three fixed clocks used here
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000U + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace

uint64_t SystemClock::monotonic_ns() const { return read_clock(CLOCK_MONOTONIC); }
uint64_t SystemClock::boottime_ns() const { return read_clock(CLOCK_BOOTTIME); }
uint64_t SystemClock::realtime_ns() const { return read_clock(CLOCK_REALTIME); }

}  // namespace stackwatch
