// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace stackwatch {

/// What is counted per stack.
enum class ProbeKind : uint8_t {
  kOnCpu,      ///< samples
  kBlocked,    ///< nanoseconds
  kRunQueue,   ///< nanoseconds
  kMemory,     ///< bytes, allocated minus freed
  kPageFault,  ///< faults
};

/// The name in output and captures: on_cpu, blocked, run_queue, memory, page_fault.
[[nodiscard]] std::string_view to_string(ProbeKind kind);
[[nodiscard]] std::optional<ProbeKind> parse_probe_kind(std::string_view name);

}  // namespace stackwatch
