// SPDX-License-Identifier: Apache-2.0
#include "daemon/capture_recorder.h"

namespace stackwatch {

Result<void> CaptureRecorder::record(const TickBatch& batch, const DeltaSource& source) {
  if (auto written = record_processes(batch, source); !written) return written;
  if (auto written = record_deltas(batch, source); !written) return written;
  if (auto written = record_ends(batch); !written) return written;
  return writer_.tick(batch.time_s, batch.realtime_offset_ns);
}

Result<void> CaptureRecorder::record_processes(const TickBatch& batch, const DeltaSource& source) {
  std::unordered_map<ProcessKey, const ProcessSample*> census;
  for (const NamedDelta& delta : batch.deltas) census.try_emplace(delta.process, nullptr);
  for (const ProcessSample& sample : batch.samples) {
    if (samples_ == Samples::kAll) census.try_emplace(sample.key, nullptr);
    const auto wanted = census.find(sample.key);
    if (wanted != census.end()) wanted->second = &sample;
  }
  const auto tell = [&](const ProcessKey& key) {
    const auto known = census.find(key);
    return writer_.process(source.identify(key), known == census.end() ? nullptr : known->second);
  };
  // In the order of the batch: the same batches give the same bytes.
  for (const NamedDelta& delta : batch.deltas) {
    if (auto told = tell(delta.process); !told) return told;
  }
  for (const ProcessKey& process : batch.replaced) {
    if (!writer_.knows(process)) continue;
    if (auto told = tell(process); !told) return told;
    if (auto told = writer_.ended(batch.time_s, process, CapturedEnd::Kind::kReplaced); !told) return told;
  }
  for (const NamedDelta& delta : batch.deltas) census_only_.erase(delta.process);
  for (const ProcessSample& sample : batch.samples) {
    if (samples_ == Samples::kAll && !writer_.knows(sample.key)) {
      if (auto told = tell(sample.key); !told) return told;
      census_only_.insert(sample.key);
    }
    if (auto told = writer_.sample(batch.time_s, sample); !told) return told;
  }
  // Nobody tells the end of those that are not watched but the census.
  for (auto it = census_only_.begin(); it != census_only_.end();) {
    const auto current = it++;
    if (census.contains(*current)) continue;
    if (auto told = writer_.ended(batch.time_s, *current, CapturedEnd::Kind::kExit); !told) return told;
    census_only_.erase(current);
  }
  return {};
}

Result<void> CaptureRecorder::record_deltas(const TickBatch& batch, const DeltaSource& source) {
  for (const NamedDelta& delta : batch.deltas) {
    if (auto written = writer_.delta(delta); !written) return written;
    lost_[{delta.process, delta.probe}] += delta.lost;
  }
  // A capture that begins in the middle: losses before it are in the alerts too.
  for (const NamedDelta& delta : batch.deltas) {
    const Losses total = source.losses(delta.process, delta.probe);
    Losses& read = lost_[{delta.process, delta.probe}];
    if (read == total) continue;
    read = total;
    if (auto written = writer_.losses(delta.process, delta.probe, total); !written) return written;
  }
  return {};
}

Result<void> CaptureRecorder::record_ends(const TickBatch& batch) {
  const auto forget = [this](const ProcessKey& process) {
    const auto first = lost_.lower_bound({process, ProbeKind{}});
    auto last = first;
    while (last != lost_.end() && last->first.first == process) ++last;
    lost_.erase(first, last);
  };
  for (const ProcessKey& process : batch.exits) {
    if (auto written = writer_.ended(batch.time_s, process, CapturedEnd::Kind::kExit); !written) return written;
    forget(process);
  }
  for (const ProcessKey& process : batch.detached) {
    if (auto written = writer_.ended(batch.time_s, process, CapturedEnd::Kind::kDetached); !written) return written;
    forget(process);
  }
  return {};
}

}  // namespace stackwatch
