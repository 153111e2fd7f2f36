// SPDX-License-Identifier: Apache-2.0
#include "bpf/given_events.h"

#include <linux/perf_event.h>

#include <charconv>
#include <string_view>

#include "bpf/cpu_event.h"

namespace stackwatch {
namespace {

constexpr std::string_view kClock = "cpu_clock-";
constexpr std::string_view kPageFaults = "page_faults-";
constexpr uint32_t kSlowest = 1'000'000'000;  // the engine sets its own before it starts them

/// The number behind the prefix; -1 where there is none.
int cpu_in(std::string_view name, std::string_view prefix) {
  int cpu = -1;
  if (!name.starts_with(prefix)) return -1;
  const char* const end = name.data() + name.size();
  const auto parsed = std::from_chars(name.data() + prefix.size(), end, cpu);
  return parsed.ec == std::errc{} && parsed.ptr == end && cpu >= 0 ? cpu : -1;
}

}  // namespace

Result<std::vector<NamedDescriptor>> open_events_to_give() {
  const std::vector<int> cpus = parse_cpu_list(read_online_cpus());
  if (cpus.empty()) return fail("open events on all CPUs", "the kernel does not say which CPUs are online");
  std::vector<NamedDescriptor> opened;
  for (const int cpu : cpus) {
    // A clock whose period counts in nanoseconds: that can be changed later, a frequency is made a period for good.
    for (const auto& [prefix, config] :
         {std::pair{kClock, uint64_t{PERF_COUNT_SW_CPU_CLOCK}}, {kPageFaults, uint64_t{PERF_COUNT_SW_PAGE_FAULTS}}}) {
      auto event = open_cpu_event(cpu, {.config = config, .frequency_hz = 0, .period = kSlowest});
      if (!event) return Failure(event.error());
      opened.emplace_back(std::string(prefix) + std::to_string(cpu), std::move(*event));
    }
  }
  return opened;
}

GivenEvents sort_given_events(std::vector<NamedDescriptor> descriptors) {
  GivenEvents given;
  for (NamedDescriptor& one : descriptors) {
    if (const int clock_cpu = cpu_in(one.first, kClock); clock_cpu >= 0) {
      given.clock[clock_cpu] = std::move(one.second);
    } else if (const int fault_cpu = cpu_in(one.first, kPageFaults); fault_cpu >= 0) {
      given.page_faults[fault_cpu] = std::move(one.second);
    }
  }
  return given;
}

}  // namespace stackwatch
