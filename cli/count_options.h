// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/probe_kind.h"

namespace stackwatch {

enum class CountFormat { kClassic, kTree, kFolded, kJson };

/// What `count` and `record` look at.
struct TargetOptions {
  std::vector<int32_t> pids;                            ///< as our /proc shows them, each once; or …
  std::vector<std::string> command;                     ///< … a command with its arguments; or …
  bool all = false;                                     ///< … every process (record only)
  bool children = false;                                ///< descendants too: by default those of a command
  bool mmap = false;                                    ///< memory: also what they map themselves
  std::vector<ProbeKind> probes = {ProbeKind::kOnCpu};  ///< each once, in order of ProbeKind
  double frequency_hz = 99;                             ///< of on_cpu
  std::optional<double> duration_s;                     ///< none: until a signal or the end of all targets
  std::string output;                                   ///< a file; empty: standard output (count only)
};

struct CountOptions {
  TargetOptions target;
  std::optional<double> interval_s;  ///< none: one report at the end
  CountFormat format = CountFormat::kTree;
};

}  // namespace stackwatch
