// SPDX-License-Identifier: Apache-2.0
#pragma once

// Inside of bpf/ only.

#include <bpf/libbpf.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "bpf/bpf_support.h"
#include "bpf/cpu_event.h"
#include "bpf/given_events.h"
#include "core/result.h"

namespace stackwatch {

/// One software event per online CPU, each running a BPF program, and always the same one. CPU-wide, since task-scoped
/// events with `inherit` double the cost of a switch-heavy target and stop with the task they were opened on.
class CpuEvents {
 public:
  /// Events that need not be opened; for CPUs without one, and after any was offline, they are opened here. Before the
  /// first open().
  void give(EventsByCpu events);
  /// Opens the events in place of those of an earlier call; these go on where the kernel refuses the new ones.
  /// `were_away`: all CPUs but one may have been offline since, as in a suspended machine. `between` runs when the old
  /// ones have stopped and the new ones have not begun.
  [[nodiscard]] Result<void> open(bpf_program& program, const CpuEvent& event, bool were_away,
                                  const std::function<void()>& between);
  void close();
  [[nodiscard]] bool is_open() const { return is_open_; }
  /// What is open; meaningless where nothing is.
  [[nodiscard]] const CpuEvent& event() const { return event_; }
  /// Those that were given are of no use any more, and the kernel lets us open none: whoever gave them must give new
  /// ones.
  [[nodiscard]] bool are_lost() const { return are_lost_; }
  /// Whether CPUs went online or offline since: an event does not survive its CPU.
  [[nodiscard]] bool cpus_changed() const;

 private:
  struct Given {
    UniqueFd unused;  // until it was first opened
    BpfLink link;
    int fd = -1;  // the link's
  };
  [[nodiscard]] static bool start_given(Given& given, bpf_program& program, const CpuEvent& event);
  [[nodiscard]] Result<UniqueFd> open_own(int cpu, const CpuEvent& event);

  std::vector<BpfLink> own_;
  std::map<int, Given> given_;
  std::string given_cpus_;  // online when they were given
  std::string online_;
  CpuEvent event_;
  bool is_open_ = false;
  bool were_given_ = false;
  bool are_lost_ = false;
};

}  // namespace stackwatch
