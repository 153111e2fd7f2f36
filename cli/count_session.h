// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "cli/count_report.h"
#include "core/census.h"
#include "core/clock.h"
#include "daemon/attachments.h"
#include "daemon/procfs.h"

namespace stackwatch {

/// Counts in chosen processes and, where wanted, their descendants, and cuts what it counted into reports. It has no
/// loop and waits for nothing: the caller calls collect() often and take() when names have come. One thread.
class CountSession {
 public:
  struct Parts {
    Census& census;
    Attachments& attachments;
    const FunctionTable& functions;
    Procfs procfs;
  };
  /// `parts` and `clock` outlive the session.
  CountSession(Parts parts, const Clock& clock, std::vector<ProbeKind> probes, ProbeOptions options);

  /// Attaches to processes, told by the pids of our own pid namespace; the first interval begins. Errors: one is not in
  /// the census or a thread of the kernel; the kernel refuses a probe.
  [[nodiscard]] Result<void> attach(std::span<const int32_t> pids_in_ns);
  /// A census: who executes another program, who has ended, who has children that sleep. About 5 ms.
  [[nodiscard]] Result<void> look_around();
  /// Takes the counts out of the kernel and the children in. Cheap; children that live shorter than the time between
  /// two calls have no names of their own code.
  [[nodiscard]] Result<void> collect();
  /// Takes what has names by now.
  void take();
  /// Collects, and ends the interval.
  [[nodiscard]] Result<void> cut();
  /// Detaches from everybody with the last counts in the last interval, which ends. Names are to be waited for until
  /// done().
  [[nodiscard]] Result<void> finish();
  [[nodiscard]] bool done() const { return parts_.attachments.size() == 0; }

  /// The next interval that has ended and is complete.
  [[nodiscard]] std::optional<CountReport> take_report();
  [[nodiscard]] CountNames names() const { return {parts_.functions, ledger_.stacks()}; }

 private:
  [[nodiscard]] Result<void> attach_one(const ProcessSample& sample, AttachReason::Kind kind, bool counted_before);
  [[nodiscard]] ProcessSample adopted_sample(const ProbeEngine::Adopted& child) const;
  [[nodiscard]] std::vector<ProcessSample> living_children(const std::vector<ProbeEngine::Adopted>& adopted);
  void attach_adopted();
  void attach_child(const ProcessSample& sample, bool counted_before);
  [[nodiscard]] double now_s() const { return static_cast<double>(clock_.monotonic_ns()) * 1e-9; }

  Parts parts_;
  const Clock& clock_;
  std::vector<ProbeKind> probes_;
  ProbeOptions options_;
  CountLedger ledger_;
  std::unordered_set<ProcessKey> refused_;  // children that cannot be attached; only those that live
};

}  // namespace stackwatch
