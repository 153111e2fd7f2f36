// SPDX-License-Identifier: Apache-2.0
#include "cli/count_report.h"

#include <algorithm>
#include <cstdlib>

#include "cli/probe_table.h"

namespace stackwatch {
namespace {

const ProcessKey kOtherProcess{};

}  // namespace

std::vector<CountRow> sorted_rows(const CountReport::Probe& probe) {
  std::vector<CountRow> rows;
  rows.reserve(probe.values.size());
  for (const auto& [stack, value] : probe.values) {
    if (value != 0) rows.push_back({stack, value});
  }
  std::ranges::sort(rows, [](const CountRow& a, const CountRow& b) {
    const int64_t left = std::abs(a.value);
    const int64_t right = std::abs(b.value);
    return left != right ? left > right : a.stack < b.stack;
  });
  return rows;
}

Losses losses_of(const CountReport& report, ProbeKind kind) {
  Losses sum;
  for (const CountReport::Process& process : report.processes) {
    for (const CountReport::Probe& probe : process.probes) {
      if (probe.kind == kind) sum += probe.lost;
    }
  }
  return sum;
}

std::string losses_line(const Losses& lost) {
  std::string line;
  for (size_t i = 0; i < kLossReasons; ++i) {
    if (lost.count[i] == 0) continue;
    line += (line.empty() ? "" : ", ") + std::to_string(lost.count[i]) + " ";
    line += to_string(static_cast<LossReason>(i));
  }
  return line;
}

double milliseconds(const CountReport::Probe& probe, int64_t value) {
  const auto amount = static_cast<double>(value);
  if (probe.kind != ProbeKind::kOnCpu) return amount * 1e-6;
  return probe.frequency_hz > 0 ? amount * 1e3 / probe.frequency_hz : 0;
}

void CountLedger::begin(double now_s, uint64_t realtime_ns) {
  Interval& interval = intervals_.emplace_back();
  interval.begin_s = now_s;
  interval.report.begin_realtime_ns = realtime_ns;
  std::vector<const Entered*> present;
  for (const auto& [key, entered] : entered_) present.push_back(&entered);
  std::ranges::sort(present, {}, &Entered::order);
  for (const Entered* entered : present) place(interval, *entered);
}

void CountLedger::enter(const ProcessIdentity& identity, const std::vector<ProbeKind>& kinds, double frequency_hz) {
  Entered entered{identity, kinds, frequency_hz, order_++};
  std::ranges::sort(entered.kinds);
  const Entered& known = entered_[identity.key] = std::move(entered);
  if (!intervals_.empty()) place(intervals_.back(), known);
}

CountReport::Process& CountLedger::place(Interval& interval, const Entered& entered) {
  const bool full = interval.report.processes.size() >= max_processes_;
  const ProcessKey& key = full ? kOtherProcess : entered.identity.key;
  const auto [found, is_new] = interval.index.try_emplace(key, interval.report.processes.size());
  if (!is_new) return interval.report.processes[found->second];
  CountReport::Process& process = interval.report.processes.emplace_back();
  process.identity = entered.identity;
  if (key == kOtherProcess) {
    process.identity = {};
    process.identity.comm = "[other]";
  }
  for (const ProbeKind kind : entered.kinds) {
    CountReport::Probe& probe = process.probes.emplace_back();
    probe.kind = kind;
    probe.frequency_hz = kind == ProbeKind::kOnCpu ? entered.frequency_hz : 0;
  }
  return process;
}

void CountLedger::rename(const ProcessIdentity& identity) {
  const auto known = entered_.find(identity.key);
  if (known == entered_.end()) return;
  known->second.identity = identity;
  for (Interval& interval : intervals_) {
    if (const auto found = interval.index.find(identity.key); found != interval.index.end()) {
      interval.report.processes[found->second].identity = identity;
    }
  }
}

void CountLedger::leave(const ProcessKey& process) { entered_.erase(process); }

CountReport::Process& CountLedger::process_in(Interval& interval, const ProcessKey& key) {
  if (const auto found = interval.index.find(key); found != interval.index.end()) {
    return interval.report.processes[found->second];
  }
  // The interval was full when the process came.
  Entered other;
  if (const auto known = entered_.find(key); known != entered_.end()) other = known->second;
  other.identity.key = key;
  return place(interval, other);
}

CountReport::Probe& CountLedger::probe_in(CountReport::Process& process, ProbeKind kind) {
  const auto found = std::ranges::find(process.probes, kind, &CountReport::Probe::kind);
  if (found != process.probes.end()) return *found;
  CountReport::Probe probe;
  probe.kind = kind;
  return *process.probes.insert(std::ranges::upper_bound(process.probes, kind, {}, &CountReport::Probe::kind), probe);
}

void CountLedger::add(const NamedDelta& delta) {
  const auto at = std::ranges::find_if(
      intervals_, [&delta](const Interval& interval) { return interval.end_s == 0 || delta.time_s <= interval.end_s; });
  if (at == intervals_.end()) return;
  CountReport::Process& process = process_in(*at, delta.process);
  CountReport::Probe& probe = probe_in(process, delta.probe);
  if (delta.frequency_hz > 0) probe.frequency_hz = delta.frequency_hz;
  probe.lost += delta.lost;
  const bool merged = process.identity.key == kOtherProcess;
  for (const NamedDelta::Value& value : delta.values) {
    const StackId stack = merged ? StackTable::kOther : stacks_.intern((*delta.stacks)[value.stack]);
    // What the attachment had no room for is counted there already.
    if (stack == StackTable::kOther && value.stack != StackTable::kOther) {
      probe.lost[LossReason::kStacksFull] += static_cast<uint64_t>(std::abs(value.value));
    }
    probe.values[stack] += value.value;
    probe.total += value.value;
  }
}

void CountLedger::add_lost(ProbeKind kind, LossReason reason, uint64_t count) {
  if (intervals_.empty()) return;
  probe_in(process_in(intervals_.back(), kOtherProcess), kind).lost[reason] += count;
}

void CountLedger::cut(double now_s, uint64_t realtime_ns) {
  close(now_s, realtime_ns, now_s);
  begin(now_s, realtime_ns);
}

void CountLedger::close(double now_s, uint64_t realtime_ns, double last_s) {
  if (intervals_.empty()) return;
  Interval& last = intervals_.back();
  last.end_s = last_s;
  last.report.end_realtime_ns = realtime_ns;
  last.report.seconds = now_s - last.begin_s;
}

std::optional<CountReport> CountLedger::take_complete(double waiting_since_s) {
  if (intervals_.empty() || intervals_.front().end_s == 0 || waiting_since_s <= intervals_.front().end_s) {
    return std::nullopt;
  }
  CountReport report = std::move(intervals_.front().report);
  intervals_.erase(intervals_.begin());
  return report;
}

}  // namespace stackwatch
