// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "capture/reader.h"
#include "core/clock.h"
#include "core/stacks.h"
#include "daemon/delta_source.h"

namespace stackwatch {

/// The ticks of a capture, as the source that was recorded gave them: same times, same order, same numbers of stacks.
/// Where the capture marks its ticks they are those; elsewhere a tick is what lies within half a tick's time of its
/// first line, and its time that of its last one. Memory: the tables of the processes that have not ended.
/// After an error everything before it was given as ticks, and the error stays.
class CaptureSource final : public DeltaSource {
 public:
  /// Processes that have not ended. Linux has at most 4 million pids; a host with more watched ones than this is none.
  static constexpr size_t kMaxProcesses = 65'536;
  /// Stacks of processes that have not ended, and their frames: a capture may not ask for more memory than some GB.
  static constexpr size_t kMaxStacks = size_t{1} << 22U;
  static constexpr size_t kMaxFrames = size_t{1} << 27U;
  /// Bytes of names: of the functions that a FunctionTable holds, 1,024 each.
  static constexpr size_t kMaxNameBytes = size_t{1} << 28U;
  /// Names of files: a machine has some thousand.
  static constexpr size_t kMaxObjects = size_t{1} << 20U;
  /// Lines and values in one tick: ten for each process; 250 for each.
  static constexpr size_t kMaxTickLines = 10 * kMaxProcesses;
  static constexpr size_t kMaxTickValues = 250 * kMaxProcesses;
  /// How far a line may lie behind the tick that it is in: a delta waits for names for some seconds.
  static constexpr double kMaxLateS = 60;

  explicit CaptureSource(CaptureReader reader);
  ~CaptureSource() override;

  [[nodiscard]] Result<std::optional<TickBatch>> next() override;
  [[nodiscard]] ProcessIdentity identify(const ProcessKey& process) const override;
  [[nodiscard]] Losses losses(const ProcessKey& process, ProbeKind probe) const override;

  [[nodiscard]] const CaptureHeader& header() const { return reader_.header(); }
  /// Stands at the end of the tick that was given last. As long as the source lives.
  [[nodiscard]] const Clock& clock() const;

 private:
  struct Process;
  struct ReplayClock;
  using Done = Result<void>;

  [[nodiscard]] Result<std::optional<TickBatch>> finish_tick();
  [[nodiscard]] bool begins_next_tick(const CaptureRecord& record);
  [[nodiscard]] Done take(CaptureRecord& record);
  [[nodiscard]] Done take(const CapturedProcess& told);
  [[nodiscard]] Done take(CapturedObject& told);
  [[nodiscard]] Done take(const CapturedStack& told);
  [[nodiscard]] Done take(const CapturedSample& told);
  [[nodiscard]] Done take(const CapturedDelta& told);
  [[nodiscard]] Done take(const CapturedLosses& told);
  [[nodiscard]] Done take(const CapturedEnd& told);
  [[nodiscard]] Done take(const CapturedTick& told);
  [[nodiscard]] Result<Process*> process(uint32_t number);
  [[nodiscard]] const Process* latest(const ProcessKey& key) const;
  [[nodiscard]] Result<StackId> stack_of(Process& process, uint64_t number);
  [[nodiscard]] Done add_values(Process& process, const CapturedDelta& told, NamedDelta& delta);
  [[nodiscard]] Result<std::vector<FunctionId>> functions_of(const CapturedStack& told);
  [[nodiscard]] Failure broken(std::string why) const;
  void forget_ended();
  void forget(uint32_t number);

  CaptureReader reader_;
  std::unique_ptr<ReplayClock> clock_;
  FunctionTable functions_;
  std::unordered_map<uint32_t, std::string> objects_;
  std::unordered_map<uint32_t, std::unique_ptr<Process>> processes_;
  std::unordered_map<ProcessKey, std::vector<uint32_t>> numbers_;        ///< of each process, the latest last
  std::unordered_map<uint64_t, std::vector<FunctionId>> shared_stacks_;  ///< those that the capture gives to nobody
  size_t stacks_ = 0;
  size_t frames_ = 0;
  size_t name_bytes_ = 0;

  // The tick under construction.
  TickBatch batch_;
  std::vector<ProcessSample> samples_;
  std::vector<ProcessSample> given_samples_;
  std::optional<double> tick_begin_t_;
  double tick_end_t_ = std::numeric_limits<double>::lowest();  ///< never goes back
  int64_t clock_ns_ = 0;
  bool tick_is_marked_ = false;
  size_t tick_lines_ = 0;
  size_t tick_values_ = 0;

  std::vector<uint32_t> ended_;           ///< numbers that are forgotten before the next tick is read
  std::optional<CaptureRecord> pending_;  ///< the first line of the next tick
  bool at_end_ = false;
  std::optional<Error> error_;
};

}  // namespace stackwatch
