// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <set>
#include <unordered_map>
#include <utility>

#include "capture/writer.h"
#include "core/result.h"
#include "daemon/delta_source.h"

namespace stackwatch {

/// Writes everything that detectors and the alert policy see of a source into a capture, so that a CaptureSource gives
/// it again. Call it with every batch of one source, from the first on, before the next one is asked for. One thread.
class CaptureRecorder {
 public:
  enum class Samples {
    kWatched,  ///< the census of processes that have deltas
    kAll,      ///< of every process of the machine: some 200 bytes each and tick before compression
  };

  explicit CaptureRecorder(CaptureWriter writer, Samples samples = Samples::kWatched)
      : writer_(std::move(writer)), samples_(samples) {}

  /// `source` is where the batch came from: it says who the processes are and what was lost of them. After an error the
  /// capture ends there; what was complete before can be read.
  [[nodiscard]] Result<void> record(const TickBatch& batch, const DeltaSource& source);
  /// Ends the file.
  [[nodiscard]] Result<void> finish() { return writer_.finish(); }
  [[nodiscard]] const CaptureWriter& writer() const { return writer_; }

 private:
  using LossKey = std::pair<ProcessKey, ProbeKind>;
  [[nodiscard]] Result<void> record_processes(const TickBatch& batch, const DeltaSource& source);
  [[nodiscard]] Result<void> record_deltas(const TickBatch& batch, const DeltaSource& source);
  [[nodiscard]] Result<void> record_ends(const TickBatch& batch);

  CaptureWriter writer_;
  Samples samples_;
  std::map<LossKey, Losses> lost_;    ///< as a reader of the capture adds them up
  std::set<ProcessKey> census_only_;  ///< those without deltas
};

}  // namespace stackwatch
