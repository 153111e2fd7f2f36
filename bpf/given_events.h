// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/result.h"
#include "core/unique_fd.h"

namespace stackwatch {

/// Stopped events of one kind, by CPU.
using EventsByCpu = std::map<int, UniqueFd>;

/// Events of CPUs that somebody with more rights has opened for us. The kernels of Debian and Ubuntu refuse
/// perf_event_open to CAP_PERFMON unless kernel.perf_event_paranoid is lowered for everybody; a descriptor that is
/// there needs no right. They serve one engine each, for good.
struct GivenEvents {
  EventsByCpu clock;        ///< for make_on_cpu_engine
  EventsByCpu page_faults;  ///< for make_page_fault_engine
};

/// A descriptor and the name that came with it.
using NamedDescriptor = std::pair<std::string, UniqueFd>;

/// Opens both for each CPU that is online, stopped; named cpu_clock-CPU and page_faults-CPU.
[[nodiscard]] Result<std::vector<NamedDescriptor>> open_events_to_give();

/// The way back. What has another name is closed; of two with one name the last one counts.
[[nodiscard]] GivenEvents sort_given_events(std::vector<NamedDescriptor> descriptors);

}  // namespace stackwatch
