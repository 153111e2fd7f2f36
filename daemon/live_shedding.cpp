// SPDX-License-Identifier: Apache-2.0
// What a LiveSource does without: by its own limits, and by what each process may be made to bear.
#include <fmt/format.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "daemon/live_source.h"

namespace stackwatch {

// Below one sample a second nothing is learned any more.
double LiveSource::rate(double frequency_hz) const {
  constexpr double kLeastHz = 1;
  const double shed = std::max(std::min(frequency_hz, kLeastHz), frequency_hz * shedding_.rate_factor);
  return std::min(shed, guard_.max_frequency_hz());
}

AttachOrder LiveSource::order_by_rule(const ProcessKey& process, const WatchRule& rule, AttachReason reason) const {
  return {process,
          guard_.allowed(process, rule.probes),
          {.frequency_hz = rate(rule.frequency_hz), .children = rule.children, .mappings = rule.mmap},
          std::move(reason)};
}

// Those that a rule wants waits of, whether they are counted or left out.
void LiveSource::watch_overhead(double time_s) {
  for (const ProcessKey& process : parts_.attachments.processes()) {
    const AttachReason* reason = parts_.attachments.reason(process);
    const WatchRule* rule = reason->rule.empty() ? nullptr : rules_.find(reason->rule);
    const ProcessSample* sample = processes_.find(process);
    if (rule == nullptr || sample == nullptr || std::ranges::none_of(rule->probes, counts_waits)) continue;
    guard_.observe(time_s, *sample);
  }
  guard_.end_tick();
}

// What is wanted least goes first: suspects, then children, then the rules further down; of equal ones the youngest.
// Those whose alert stands are the last.
void LiveSource::drop_surplus() {
  if (shedding_.places >= 1) return;
  std::vector<std::pair<size_t, ProcessKey>> focused;  // order, process
  const std::vector<WatchRule>& rules = rules_.rules();
  for (const ProcessKey& process : parts_.attachments.processes()) {
    if (!is_focused(process)) continue;
    const AttachReason& reason = *parts_.attachments.reason(process);
    const auto rule = std::ranges::find(rules, reason.rule, &WatchRule::id);
    size_t order = 1 + static_cast<size_t>(rule - rules.begin());
    if (reason.kind == AttachReason::Kind::kChild) order += rules.size() + 1;
    if (reason.kind == AttachReason::Kind::kSuspect) order = 3 * (rules.size() + 1);
    focused.emplace_back(keep_(process) ? 0 : order, process);
  }
  std::ranges::sort(focused, [](const auto& a, const auto& b) {
    return std::tuple(a.first, a.second.start_time_ns, a.second.pid) <
           std::tuple(b.first, b.second.start_time_ns, b.second.pid);
  });
  for (size_t i = places(); i < focused.size(); ++i) parts_.attachments.end(focused[i].second, false);
}

std::string LiveSource::note(const ProcessKey& process) const {
  if (std::string note = guard_.note(process); !note.empty()) return note;
  const AttachReason* reason = parts_.attachments.reason(process);
  const ProbeOptions* options = parts_.attachments.options(process);
  if (reason == nullptr || options == nullptr) return "";
  const WatchRule* rule = reason->rule.empty() ? nullptr : rules_.find(reason->rule);
  if (shedding_.rate_factor < 1) {
    return fmt::format("sampled at {:.0f} % of its rate: {}", 100 * shedding_.rate_factor, shedding_.reason);
  }
  if (rule != nullptr && options->frequency_hz < rule->frequency_hz) {
    return fmt::format("sampled at {:.0f} Hz: more would cost it more than overhead_percent_per_process allows",
                       options->frequency_hz);
  }
  return "";
}

double LiveSource::overhead_percent(const ProcessKey& process) const {
  const ProbeOptions* options = parts_.attachments.options(process);
  if (options == nullptr) return 0;
  return guard_.overhead_percent(process, parts_.attachments.probes(process), options->frequency_hz);
}

}  // namespace stackwatch
