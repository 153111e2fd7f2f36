// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/alert.h"

namespace stackwatch {

inline constexpr uint64_t kSampleOnsetNs = 1'795'349'000'000'000'000;  ///< 2026-11-22T12:03:20Z

/// The alert of the contract's example.
inline Alert sample_alert() {
  Alert a;
  a.id = "0123456789ab";
  a.state = AlertState::kFiring;
  a.onset_ns = kSampleOnsetNs;
  a.opened_ns = kSampleOnsetNs + 20'000'000'000;
  a.updated_ns = kSampleOnsetNs + 25'000'000'000;
  a.process = {{4711, 10'000'000}, 4711, "redis-server", "/usr/bin/redis-server", "/system.slice/redis.service",
               "redis.service"};
  a.detector = "composition";
  a.frame = "dictFind";
  a.stack = {"main", "aeMain", "call", "dictFind"};
  a.before = 0.011;
  a.after = 0.043;
  a.unit_of_measure = "share of samples";
  a.change_cores = 0.03;
  a.score = 21.4;
  return a;
}

inline Alert sample_rate_alert() {
  Alert a = sample_alert();
  a.detector = "rate";
  a.frame.clear();
  a.stack.clear();
  a.before = 0.31;
  a.after = 0.93;
  a.unit_of_measure = "cores";
  return a;
}

}  // namespace stackwatch
