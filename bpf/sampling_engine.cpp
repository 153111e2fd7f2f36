// SPDX-License-Identifier: Apache-2.0
#include "bpf/sampling_engine.h"

#include <linux/perf_event.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "bpf/cpu_events.h"
#include "bpf/stack_engine.h"
#include "sampling.skel.h"

namespace stackwatch {
namespace {

struct SkeletonDeleter {
  void operator()(sampling_bpf* skeleton) const { sampling_bpf__destroy(skeleton); }
};

/// The two clocks are read one after the other: a smaller difference says nothing.
constexpr uint64_t kSleepNs = 100'000'000;

class SamplingEngine final : public StackEngine {
 public:
  SamplingEngine(const Clock& clock, UniqueFd epoll, ProbeKind kind, const SamplingLimits& limits)
      : StackEngine(clock, std::move(epoll), {kind}, true), kind_(kind), limits_(limits) {}
  ~SamplingEngine() override { finish_loading(); }
  SamplingEngine(const SamplingEngine&) = delete;
  SamplingEngine& operator=(const SamplingEngine&) = delete;

  Result<void> load_now() { return ensure_loaded(); }
  void give(EventsByCpu events) {
    events_.give(std::move(events));
    suspended_ns_ = suspended_ns();
  }
  [[nodiscard]] bool wants_restart() const override { return events_.are_lost(); }

 private:
  Result<Program> load() override;
  Result<void> fit() override;
  [[nodiscard]] CpuEvent wanted_event() const;
  [[nodiscard]] uint64_t suspended_ns() const;

  ProbeKind kind_;
  SamplingLimits limits_;
  std::unique_ptr<sampling_bpf, SkeletonDeleter> skeleton_;
  CpuEvents events_;
  uint64_t suspended_ns_ = 0;  // suspended_ns() when the events were opened or given
};

Result<StackEngine::Program> SamplingEngine::load() {
  const LibbpfMessages messages;
  skeleton_.reset(sampling_bpf__open());
  if (!skeleton_) return fail_bpf("open the sampling program", errno, messages);
  const auto& maps = skeleton_->maps;
  if (!set_common_sizes(maps, {limits_.stacks, limits_.processes, limits_.ring_bytes})) {
    return fail_bpf("size the maps of the sampling program", errno, messages);
  }
  if (auto shared = share_unwind_maps(maps.unwind_spaces, maps.unwind_tables); !shared) return Failure(shared.error());
  if (const int error = sampling_bpf__load(skeleton_.get()); error != 0) {
    return fail_bpf("load the sampling program", error, messages);
  }
  skeleton_->data->max_half_stack = max_half_stack();
  if (kind_ == ProbeKind::kPageFault) skeleton_->data->weight = kPageFaultPeriod;
  const auto& programs = skeleton_->progs;
  return Program{skeleton_->obj, maps.watched, maps.counts, maps.new_stacks, programs.on_fork, programs.on_exit};
}

// A clock runs at the highest rate that anybody wants, in whole hertz.
CpuEvent SamplingEngine::wanted_event() const {
  if (kind_ == ProbeKind::kPageFault)
    return {.config = PERF_COUNT_SW_PAGE_FAULTS, .frequency_hz = 0, .period = kPageFaultPeriod};
  uint32_t highest_mhz = 0;
  for (const auto& [tgid, target] : targets()) highest_mhz = std::max(highest_mhz, target.counters.rate_mhz);
  return {.config = PERF_COUNT_SW_CPU_CLOCK,
          .frequency_hz = (highest_mhz + abi::kMilliHertz - 1) / abi::kMilliHertz,
          .period = 0};
}

// How long the machine has slept since its start: boot time minus monotonic time. The clock that is ahead is read last:
// on a machine that never slept both are equal, and less than nothing is a lot.
uint64_t SamplingEngine::suspended_ns() const {
  const uint64_t monotonic_ns = clock().monotonic_ns();
  const uint64_t boottime_ns = clock().boottime_ns();
  return boottime_ns > monotonic_ns ? boottime_ns - monotonic_ns : 0;
}

Result<void> SamplingEngine::fit() {
  if (targets().empty()) {
    events_.close();
    return {};
  }
  const CpuEvent wanted = wanted_event();
  // A suspended machine takes its CPUs offline and online again before anybody can look.
  const uint64_t suspended = suspended_ns();
  const bool slept = suspended > suspended_ns_ + kSleepNs;
  if (events_.is_open() && events_.event() == wanted && !slept && !events_.cpus_changed()) return {};
  // Thinning must never see a rate that is not the events' own.
  auto opened = events_.open(*skeleton_->progs.sample, wanted, slept,
                             [&] { skeleton_->bss->base_rate_mhz = wanted.frequency_hz * abi::kMilliHertz; });
  if (opened) suspended_ns_ = suspended;  // where it is refused it is still so at the next tick
  return opened;
}

Result<std::unique_ptr<SamplingEngine>> make_engine(const Clock& clock, ProbeKind kind, const SamplingLimits& limits,
                                                    std::shared_ptr<UnwindMaps> unwind, EventsByCpu given) {
  if (auto possible = check_bpf_possible(); !possible) return Failure(possible.error());
  auto epoll = make_epoll();
  if (!epoll) return Failure(epoll.error());
  auto engine = std::make_unique<SamplingEngine>(clock, std::move(*epoll), kind, limits);
  engine->set_unwind_maps(std::move(unwind));
  engine->give(std::move(given));
  return engine;
}

}  // namespace

Result<std::unique_ptr<ProbeEngine>> make_on_cpu_engine(const Clock& clock, const SamplingLimits& limits,
                                                        std::shared_ptr<UnwindMaps> unwind, EventsByCpu given) {
  auto engine = make_engine(clock, ProbeKind::kOnCpu, limits, std::move(unwind), std::move(given));
  if (!engine) return Failure(engine.error());
  if (auto loaded = (*engine)->load_now(); !loaded) return Failure(loaded.error());
  return std::unique_ptr<ProbeEngine>(std::move(*engine));
}

Result<std::unique_ptr<ProbeEngine>> make_page_fault_engine(const Clock& clock, const SamplingLimits& limits,
                                                            std::shared_ptr<UnwindMaps> unwind, EventsByCpu given) {
  auto engine = make_engine(clock, ProbeKind::kPageFault, limits, std::move(unwind), std::move(given));
  if (!engine) return Failure(engine.error());
  return std::unique_ptr<ProbeEngine>(std::move(*engine));
}

}  // namespace stackwatch
