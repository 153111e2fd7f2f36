// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "capture/records.h"
#include "core/alert.h"
#include "core/clock.h"
#include "core/delta.h"
#include "core/process.h"
#include "core/result.h"
#include "core/unique_fd.h"

namespace stackwatch {

struct CaptureOptions {
  bool compress = true;
  int level = 3;  ///< of zstd
};

/// Writes a capture as it happens. Numbers of processes, stacks and objects are its own and dense; a process, a stack
/// of a process and an object are written when they are first needed. All times are of the recorded time line.
/// After an error of the file nothing more is written and every call repeats it; what was complete before can be read.
/// What a call got is in the file when flush() or finish() returns, and at the latest with the first tick() that comes
/// a second after the last flush: a killed recorder loses no more. One thread.
class CaptureWriter {
 public:
  /// A file that is there is replaced; readable for its owner alone, since it tells what others run. "-" is standard
  /// output. Error: it cannot be opened, or its first line not written.
  [[nodiscard]] static Result<CaptureWriter> create(const std::string& path, const CaptureHeader& header,
                                                    CaptureOptions options = {});
  /// `name` stands for the file in errors.
  [[nodiscard]] static Result<CaptureWriter> create(UniqueFd fd, const std::string& name, const CaptureHeader& header,
                                                    CaptureOptions options = {});
  /// Finishes where that was not done; errors are lost then.
  ~CaptureWriter();
  CaptureWriter(CaptureWriter&&) noexcept;
  CaptureWriter& operator=(CaptureWriter&&) noexcept;

  /// Makes a process known, or known anew where something about it has changed. Needed before all that names it.
  /// `census`: what its first sample() is a difference to, where known.
  [[nodiscard]] Result<void> process(const ProcessIdentity& identity, const ProcessSample* census = nullptr);
  [[nodiscard]] bool knows(const ProcessKey& process) const;
  /// Totals as the census gives them; what is written is the difference. Nothing is written about unknown processes.
  [[nodiscard]] Result<void> sample(double time_s, const ProcessSample& sample);
  /// With the stacks that it needs. Stacks of a table are written in the table's order, so that a reader that interns
  /// them as they come has the same StackIds. A process may have several tables; each becomes a process of its own
  /// number with the same pid and start time.
  [[nodiscard]] Result<void> delta(const NamedDelta& delta);
  /// Total losses of a probe that are not the sum of its deltas.
  [[nodiscard]] Result<void> losses(const ProcessKey& process, ProbeKind probe, const Losses& total);
  /// After an exit or a detachment the process is unknown again. Nothing is written about unknown processes.
  [[nodiscard]] Result<void> ended(double time_s, const ProcessKey& process, CapturedEnd::Kind kind);
  /// Ends a tick. `realtime_offset_ns`: CLOCK_REALTIME minus the recorded time line.
  [[nodiscard]] Result<void> tick(double time_s, std::optional<int64_t> realtime_offset_ns = {});
  [[nodiscard]] Result<void> flush();
  /// Ends the file; nothing may be written afterwards.
  [[nodiscard]] Result<void> finish();

  /// Of the file.
  [[nodiscard]] uint64_t bytes() const;
  [[nodiscard]] uint64_t lines() const;

 private:
  struct Impl;
  explicit CaptureWriter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// The header of a capture that begins now on the time line of CLOCK_MONOTONIC.
[[nodiscard]] CaptureHeader capture_header(const Clock& clock, double tick_s, std::string host);

}  // namespace stackwatch
