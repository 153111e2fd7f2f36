// SPDX-License-Identifier: Apache-2.0
#include "daemon/overhead_guard.h"

#include <fmt/format.h>

#include <algorithm>

namespace stackwatch {

void OverheadGuard::observe(double time_s, const ProcessSample& sample) {
  const uint64_t switches = sample.voluntary_switches + sample.involuntary_switches;
  const auto [found, is_new] = loads_.try_emplace(sample.key);
  Load& load = found->second;
  load.seen = true;
  if (!is_new && time_s - load.begun_s < kWindowS) return;
  if (!is_new) {
    judge(load, time_s, time_s - load.begun_s, switches - std::min(switches, load.switches),
          sample.on_cpu_ns - std::min(sample.on_cpu_ns, load.on_cpu_ns));
  }
  load.begun_s = time_s;
  load.switches = switches;
  load.on_cpu_ns = sample.on_cpu_ns;
}

void OverheadGuard::judge(Load& load, double time_s, double seconds, uint64_t switches, uint64_t on_cpu_ns) const {
  const double cost_ns = static_cast<double>(switches) * kSwitchNs;
  // While they are counted, their cost is part of the CPU time. An estimate may be larger than all of it.
  const double own_ns = static_cast<double>(on_cpu_ns) - (load.dropped ? 0 : cost_ns);
  load.switches_per_s = static_cast<double>(switches) / seconds;
  load.percent = 100 * cost_ns / std::max(own_ns, cost_ns / 10);
  const bool negligible = cost_ns < kNegligibleCores * seconds * 1e9;
  if (!load.dropped) {
    load.dropped = !negligible && load.percent > limit_percent_;
    load.calm_since_s = time_s;
  } else if (!negligible && load.percent > limit_percent_ / 2) {
    load.calm_since_s = time_s;
  } else if (time_s - load.calm_since_s >= kCalmS) {
    load.dropped = false;
  }
}

void OverheadGuard::end_tick() {
  std::erase_if(loads_, [](const auto& entry) { return !entry.second.seen; });
  for (auto& [process, load] : loads_) load.seen = false;
}

std::vector<ProbeKind> OverheadGuard::allowed(const ProcessKey& process, const std::vector<ProbeKind>& probes) const {
  const auto found = loads_.find(process);
  if (found == loads_.end() || !found->second.dropped) return probes;
  std::vector<ProbeKind> left;
  std::ranges::copy_if(probes, std::back_inserter(left), [](ProbeKind kind) { return !counts_waits(kind); });
  if (left.empty()) left.push_back(ProbeKind::kOnCpu);
  return left;
}

double OverheadGuard::overhead_percent(const ProcessKey& process, const std::vector<ProbeKind>& probes,
                                       double frequency_hz) const {
  double percent = 0;
  if (std::ranges::find(probes, ProbeKind::kOnCpu) != probes.end()) percent += frequency_hz * kSampleNs * 1e-7;
  const auto found = loads_.find(process);
  if (found != loads_.end() && std::ranges::any_of(probes, counts_waits)) percent += found->second.percent;
  return percent;
}

std::string OverheadGuard::note(const ProcessKey& process) const {
  const auto found = loads_.find(process);
  if (found == loads_.end() || !found->second.dropped) return "";
  return fmt::format(
      "off_cpu is left out: {:.0f} switches a second would cost {:.0f} % of its CPU time, the limit is {:.4g} %",
      found->second.switches_per_s, found->second.percent, limit_percent_);
}

}  // namespace stackwatch
