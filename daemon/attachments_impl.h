// SPDX-License-Identifier: Apache-2.0
#pragma once

// What Attachments keeps of each process: for attachments.cpp and attachment_reports.cpp alone.

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "daemon/attachments.h"

namespace stackwatch {

/// What one delta said, kept for `stackwatch stacks`.
struct Attachments::Step {
  struct Value {
    StackId stack;
    int32_t value = 0;
  };
  double time_s = 0;
  std::vector<Value> values;
};

struct Attachments::AttachedProbe {
  struct Waiting {
    StackDelta delta;
    double exposure_s = 0;
  };

  ProbeKind kind = ProbeKind::kOnCpu;
  std::unique_ptr<Probe> probe;
  double frequency_hz = 0;
  std::deque<Waiting> waiting;  // bounded by kNamesDeadlineS: one per tick
  bool fresh = false;           // the newest of `waiting` has no CPU time yet
  uint64_t counted = 0;
  Losses lost;
  std::deque<Step> history;
  size_t history_values = 0;
};

struct Attachments::Attachment {
  explicit Attachment(size_t stacks_per_process) : stacks(static_cast<uint32_t>(stacks_per_process)) {}

  ProcessIdentity identity;
  AttachReason reason;
  ProbeOptions options;
  std::vector<ProbeKind> ordered;  // the probes asked for
  std::vector<ProbeKind> loading;  // of these: those whose program is being loaded
  std::string problem;             // why one of them is missing
  uint64_t since_ns = 0;
  uint64_t since_monotonic_ns = 0;
  uint64_t on_cpu_ns = 0;
  bool on_cpu_known = true;  // false: on_cpu_ns is of another moment than the first counts
  ExecId exec;
  std::vector<AttachedProbe> probes;
  StackTable stacks;
  std::unordered_map<StackHash, StackId> named;
  std::unordered_set<StackHash> late;                         // of these: those that stand for [unnamed]
  std::unordered_map<StackId, std::vector<uint32_t>> places;  // in the source, of the first addresses seen of a stack
  std::deque<StackDelta::NewStack> unasked;                   // the namer had no room for them
  bool ending = false;
  bool exited = false;
  bool read_to_the_end = false;  // its last delta is in `waiting`

  [[nodiscard]] bool takes_place() const { return !exited && !(probes.empty() && loading.empty()); }
};

}  // namespace stackwatch
