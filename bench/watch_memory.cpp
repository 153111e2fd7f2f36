// SPDX-License-Identifier: Apache-2.0
// Holds the memory probe on a process until that ends or we are told to stop, and tells what it counted. For
// bench/memory.sh: nothing of the daemon but the probe.
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "bpf/memory_engine.h"
#include "core/clock.h"
#include "daemon/proc_census.h"
#include "symbols/allocator_finder.h"

namespace stackwatch {
namespace {

volatile sig_atomic_t stopped = 0;

int watch(int32_t pid) {
  const SystemClock clock;
  MemoryLimits limits;
  limits.overhead_percent = 1e9;
  limits.allow_multi = std::getenv("STACKWATCH_NO_UPROBE_MULTI") == nullptr;
  auto memory = make_memory_engine(clock, limits);
  auto finder = make_allocator_finder(clock);
  if (!memory || !finder) {
    std::fprintf(stderr, "%s\n", (!memory ? memory.error() : finder.error()).message().c_str());
    return 1;
  }
  const auto text = Procfs().read(pid, "stat");
  const auto stat = text ? parse_proc_stat(*text) : std::nullopt;
  if (!stat) return 1;
  const auto tick_ns = 1'000'000'000 / static_cast<uint64_t>(sysconf(_SC_CLK_TCK));
  const ProcessKey process{pid, stat->start_ticks * tick_ns / kStartTimeGranularityNs * kStartTimeGranularityNs};
  auto probe = memory->engine->make_probe(ProbeKind::kMemory);
  if (auto attached = probe->attach(process, {}); !attached) {
    std::fprintf(stderr, "%s\n", attached.error().message().c_str());
    return 1;
  }
  (*finder)->watch(process, pid);
  int64_t bytes = 0;
  Losses lost;
  bool counting = false;
  for (int turn = 0; stopped == 0 && kill(pid, 0) == 0; ++turn) {
    (*finder)->dispatch();
    for (const AllocatorFunctions& functions : (*finder)->take()) memory->control->set_functions(functions);
    memory->engine->drain();
    const auto now = memory->control->state(process);
    if (!counting && now && now->phase == MemoryPhase::kCounting) {
      counting = true;
      std::puts("counting");
      std::fflush(stdout);
    }
    usleep(20'000);
    if (turn % 50 != 49) continue;  // a tick
    if (!memory->engine->collect()) break;
    if (const auto delta = probe->read()) {
      for (const auto& value : delta->values) bytes += value.value;
      lost += delta->lost;
    }
    const auto state = memory->control->state(process);
    if (state) std::printf("%.0f calls/s, %.0f ns each as estimated\n", state->calls_per_s, state->ns_per_call);
  }
  std::printf("%lld bytes outstanding, %llu not counted\n", static_cast<long long>(bytes),
              static_cast<unsigned long long>(lost.uncounted()));
  return 0;
}

}  // namespace
}  // namespace stackwatch

int main(int argc, char** argv) {
  signal(SIGTERM, [](int) { stackwatch::stopped = 1; });
  signal(SIGINT, [](int) { stackwatch::stopped = 1; });
  if (argc != 2) {
    std::fprintf(stderr, "usage: watch_memory PID\n");
    return 2;
  }
  return stackwatch::watch(std::atoi(argv[1]));
}
