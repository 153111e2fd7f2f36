// SPDX-License-Identifier: Apache-2.0
#include "cli/probe_table.h"

#include <algorithm>
#include <array>
#include <limits>
#include <string>

#include "bpf/off_cpu_engine.h"
#include "bpf/sampling_engine.h"
#include "daemon/memory_probe.h"
#include "daemon/unwinding.h"

namespace stackwatch {
namespace {

constexpr int64_t kNsPerTenthMs = 100'000;
constexpr int64_t kKilobyte = 1024;  // as /proc means it

constexpr std::array<ProbeUnits, 5> kUnits = {{
    {ProbeKind::kOnCpu, true, 1, "samples"},
    {ProbeKind::kBlocked, true, kNsPerTenthMs, "ns"},
    {ProbeKind::kRunQueue, true, kNsPerTenthMs, "ns"},
    {ProbeKind::kMemory, false, kKilobyte, "bytes"},
    {ProbeKind::kPageFault, false, 1, "faults"},
}};

// Whoever counts by hand wants the numbers at any price.
Result<std::unique_ptr<ProbeEngine>> make_memory_counter(const Clock& clock, std::shared_ptr<UnwindMaps> unwind) {
  MemoryLimits limits;
  limits.overhead_percent = std::numeric_limits<double>::infinity();
  auto engine = make_memory_probe_engine(clock, limits, std::move(unwind));
  if (!engine) return Failure(engine.error());
  return std::unique_ptr<ProbeEngine>(std::move(*engine));
}

struct EngineRow {
  std::vector<ProbeKind> kinds;
  Result<std::unique_ptr<ProbeEngine>> (*make)(const Clock& clock, std::shared_ptr<UnwindMaps> unwind);
};

const std::vector<EngineRow>& engine_rows() {
  static const std::vector<EngineRow> rows = {
      {{ProbeKind::kOnCpu},
       [](const Clock& clock, std::shared_ptr<UnwindMaps> unwind) {
         return make_on_cpu_engine(clock, {}, std::move(unwind));
       }},
      {{ProbeKind::kBlocked, ProbeKind::kRunQueue},
       [](const Clock& clock, std::shared_ptr<UnwindMaps> unwind) {
         return make_off_cpu_engine(clock, {}, std::move(unwind));
       }},
      {{ProbeKind::kMemory}, make_memory_counter},
      {{ProbeKind::kPageFault},
       [](const Clock& clock, std::shared_ptr<UnwindMaps> unwind) {
         return make_page_fault_engine(clock, {}, std::move(unwind));
       }},
  };
  return rows;
}

bool has(std::span<const ProbeKind> kinds, ProbeKind kind) { return std::ranges::find(kinds, kind) != kinds.end(); }

}  // namespace

const ProbeUnits& units_of(ProbeKind kind) { return *std::ranges::find(kUnits, kind, &ProbeUnits::kind); }

std::vector<ProbeGroup> groups_of(std::span<const ProbeKind> kinds) {
  std::vector<ProbeGroup> groups;
  const bool off_cpu = has(kinds, ProbeKind::kBlocked) && has(kinds, ProbeKind::kRunQueue);
  for (const ProbeUnits& units : kUnits) {
    if (!has(kinds, units.kind) || (off_cpu && units.kind == ProbeKind::kRunQueue)) continue;
    if (off_cpu && units.kind == ProbeKind::kBlocked) {
      groups.push_back({"off_cpu", {ProbeKind::kBlocked, ProbeKind::kRunQueue}});
    } else {
      groups.push_back({to_string(units.kind), {units.kind}});
    }
  }
  return groups;
}

Result<std::vector<std::unique_ptr<ProbeEngine>>> make_engines(std::span<const ProbeKind> kinds, const Clock& clock) {
  std::string known;
  for (const EngineRow& row : engine_rows()) {
    for (const ProbeKind kind : row.kinds) known += (known.empty() ? "" : ", ") + std::string(to_string(kind));
  }
  for (const ProbeKind kind : kinds) {
    if (std::ranges::none_of(engine_rows(), [kind](const EngineRow& row) { return has(row.kinds, kind); })) {
      return fail(ErrorKind::kUnsupported, "probe " + std::string(to_string(kind)), "this version does not have it",
                  "it has " + known);
    }
  }
  auto unwinding = Unwinding::create(clock);
  if (!unwinding) return Failure(unwinding.error());
  std::vector<std::unique_ptr<ProbeEngine>> engines;
  for (const EngineRow& row : engine_rows()) {
    if (std::ranges::none_of(row.kinds, [kinds](ProbeKind kind) { return has(kinds, kind); })) continue;
    auto engine = row.make(clock, (*unwinding)->maps());
    if (!engine) return Failure(engine.error());
    engines.push_back(std::move(*engine));
  }
  // One of them looks after what all unwind with.
  if (!engines.empty()) engines.front() = make_unwinding_engine(clock, std::move(engines.front()), *unwinding);
  return engines;
}

}  // namespace stackwatch
