// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/alert.h"
#include "core/process.h"

namespace stackwatch {

/// An alert as it is kept. Times are CLOCK_REALTIME nanoseconds.
struct StoredAlert {
  std::string id;
  AlertState state = AlertState::kFiring;
  ProcessKey process;  ///< means something in the boot `boot_id` alone: pids and start times come again
  std::string boot_id;
  uint64_t opened_ns = 0;
  uint64_t updated_ns = 0;
  std::string evidence;  ///< JSON: the alert's one shape
  bool operator==(const StoredAlert&) const = default;
};

/// An alert that people are to be told, and that nobody knows to have been told yet.
struct OutboxRow {
  int64_t sequence = 0;  ///< grows with time, is never used again
  StoredAlert alert;     ///< as it was when it was to be told
};

/// What the detectors of a service have learned. The store does not look into it.
struct Baseline {
  std::string service;  ///< key: what stays the same when the service restarts
  int64_t version = 0;  ///< of the blob's format: the reader's business
  uint64_t updated_ns = 0;
  std::vector<std::byte> blob;
  bool operator==(const Baseline&) const = default;
};

/// How much is kept. What goes first is what was changed longest ago, resolved alerts only.
struct StoreBounds {
  /// The file and its log. Pruned at nine tenths of it; the file never grows past it.
  uint64_t bytes = uint64_t{64} << 20U;
  /// Years at a sane rate; 30 MB of 3 kB each.
  size_t alerts = 10'000;
  /// Entries that wait for a journal. Where there never is one, these are the newest.
  size_t outbox = 1'000;
  /// Services with a past.
  size_t baselines = 2'000;
  /// One blob: what is larger is refused.
  size_t baseline_bytes = size_t{1} << 20U;
};

}  // namespace stackwatch
