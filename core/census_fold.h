// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "core/process.h"

namespace stackwatch {

/// Keeps the totals of processes from going backwards from census to census. Two things would make them:
/// a thread that ends while a census passes over it is in neither the living nor the dead, for that one census; and the
/// kernel keeps no run-queue wait of threads that have ended, so that a sum over living threads drops.
class CensusMemory {
 public:
  struct ThreadWait {
    int32_t tgid = 0;
    int32_t tid = 0;
    uint64_t run_queue_ns = 0;
  };

  /// Corrects the samples of one census in place and sorts them by key. `waits` holds the run-queue wait of every
  /// thread, leaders included; its order is free, it is sorted here. A tid that comes round with a smaller wait counts
  /// as a new thread.
  void correct(std::vector<ProcessSample>& samples, std::vector<ThreadWait>& waits);

 private:
  struct Totals {
    ProcessKey key;
    uint64_t on_cpu_ns = 0;
    uint64_t run_queue_ns = 0;
    uint64_t voluntary_switches = 0;
    uint64_t involuntary_switches = 0;
    uint64_t minor_faults = 0;
    uint64_t major_faults = 0;
    uint64_t read_bytes = 0;
    uint64_t write_bytes = 0;
  };
  // Of the last census: sorted lists, since that is how a census comes. With 20,000 processes tables cost a third of
  // it.
  std::vector<Totals> totals_;              // by key
  std::vector<ThreadWait> previous_waits_;  // by tgid and tid
};

}  // namespace stackwatch
