// SPDX-License-Identifier: Apache-2.0
#include "core/probe_kind.h"

#include <array>
#include <cstddef>

namespace stackwatch {
namespace {

constexpr std::array<std::string_view, 6> kProbeNames = {"on_cpu", "blocked",    "run_queue",
                                                         "memory", "page_fault", "census"};

}  // namespace

std::string_view to_string(ProbeKind kind) { return kProbeNames[static_cast<size_t>(kind)]; }

std::optional<ProbeKind> parse_probe_kind(std::string_view name) {
  for (size_t i = 0; i < kProbeNames.size(); ++i) {
    if (kProbeNames[i] == name) return static_cast<ProbeKind>(i);
  }
  return std::nullopt;
}

std::optional<ProbeKind> parse_counted_probe(std::string_view name) {
  const std::optional<ProbeKind> kind = parse_probe_kind(name);
  return kind == ProbeKind::kCensus ? std::nullopt : kind;
}

}  // namespace stackwatch
