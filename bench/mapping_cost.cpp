// SPDX-License-Identifier: Apache-2.0
// What counting the mappings of one process costs all others: a process that is not attached makes system calls, while
// the memory probe holds another one, with `mmap` on and off in turn. For bench/memory.sh.
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <vector>

#include "bpf/memory_engine.h"
#include "core/clock.h"
#include "daemon/proc_census.h"

namespace stackwatch {
namespace {

/// Some 10 ms each: short beside what else the machine does, long beside the reading of a clock.
constexpr int kCheapCalls = 60'000;
constexpr int kMappings = 10'000;
constexpr size_t kMappedBytes = 16 * 4096;

enum Load : size_t { kCheap, kMap, kTouch, kLoads };
constexpr std::array<const char*, kLoads> kNames = {"getppid", "mmap, munmap of 64 kB", "the same, first page touched"};

using Times = std::array<std::vector<double>, kLoads>;

double cpu_ns() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
}

bool map_and_unmap(bool touch) {
  for (int i = 0; i < kMappings; ++i) {
    void* p = mmap(nullptr, kMappedBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return false;
    if (touch) *static_cast<volatile char*>(p) = 1;
    if (munmap(p, kMappedBytes) != 0) return false;
  }
  return true;
}

/// Nanoseconds of CPU per turn of a loop.
std::optional<double> measure(Load load) {
  const double begin = cpu_ns();
  if (load == kCheap) {
    for (int i = 0; i < kCheapCalls; ++i) syscall(SYS_getppid);
    return (cpu_ns() - begin) / kCheapCalls;
  }
  if (!map_and_unmap(load == kTouch)) return std::nullopt;
  return (cpu_ns() - begin) / kMappings;
}

std::optional<ProcessKey> key_of(pid_t pid) {
  const auto text = Procfs().read(pid, "stat");
  const auto stat = text ? parse_proc_stat(*text) : std::nullopt;
  if (!stat) return std::nullopt;
  const auto tick_ns = 1'000'000'000 / static_cast<uint64_t>(sysconf(_SC_CLK_TCK));
  return ProcessKey{pid, stat->start_ticks * tick_ns / kStartTimeGranularityNs * kStartTimeGranularityNs};
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

void print(const Times& off, const Times& on) {
  std::printf("| a process that is not attached does | off, ns | on, ns | on/off (median of pairs) | quartiles |\n");
  std::printf("|---|---|---|---|---|\n");
  for (size_t load = 0; load < kLoads; ++load) {
    std::vector<double> ratios;
    for (size_t i = 0; i < on[load].size(); ++i) ratios.push_back(on[load][i] / off[load][i]);
    std::ranges::sort(ratios);
    const size_t n = ratios.size();
    std::printf("| %s | %.0f | %.0f | %.2f | %.2f .. %.2f |\n", kNames[load], median(off[load]), median(on[load]),
                ratios[n / 2], ratios[n / 4], ratios[n * 3 / 4]);
  }
}

int complain(const Error& error) {
  std::fprintf(stderr, "%s\n", error.message().c_str());
  return 1;
}

/// This process is the one that is not attached.
int compare(pid_t held, int rounds) {
  const SystemClock clock;
  auto memory = make_memory_engine(clock, {});
  if (!memory) return complain(memory.error());
  const auto process = key_of(held);
  if (!process) return 1;
  auto probe = memory->engine->make_probe(ProbeKind::kMemory);
  if (auto attached = probe->attach(*process, {}); !attached) return complain(attached.error());
  // It has no allocator: the probes on functions are another benchmark's.
  memory->control->set_functions({*process, held, true, {}});
  Times off;
  Times on;
  for (int round = 0; round < rounds; ++round) {
    // Which of the two comes first alternates, so that drift hits both alike.
    for (const bool with : {round % 2 == 0, round % 2 != 0}) {
      if (auto changed = probe->change({.mappings = with}); !changed) return complain(changed.error());
      if (auto collected = memory->engine->collect(); !collected) return complain(collected.error());
      for (size_t load = 0; load < kLoads; ++load) {
        const auto ns = measure(static_cast<Load>(load));
        if (!ns) return 1;
        (with ? on : off)[load].push_back(*ns);
      }
    }
  }
  print(off, on);
  return 0;
}

}  // namespace
}  // namespace stackwatch

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 100;
  if (rounds < 1) {
    std::fprintf(stderr, "usage: mapping_cost [ROUNDS]\n");
    return 2;
  }
  const pid_t held = fork();
  if (held == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) pause();
  }
  const int result = stackwatch::compare(held, rounds);
  kill(held, SIGKILL);
  waitpid(held, nullptr, 0);
  return result;
}
