// SPDX-License-Identifier: Apache-2.0
#pragma once

// Inside of bpf/ only.

#include <sys/types.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "bpf/bpf_support.h"
#include "core/clock.h"
#include "core/result.h"

namespace stackwatch {

/// How probes on user code are put in here.
enum class UprobeWay {
  kMulti,  ///< one link for many places, with the kernel's filter by process
  kPerf,   ///< a perf event per place
};

/// A place in a file, and what the program is told where it is hit (kMulti only).
struct UprobePlace {
  uint64_t offset = 0;
  uint64_t cookie = 0;
};

struct UprobeOrder {
  const bpf_program* program = nullptr;
  bool at_return = false;
  int file = -1;  ///< open descriptor of the object file
  pid_t pid = 0;  ///< as our own pid namespace shows it: only this process is probed, with all its threads
};

struct UprobeLinks {
  std::vector<BpfLink> links;
  std::vector<uint64_t> refused;  ///< offsets at which the kernel takes no probe
  bool gone = false;              ///< the process has ended: nothing was attached
};

/// Puts a program at places of an object file. Both this and the end of a link wait for the kernel (30 to 100 ms):
/// not for the loop's thread. Places that the kernel refuses are left out and told; an error means that none works.
[[nodiscard]] Result<UprobeLinks> attach_uprobes(UprobeWay way, const UprobeOrder& order,
                                                 std::span<const UprobePlace> places);

/// What a trial on a function of our own found out.
struct UprobeTrial {
  UprobeWay way = UprobeWay::kMulti;
  double entry_ns = 0;    ///< cost of a probe at a function's entry, with nearly nothing done in it
  double stepped_ns = 0;  ///< on top of it where the first instruction has to be stepped through
  double return_ns = 0;   ///< on top of it where there is a return probe too
};

/// Tries both ways, on a thread other than the main one: there were kernels whose multi probes with a process filter
/// saw the main thread alone. Takes some 100 ms. kUnsupported where neither works.
[[nodiscard]] Result<UprobeTrial> try_uprobes(const Clock& clock, bool allow_multi = true);

}  // namespace stackwatch
