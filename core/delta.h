// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "core/ids.h"
#include "core/losses.h"
#include "core/probe_kind.h"
#include "core/process.h"
#include "core/stacks.h"

namespace stackwatch {

/// The addresses of one stack, leaf first, as a probe saw them.
struct RawStack {
  ExecId exec;                          ///< the program image that the user addresses belong to
  std::vector<uint64_t> user_frames;    ///< leaf first; empty where none could be read
  std::vector<uint64_t> kernel_frames;  ///< leaf first
};

/// The stack of a wait that had begun before its process was attached: nobody saw where. It has no frames.
inline constexpr StackHash kBeforeAttaching{1};

/// What one probe counted in one process since its last read, by stack of addresses.
struct StackDelta {
  struct Value {
    StackHash stack;
    int64_t value = 0;
  };
  struct NewStack {
    StackHash hash;
    RawStack stack;
  };

  ProcessKey process;
  ProbeKind probe = ProbeKind::kOnCpu;
  uint64_t time_ns = 0;              ///< CLOCK_MONOTONIC at the end of the interval
  uint64_t interval_ns = 0;          ///< length of the interval
  std::vector<Value> values;         ///< only stacks whose value changed
  std::vector<NewStack> new_stacks;  ///< frames that became known in this interval, each hash once per attachment
  Losses lost;
};

/// The same by stack of functions: what detectors see and captures record.
/// `stacks` and `functions` belong to the source of the delta and outlive the call that the delta is passed to.
struct NamedDelta {
  struct Value {
    StackId stack;
    int64_t value = 0;
  };

  ProcessKey process;
  ProbeKind probe = ProbeKind::kOnCpu;
  double time_s = 0;          ///< end of the interval, CLOCK_MONOTONIC in seconds (capture: since `started`)
  double interval_s = 0;      ///< wall time that the delta covers
  double exposure_s = 0;      ///< on_cpu: CPU time of the process in the interval; other probes: wall time
  double frequency_hz = 0;    ///< on_cpu: the process's own sampling rate; 0 for other probes
  std::vector<Value> values;  ///< each stack at most once; stacks that did not change are left out
  Losses lost;
  const StackTable* stacks = nullptr;
  const FunctionTable* functions = nullptr;
};

}  // namespace stackwatch
