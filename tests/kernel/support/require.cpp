// SPDX-License-Identifier: Apache-2.0
#include "tests/kernel/support/require.h"

#include "bpf/sampling_engine.h"
#include "core/clock.h"

namespace stackwatch {

std::string why_no_bpf() {
  static const std::string why = [] {
    const SystemClock clock;
    const auto engine = make_on_cpu_engine(clock, {.stacks = 64, .processes = 8, .ring_bytes = 4096});
    return engine ? std::string() : engine.error().message();
  }();
  return why;
}

}  // namespace stackwatch
