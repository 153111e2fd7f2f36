// SPDX-License-Identifier: Apache-2.0
#include "daemon/stack_board.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>

namespace stackwatch {
namespace {

// Poisson: 2·(n·ln(n/μ) − (n − μ)), signed by the direction.
double signed_root_llr(double seen, double expected) {
  // Half a sample each: a stack that was never seen before is not infinitely unusual.
  seen += 0.5;
  expected += 0.5;
  const double root = std::sqrt(std::max(0.0, 2 * (seen * std::log(seen / expected) - (seen - expected))));
  return seen < expected ? -root : root;
}

double kept(double interval_s, double half_life_s) { return std::exp2(-std::max(interval_s, 0.0) / half_life_s); }

// What remains of a mean after an interval at whose end its process has this age. Up to the age at which the plain mean
// forgets as fast as the half-life says, it is the plain mean.
double kept_of_mean(double interval_s, double age_s, double half_life_s) {
  const double young_s = half_life_s * std::numbers::log2e;
  if (age_s >= young_s || age_s <= 0) return kept(interval_s, half_life_s);
  return std::max(age_s - interval_s, 0.0) / age_s;
}

double weight_in_mean(double interval_s, double age_s, double half_life_s) {
  return std::max(1 - kept(interval_s, half_life_s), interval_s / age_s);
}

}  // namespace

void StackBoard::decay(Entry& entry, double seen_s, double time_s) {
  const double age_s = time_s - seen_s;
  const double interval_s = time_s - entry.updated_s;
  entry.now_cores *= kept_of_mean(interval_s, age_s, kNowHalfLifeS);
  entry.past_cores *= kept_of_mean(interval_s, age_s, kPastHalfLifeS);
  entry.updated_s = time_s;
}

void StackBoard::observe(double time_s, const std::vector<NamedDelta>& deltas) {
  time_s_ = time_s;
  for (const NamedDelta& delta : deltas) {
    if (delta.probe != ProbeKind::kOnCpu || delta.frequency_hz <= 0 || delta.interval_s <= 0) continue;
    Process& process = processes_[delta.process];
    if (process.stacks != delta.stacks) {
      process = {.seen_s = time_s - delta.interval_s, .stacks = delta.stacks, .entries = {}};
    }
    const double age_s = std::max(time_s - process.seen_s, delta.interval_s);
    const double past_weight = weight_in_mean(delta.interval_s, age_s, kPastHalfLifeS);
    const double now_weight = weight_in_mean(delta.interval_s, age_s, kNowHalfLifeS);
    for (const NamedDelta::Value& value : delta.values) {
      const auto [found, is_new] = process.entries.try_emplace(value.stack);
      Entry& entry = found->second;
      if (is_new) entry.updated_s = time_s - delta.interval_s;
      const double cores = static_cast<double>(value.value) / delta.frequency_hz / delta.interval_s;
      decay(entry, process.seen_s, time_s);
      entry.now_cores += now_weight * cores;
      entry.past_cores += past_weight * cores;
      entry.frequency_hz = delta.frequency_hz;
    }
  }
  if (entries() > kMaxEntries) make_room();
}

size_t StackBoard::entries() const {
  size_t all = 0;
  for (const auto& [key, process] : processes_) all += process.entries.size();
  return all;
}

// Drops the lighter half.
void StackBoard::make_room() {
  std::vector<double> weights;
  for (auto& [key, process] : processes_) {
    for (auto& [stack, entry] : process.entries) {
      decay(entry, process.seen_s, time_s_);
      weights.push_back(entry.now_cores + entry.past_cores);
    }
  }
  const auto middle = weights.begin() + static_cast<ptrdiff_t>(weights.size() / 2);
  std::ranges::nth_element(weights, middle);
  const double limit = *middle;
  for (auto& [key, process] : processes_) {
    std::erase_if(process.entries,
                  [limit](const auto& entry) { return entry.second.now_cores + entry.second.past_cores <= limit; });
  }
}

std::vector<StackBoard::Row> StackBoard::unusual(size_t limit) const {
  struct Sum {
    Row row;
    double seen = 0;
    double expected = 0;
  };
  std::map<std::vector<FunctionId>, Sum> sums;
  for (const auto& [key, process] : processes_) {
    for (const auto& [stack, stored] : process.entries) {
      Entry entry = stored;
      decay(entry, process.seen_s, time_s_);
      const std::span<const FunctionId> frames = (*process.stacks)[stack];
      Sum& sum = sums[std::vector<FunctionId>(frames.begin(), frames.end())];
      sum.row.now_cores += entry.now_cores;
      sum.row.past_cores += entry.past_cores;
      sum.row.processes.push_back({key, entry.now_cores, entry.past_cores});
      if (time_s_ - process.seen_s < kLearnS) continue;
      sum.seen += entry.now_cores * entry.frequency_hz * kNowHalfLifeS;
      sum.expected += entry.past_cores * entry.frequency_hz * kNowHalfLifeS;
    }
  }
  std::vector<Row> rows;
  for (auto& [frames, sum] : sums) {
    sum.row.frames = frames;
    sum.row.score = signed_root_llr(sum.seen, sum.expected);
    rows.push_back(std::move(sum.row));
  }
  const size_t shown = std::min(limit, rows.size());
  std::ranges::partial_sort(rows, rows.begin() + static_cast<ptrdiff_t>(shown), [](const Row& a, const Row& b) {
    const double left = std::abs(a.score);
    const double right = std::abs(b.score);
    if (left != right) return left > right;
    return a.now_cores != b.now_cores ? a.now_cores > b.now_cores : a.frames < b.frames;
  });
  rows.resize(shown);
  for (Row& row : rows) {
    std::ranges::sort(row.processes, [](const Share& a, const Share& b) {
      const double left = std::abs(a.now_cores - a.past_cores);
      const double right = std::abs(b.now_cores - b.past_cores);
      return left != right ? left > right : a.process < b.process;
    });
    if (row.processes.size() > kMaxProcessesPerRow) row.processes.resize(kMaxProcessesPerRow);
  }
  return rows;
}

}  // namespace stackwatch
