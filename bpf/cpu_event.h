// SPDX-License-Identifier: Apache-2.0
#pragma once

// Inside of bpf/ only. Without libbpf: the program that opens events for the service links this.

#include <cstdint>
#include <string>
#include <vector>

#include "core/result.h"
#include "core/unique_fd.h"

namespace stackwatch {

/// A software event of the kernel and how often it is told.
struct CpuEvent {
  uint64_t config = 0;        ///< PERF_COUNT_SW_*
  uint32_t frequency_hz = 0;  ///< a clock: so often a second; 0 where `period` counts
  uint32_t period = 0;        ///< every so many occurrences
  bool operator==(const CpuEvent&) const = default;
};

/// Opens it for all that runs on one CPU, stopped. Errors: kUnsupported where the kernel or the privileges refuse it.
[[nodiscard]] Result<UniqueFd> open_cpu_event(int cpu, const CpuEvent& event);

/// What the kernel says of the CPUs that are online, such as "0-3,8"; empty where it says nothing.
[[nodiscard]] std::string read_online_cpus();

/// Numbers in a kernel CPU list such as "0-3,8"; empty where the text is none.
[[nodiscard]] std::vector<int> parse_cpu_list(const std::string& text);

}  // namespace stackwatch
