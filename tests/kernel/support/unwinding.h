// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <stdexcept>
#include <string>

#include "daemon/unwinding.h"
#include "tests/kernel/support/sampling.h"

namespace stackwatch {

/// The counter of on-CPU samples with unwinding, as the daemon wires them.
struct UnwindingEngines {
  UnwindingEngines() {
    auto made = Unwinding::create(clock);
    if (!made) throw std::runtime_error(made.error().message());
    unwinding = *made;
    auto counter = make_on_cpu_engine(clock, {}, unwinding->maps());
    if (!counter) throw std::runtime_error(counter.error().message());
    engine = make_unwinding_engine(clock, std::move(*counter), unwinding);
  }
  SystemClock clock;
  std::shared_ptr<Unwinding> unwinding;
  std::unique_ptr<ProbeEngine> engine;
};

}  // namespace stackwatch
