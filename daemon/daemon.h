// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <spdlog/logger.h>

#include <functional>
#include <string>
#include <vector>

#include "config/config.h"
#include "core/clock.h"
#include "core/probe.h"
#include "daemon/attachments.h"
#include "daemon/governor.h"
#include "daemon/live_source.h"
#include "daemon/pipeline.h"
#include "daemon/self_usage.h"
#include "daemon/state/saved_state.h"
#include "daemon/status.h"
#include "symbols/namer.h"

namespace stackwatch {

/// The daemon without its process: what happens in a tick, what the control socket may ask, what a reload does.
/// One thread. The parts outlive it.
class Daemon final : public ControlBackend {
 public:
  struct Parts {
    const Clock& clock;
    Census& census;
    std::vector<ProbeEngine*> engines;
    StackNamer& namer;
    FunctionTable& functions;
    Attachments& attachments;
    LiveSource& source;
    Detection& detection;
    AlertPolicy& policy;
    Pipeline& pipeline;
    spdlog::logger& log;
    Procfs procfs;
  };
  Daemon(Parts parts, const Config& config);

  /// One tick; `missed` ticks were skipped before it. Alerts that changed go to `on_alert` as well as to the sinks.
  /// False where the tick could not be completed (the log says why, once).
  bool tick(uint64_t missed);
  /// Called when the set of rules changed.
  void set_on_rules(std::function<void()> on_rules) { on_rules_ = std::move(on_rules); }
  void set_on_alert(std::function<void(const Alert&)> on_alert) { on_alert_ = std::move(on_alert); }
  /// What it keeps over restarts; nullptr: nothing. Outlives the calls of tick().
  void set_state(SavedState* state) { state_ = state; }
  /// Puts a new, valid configuration in force. Nothing that was learned or counted is lost.
  void reconfigure(const Config& config);
  /// What is configured and has no effect in this version, or is valid and still probably not meant.
  void warn_about(const Config& config);
  /// Something that a person should see in `status` until the daemon is restarted; logged too. Each text once.
  void warn(const std::string& text);

  /// One line for the service manager.
  [[nodiscard]] std::string summary() const;

  [[nodiscard]] Status status() const override;
  [[nodiscard]] Result<std::vector<RankingRow>> ranking(size_t limit, const std::string& by) const override;
  [[nodiscard]] std::vector<UnusualStack> unusual_stacks(size_t limit) const override;
  [[nodiscard]] std::vector<AttachmentRow> attachments() const override;
  [[nodiscard]] Result<std::string> add_watch(WatchRule rule, std::optional<uint64_t> start_time_ns) override;
  [[nodiscard]] Result<void> remove_watch(const std::string& id) override;
  [[nodiscard]] std::vector<WatchRow> watches() const override;
  [[nodiscard]] Result<StacksReport> stacks(int32_t pid, ProbeKind probe, double since_s, bool series) const override;
  [[nodiscard]] std::vector<Alert> alerts(std::optional<uint64_t> since_ns,
                                          std::optional<AlertState> state) const override;
  [[nodiscard]] std::optional<Alert> alert(const std::string& id) const override;

 private:
  void take_events();
  void note_attach_problem();
  void note_rules();
  void hold_limits(double time_s);
  void measure_footprint();
  [[nodiscard]] std::vector<LimitUse> limits() const;

  /// What it takes of the machine, as of the last tick: some thirty reads of /proc that a question need not repeat.
  struct Footprint {
    uint64_t resident_bytes = 0;
    uint64_t worker_bytes = 0;
    uint64_t map_bytes = 0;
    uint64_t recursion_misses = 0;
    uint64_t open_fds = 0;
    [[nodiscard]] uint64_t memory_bytes() const { return resident_bytes + worker_bytes + map_bytes; }
  };

  Parts parts_;
  double tick_s_ = 1;
  SavedState* state_ = nullptr;
  std::function<void(const Alert&)> on_alert_ = [](const Alert&) {};
  std::function<void()> on_rules_ = [] {};
  uint64_t added_rules_ = 0;
  size_t rules_noted_ = 0;
  SelfUsage usage_;
  Footprint footprint_;
  LimitsConfig limits_;
  Governor governor_;
  double trimmed_s_ = 0;
  uint64_t started_ns_ = 0;
  uint64_t ticks_ = 0;
  uint64_t missed_ticks_ = 0;
  double last_tick_ms_ = 0;
  double max_tick_ms_ = 0;
  bool failing_ = false;
  std::vector<std::string> warnings_;
  std::string attach_problem_;
  uint64_t attach_problem_silent_until_ns_ = 0;
};

[[nodiscard]] AlertPolicyOptions alert_policy_options(const Config& config);

}  // namespace stackwatch
