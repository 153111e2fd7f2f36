// SPDX-License-Identifier: Apache-2.0
#include "core/census_fold.h"

#include <algorithm>

namespace stackwatch {
namespace {

void never_back(uint64_t& remembered, uint64_t& now) {
  now = std::max(now, remembered);
  remembered = now;
}

}  // namespace

void CensusMemory::correct(std::vector<ProcessSample>& samples, std::vector<ThreadWait>& waits) {
  ++censuses_;
  for (ProcessSample& sample : samples) {
    Totals& totals = totals_[sample.key.pid];
    if (totals.start_time_ns != sample.key.start_time_ns) totals = {.start_time_ns = sample.key.start_time_ns};
    totals.seen = censuses_;
    never_back(totals.on_cpu_ns, sample.on_cpu_ns);
    never_back(totals.voluntary_switches, sample.voluntary_switches);
    never_back(totals.involuntary_switches, sample.involuntary_switches);
    never_back(totals.minor_faults, sample.minor_faults);
    never_back(totals.major_faults, sample.major_faults);
    never_back(totals.read_bytes, sample.read_bytes);
    never_back(totals.write_bytes, sample.write_bytes);
  }
  std::erase_if(totals_, [this](const auto& entry) { return entry.second.seen != censuses_; });

  // Both lists are sorted by tid: one pass finds what each thread waited since the last census.
  std::ranges::sort(waits, {}, &ThreadWait::tid);
  auto before = previous_waits_.cbegin();
  for (const ThreadWait& wait : waits) {
    while (before != previous_waits_.cend() && before->tid < wait.tid) ++before;
    uint64_t known = 0;
    if (before != previous_waits_.cend() && before->tid == wait.tid && before->tgid == wait.tgid &&
        before->run_queue_ns <= wait.run_queue_ns) {
      known = before->run_queue_ns;
    }
    if (const auto found = totals_.find(wait.tgid); found != totals_.end()) {
      found->second.run_queue_ns += wait.run_queue_ns - known;
    }
  }
  previous_waits_.swap(waits);
  for (ProcessSample& sample : samples) sample.run_queue_ns = totals_[sample.key.pid].run_queue_ns;
}

}  // namespace stackwatch
