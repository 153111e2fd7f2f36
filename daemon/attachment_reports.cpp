// SPDX-License-Identifier: Apache-2.0
// What is kept of the counts, and shown of them.
#include <algorithm>
#include <limits>
#include <utility>

#include "daemon/attachments_impl.h"

namespace stackwatch {

// Each probe may keep its part of what the host may; never so little that the last seconds are missing.
void Attachments::remember(AttachedProbe& probe, const NamedDelta& delta) {
  for (const NamedDelta::Value& value : delta.values) probe.counted += static_cast<uint64_t>(std::abs(value.value));
  if (delta.values.empty()) return;
  Step step{delta.time_s, {}};
  step.values.reserve(delta.values.size());
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  for (const NamedDelta::Value& value : delta.values) {
    step.values.push_back({value.stack, static_cast<int32_t>(std::clamp(value.value, -kMost, kMost))});
  }
  probe.history_values += step.values.size();
  probe.history.push_back(std::move(step));
  const size_t allowed = std::max(kMinHistoryValues, kHistoryValues / std::max<size_t>(1, attachments_.size()));
  while (!probe.history.empty() &&
         (probe.history_values > allowed || probe.history.front().time_s < delta.time_s - kHistoryS)) {
    probe.history_values -= probe.history.front().values.size();
    probe.history.pop_front();
  }
}

std::vector<AttachmentRow> Attachments::rows() const {
  std::vector<AttachmentRow> rows;
  for (const ProcessKey& key : processes()) {
    const Attachment& attachment = *attachments_.at(key);
    AttachmentRow& row = rows.emplace_back();
    row.process = attachment.identity;
    row.frequency_hz = attachment.options.frequency_hz;
    row.since_ns = attachment.since_ns;
    row.reason = attachment.reason.text;
    row.stacks = attachment.stacks.size() - 1;  // without [other]
    row.problem = attachment.problem;
    row.loading = attachment.loading;
    for (const AttachedProbe& probe : attachment.probes) {
      row.probes.push_back(probe.kind);
      row.lost += probe.lost;
      if (probe.kind == ProbeKind::kOnCpu) row.samples += probe.counted;
    }
  }
  return rows;
}

size_t Attachments::most_stacks() const {
  size_t most = 0;
  for (const auto& [key, attachment] : attachments_) most = std::max<size_t>(most, attachment->stacks.size() - 1);
  return most;
}

Losses Attachments::losses(const ProcessKey& process, ProbeKind kind) const {
  const Attachment* attachment = find(process);
  if (attachment == nullptr) return {};
  const auto probe = std::ranges::find(attachment->probes, kind, &AttachedProbe::kind);
  return probe == attachment->probes.end() ? Losses{} : probe->lost;
}

Result<StacksReport> Attachments::stacks(int32_t pid_in_ns, ProbeKind kind, double since_s, bool series) const {
  const Attachment* attachment = nullptr;
  for (const auto& [key, candidate] : attachments_) {
    if (candidate->identity.pid_in_ns != pid_in_ns) continue;
    if (attachment == nullptr || candidate->since_ns > attachment->since_ns) attachment = candidate.get();
  }
  if (attachment == nullptr) {
    return fail("show stacks", "process " + std::to_string(pid_in_ns) + " is not attached",
                "see stackwatch attachments; a watch rule attaches it");
  }
  const auto probe = std::ranges::find(attachment->probes, kind, &AttachedProbe::kind);
  if (probe == attachment->probes.end()) {
    return fail("show stacks", "process " + std::to_string(pid_in_ns) + " has no probe " + std::string(to_string(kind)),
                "see stackwatch attachments");
  }

  StacksReport report;
  report.process = attachment->identity;
  report.probe = kind;
  report.lost = probe->lost;
  const double now_s = static_cast<double>(clock_.monotonic_ns()) * 1e-9;
  const double attached_s = static_cast<double>(clock_.monotonic_ns() - attachment->since_monotonic_ns) * 1e-9;
  report.window_s = std::min({attached_s, kHistoryS, since_s > 0 ? since_s : kHistoryS});
  constexpr double kSeriesSteps = 30;  // as many columns as a terminal has room for
  const double begin_s = now_s - report.window_s;
  if (series) report.step_s = report.window_s / kSeriesSteps;

  std::unordered_map<StackId, StacksReport::Row> rows;
  for (const Step& step : probe->history) {
    if (step.time_s < begin_s) continue;
    for (const Step::Value& value : step.values) {
      StacksReport::Row& row = rows[value.stack];
      row.value += value.value;
      report.total += value.value;
      if (!series) continue;
      row.series.resize(static_cast<size_t>(kSeriesSteps));
      const double column = (step.time_s - begin_s) / std::max(report.step_s, 1e-9);
      row.series[static_cast<size_t>(std::clamp(column, 0.0, kSeriesSteps - 1))] += value.value;
    }
  }
  for (auto& [stack, row] : rows) {
    for (const FunctionId function : attachment->stacks[stack]) row.frames.push_back(functions_[function].name);
    if (const auto places = attachment->places.find(stack); places != attachment->places.end()) {
      for (const uint32_t place : places->second) row.places.emplace_back(namer_.place(place));
    }
    report.rows.push_back(std::move(row));
  }
  std::ranges::sort(report.rows, [](const auto& a, const auto& b) {
    return a.value != b.value ? a.value > b.value : a.frames < b.frames;
  });
  return report;
}

}  // namespace stackwatch
