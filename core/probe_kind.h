// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace stackwatch {

/// What is counted per stack, and what the census says about a process as a whole.
enum class ProbeKind : uint8_t {
  kOnCpu,      ///< samples
  kBlocked,    ///< nanoseconds
  kRunQueue,   ///< nanoseconds
  kMemory,     ///< bytes, allocated minus freed
  kPageFault,  ///< faults
  kCensus,     ///< no probe: metrics of the whole process, without stacks; in findings and alerts alone
};

/// The name in output and captures: on_cpu, blocked, run_queue, memory, page_fault, census.
[[nodiscard]] std::string_view to_string(ProbeKind kind);
[[nodiscard]] std::optional<ProbeKind> parse_probe_kind(std::string_view name);
/// The same without `census`, which nobody can attach and which has no deltas.
[[nodiscard]] std::optional<ProbeKind> parse_counted_probe(std::string_view name);

}  // namespace stackwatch
