// SPDX-License-Identifier: Apache-2.0
#include "core/census_fold.h"

#include <algorithm>
#include <utility>

namespace stackwatch {
namespace {

void never_back(uint64_t& remembered, uint64_t& now) {
  now = std::max(now, remembered);
  remembered = now;
}

std::pair<int32_t, int32_t> by_thread(const CensusMemory::ThreadWait& wait) { return {wait.tgid, wait.tid}; }

// A census comes in the order of thread ids: leaders are in theirs, and only the few others may be out of it.
void sort_by_thread(std::vector<CensusMemory::ThreadWait>& waits) {
  if (std::ranges::is_sorted(waits, {}, by_thread)) return;
  const auto others = std::stable_partition(waits.begin(), waits.end(),
                                            [](const CensusMemory::ThreadWait& wait) { return wait.tgid == wait.tid; });
  const auto before = [](const auto& a, const auto& b) { return by_thread(a) < by_thread(b); };
  if (!std::is_sorted(waits.begin(), others, before)) std::sort(waits.begin(), others, before);
  std::sort(others, waits.end(), before);
  std::inplace_merge(waits.begin(), others, waits.end(), before);
}

}  // namespace

void CensusMemory::correct(std::vector<ProcessSample>& samples, std::vector<ThreadWait>& waits) {
  if (!std::ranges::is_sorted(samples, {}, &ProcessSample::key)) std::ranges::sort(samples, {}, &ProcessSample::key);
  sort_by_thread(waits);

  std::vector<Totals> now;
  now.reserve(samples.size());
  auto before = totals_.cbegin();
  auto wait = waits.cbegin();
  auto waited = previous_waits_.cbegin();
  for (ProcessSample& sample : samples) {
    while (before != totals_.cend() && before->key < sample.key) ++before;
    const bool is_known = before != totals_.cend() && before->key == sample.key;
    Totals& totals = now.emplace_back(is_known ? *before : Totals{.key = sample.key});
    never_back(totals.on_cpu_ns, sample.on_cpu_ns);
    never_back(totals.voluntary_switches, sample.voluntary_switches);
    never_back(totals.involuntary_switches, sample.involuntary_switches);
    never_back(totals.minor_faults, sample.minor_faults);
    never_back(totals.major_faults, sample.major_faults);
    never_back(totals.read_bytes, sample.read_bytes);
    never_back(totals.write_bytes, sample.write_bytes);

    // What each of its threads waited since the last census.
    while (wait != waits.cend() && wait->tgid < sample.key.pid) ++wait;
    for (; wait != waits.cend() && wait->tgid == sample.key.pid; ++wait) {
      while (waited != previous_waits_.cend() && by_thread(*waited) < by_thread(*wait)) ++waited;
      const bool went_on = is_known && waited != previous_waits_.cend() && by_thread(*waited) == by_thread(*wait) &&
                           waited->run_queue_ns <= wait->run_queue_ns;
      totals.run_queue_ns += wait->run_queue_ns - (went_on ? waited->run_queue_ns : 0);
    }
    sample.run_queue_ns = totals.run_queue_ns;
  }
  totals_ = std::move(now);
  previous_waits_.swap(waits);
}

}  // namespace stackwatch
