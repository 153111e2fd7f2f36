// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string_view>

#include "core/census.h"
#include "daemon/procfs.h"

namespace stackwatch {

/// The census from /proc, for where the task iterator is not allowed. Some forty times slower: 5,000 tasks take about
/// 0.2 s. CPU time comes in steps of 10 ms; bytes of others' I/O need CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH.
[[nodiscard]] std::unique_ptr<Census> make_proc_census(Procfs procfs);

/// The fields of /proc/PID/stat that a census needs. `ticks_per_s` is that of the kernel's user interface (100).
struct ProcStat {
  std::string comm;
  char state = '?';  ///< R, S, D, Z, …
  int32_t parent_pid = 0;
  uint64_t flags = 0;
  uint64_t minor_faults = 0;
  uint64_t major_faults = 0;
  uint64_t cpu_ticks = 0;
  int64_t nice = 0;
  uint32_t threads = 0;
  uint64_t start_ticks = 0;
  uint64_t rss_pages = 0;
  uint64_t policy = 0;
};
/// Nothing where the text is no such line. The name may hold blanks, brackets and line ends.
[[nodiscard]] std::optional<ProcStat> parse_proc_stat(std::string_view text);

}  // namespace stackwatch
