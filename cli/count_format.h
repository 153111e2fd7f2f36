// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "cli/count_options.h"
#include "cli/count_report.h"
#include "cli/text_stream.h"

namespace stackwatch {

/// How reports are printed. One per run: `classic` gives a part of a stack the same id in all of them.
class CountFormatter {
 public:
  virtual ~CountFormatter() = default;
  virtual void print(const CountReport& report, const CountNames& names, TextStream& out) = 0;
};

/// `kinds` are those that are counted.
[[nodiscard]] std::unique_ptr<CountFormatter> make_count_formatter(CountFormat format, std::vector<ProbeKind> kinds);

/// What the predecessor printed. For each group of probes a line `---------GROUP---------`, then
/// `PID (USER_STACK_ID,KERNEL_STACK_ID) VALUE` for each stack, processes in order of attaching, stacks by size. Ids are
/// one row of numbers from 0, given to the user and kernel parts of joined stacks when they first appear, the same for
/// the same sequence of functions in the whole run; a part that is missing is -14. Units: samples, 0.1 ms, 1 kB (1,024
/// bytes), faults.
[[nodiscard]] std::unique_ptr<CountFormatter> make_classic_formatter(const std::vector<ProbeKind>& kinds);

/// For each process a tree of callers and callees with inclusive values. All probes of time are columns of one tree, in
/// milliseconds, where off-CPU time is among them; else each probe has its own, in its own unit. Branches below 0.5 %
/// of their tree are left out, and told.
[[nodiscard]] std::unique_ptr<CountFormatter> make_tree_formatter(std::vector<ProbeKind> kinds);

/// `comm;frame;…;frame VALUE`, root first. One kind: its own unit (off-CPU time: microseconds). Several kinds: each
/// stack has `[on_cpu]`, `[blocked]`, … behind the comm, and all times are microseconds, so that they add up.
[[nodiscard]] std::unique_ptr<CountFormatter> make_folded_formatter(const std::vector<ProbeKind>& kinds);

/// One JSON document on one line per report.
[[nodiscard]] std::unique_ptr<CountFormatter> make_json_formatter();

/// Gives small numbers to the parts of stacks, in order of appearance.
class StackPartIds {
 public:
  /// EFAULT: what the kernel's helper says of a stack that could not be read.
  static constexpr int64_t kMissing = -14;

  struct Ids {
    int64_t user = kMissing;
    int64_t kernel = kMissing;
  };
  [[nodiscard]] Ids ids_of(StackId stack, const CountNames& names);

 private:
  [[nodiscard]] int64_t id_of(std::span<const FunctionId> part);
  std::map<std::vector<FunctionId>, int64_t> ids_;  // bounded by the ledger's stacks: two parts each
};

}  // namespace stackwatch
