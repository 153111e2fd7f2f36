// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/alert.h"
#include "core/clock.h"
#include "core/delta.h"
#include "core/finding.h"
#include "daemon/alerting/alert_record.h"

namespace stackwatch {

/// Gives a new alert id at each call. Deterministic ones (tests, replay) are allowed; see sequential_alert_ids().
using AlertIds = std::function<std::string()>;

/// 12 random hex digits: short enough to type; 48 bits, so that among 100,000 alerts of one host two are the same with
/// a probability of 2e-5.
[[nodiscard]] AlertIds random_alert_ids();
/// "000000000001", "000000000002", …: the same input gives the same ids.
[[nodiscard]] AlertIds sequential_alert_ids();

/// Where the policy learns what a finding does not say. Called on the thread that calls tick().
struct AlertContext {
  std::function<ProcessIdentity(const ProcessKey&)> identify;
  std::function<Losses(const ProcessKey&, ProbeKind)> losses;
  /// Whether this detector of the process judges by what was learned before the daemon was restarted.
  std::function<bool(const ProcessKey&, ProbeKind, std::string_view detector)> remembers =
      [](const ProcessKey&, ProbeKind, std::string_view) { return false; };
  /// Whether it judges each change by itself that stood then.
  std::function<bool(const ProcessKey&, ProbeKind, std::string_view detector)> remembers_each =
      [](const ProcessKey&, ProbeKind, std::string_view) { return false; };
};

/// What all detectors of one probe of one process said about one delta. A delta about which they said nothing is an
/// observation too (with no findings): that is how a change is seen to be over. No observation means nothing is known.
struct Observation {
  ProcessKey process;
  ProbeKind probe = ProbeKind::kOnCpu;
  double time_s = 0;                   ///< NamedDelta::time_s
  std::vector<Finding> findings;       ///< of this probe
  const StackTable* stacks = nullptr;  ///< of this process; used during the call only
  const FunctionTable* functions = nullptr;
};

struct AlertPolicyOptions {
  double persistence_s = 5;     ///< a finding must stand for so long before it fires
  double resolve_after_s = 15;  ///< a firing alert without a finding for so long is resolved
  double cooldown_s = 300;      ///< after it is resolved the same cause makes no new alert for so long
  /// During the cooldown a cause that comes back fires at once (after persistence_s) if it is so many times larger.
  /// What fires and grows by a further change fires again at once if it is, else when the cooldown has passed.
  double larger_factor = 2;
  /// Onsets are estimates: two detectors that mean one event differ by some ticks, at small changes by tens of seconds.
  double onset_overlap_s = 30;
  /// Workers that changed for one reason: a new configuration reaches them one by one, and each onset is an estimate.
  double workers_onset_s = 60;
  /// A change that ends when it is this old may have become the detectors' new baseline; it is not told as "back".
  /// The least of the detectors' adopt_after_s.
  double adopt_after_s = 3600;
  std::string false_alarm_budget = "1 per 30d";  ///< as configured; copied into each alert

  /// Pending and firing ones. A process with more independent changes at once is a process where everything changed.
  size_t active_per_process = 8;
  /// Pending and firing ones of the host: some hundred attachments, each with one or two.
  size_t active_per_host = 1000;
  /// Resolved alerts that are kept, whichever is reached first: a thousand are weeks at a sane rate; 4 MiB because
  /// stacks of long C++ names are 20 kB each and the daemon has 30 MB in all.
  size_t history = 1000;
  size_t history_bytes = 4U << 20;
};

/// Turns findings, which come again at each tick, into alerts, which have a life: pending → firing → resolved, one per
/// cause. A cause is (process, probe, frame, up or down). The same in several workers of a service is one alert that
/// lists them, and what several probes show of one incident is one alert too. docs/alerts.md tells the rules. One
/// thread; no I/O; deterministic given the clock and the ids.
class AlertPolicy {
 public:
  /// What the policy did not tell anybody, since the start.
  struct Counters {
    uint64_t fired = 0;
    uint64_t resolved = 0;
    uint64_t grown = 0;        ///< told again as the change became larger
    uint64_t shifts = 0;       ///< told as cost that moved
    uint64_t joined = 0;       ///< changes told as a part of an alert that another probe or worker made
    uint64_t vanished = 0;     ///< pending ones whose finding went away before persistence_s
    uint64_t cooled_down = 0;  ///< came back during the cooldown and went away again
    uint64_t refused = 0;      ///< findings without room: active_per_process or active_per_host reached
    uint64_t forgotten = 0;    ///< resolved alerts dropped from the history
  };

  /// `clock` outlives the policy.
  AlertPolicy(AlertPolicyOptions options, const Clock& clock, AlertIds ids, AlertContext context);

  /// One tick that ended at `time_s` (same time line as the observations and the findings' onsets, which is
  /// CLOCK_MONOTONIC or, in a replay, what the clock given to the constructor says). Observations of one process and
  /// probe come in order of time. `exits` are handled after the observations,
  /// `replaced` (processes that execute another program now) before them. `realtime_offset_ns` is CLOCK_REALTIME minus
  /// that time line; nothing asks the clock. Returns a copy of each alert that began
  /// to fire, became larger by a further change, got the name of its function later (Alert::is_named_later()) or was
  /// resolved, in the order in which that happened: one publish() each.
  [[nodiscard]] std::vector<Alert> tick(double time_s, std::span<const Observation> observations,
                                        std::span<const ProcessKey> exits, std::span<const ProcessKey> replaced = {},
                                        std::optional<int64_t> realtime_offset_ns = {});

  /// Alerts of an earlier run, newest first, before the first tick. `lives` says whether a process still runs as far as
  /// is known. Those that stood go on, or are resolved at the first tick where their process does not live or is among
  /// its `exits`: docs/alerts.md. `time_s` and `realtime_offset_ns` as in tick().
  void restore(std::span<const Alert> alerts, const std::function<bool(const Alert&)>& lives, double time_s,
               int64_t realtime_offset_ns);
  /// Copies of those that fire.
  [[nodiscard]] std::vector<Alert> standing() const;

  /// For a reload: what is pending or firing stays, with the new times and bounds in force from the next tick.
  void set_options(AlertPolicyOptions options);

  /// Pending, firing and resolved ones, the one that began last first (whatever the clock did since). A cause that
  /// comes back during its cooldown is shown as resolved until it fires again, which is when it begins again.
  [[nodiscard]] std::vector<Alert> all() const;
  [[nodiscard]] std::optional<Alert> find(const std::string& id) const;
  [[nodiscard]] size_t pending() const;
  [[nodiscard]] size_t firing() const;
  /// True while the process has a pending or firing alert: a reason to stay attached to it.
  [[nodiscard]] bool concerns(const ProcessKey& process) const;
  [[nodiscard]] const Counters& counters() const { return counters_; }

 private:
  struct Group;
  using Records = std::list<AlertRecord>;  // a list: iterators stay valid while others come and go

  void observe(const Observation& observation);
  [[nodiscard]] std::vector<Group> group(const Observation& observation);
  [[nodiscard]] AlertRecord* open(const Observation& observation, const Finding& finding);
  void update(AlertRecord& record, const Observation& observation, const Group& group);
  void touch(AlertRecord& record, double time_s);
  void settle(AlertRecord& record);
  void fire(AlertRecord& record);
  void tell_shift(AlertRecord& record);
  void tell_growth(AlertRecord& record);
  void note_told(AlertRecord& record) const;
  void reconsider(AlertRecord& record);
  void claim_id(AlertRecord& record);
  void identify_again(AlertRecord& record) const;
  [[nodiscard]] AlertRecord* leader_of(const AlertRecord& record);
  [[nodiscard]] AlertRecord* incident_of(const AlertRecord& record);
  void join(AlertRecord& leader, AlertRecord& record);
  void leave(AlertRecord& record);
  void lead(AlertRecord& record);
  void name_incident(AlertRecord& record);
  void tell_name(AlertRecord& record);
  void note_parts(AlertRecord& told);
  [[nodiscard]] bool stands(const AlertRecord& told, const ProcessKey& process) const;
  void enlist(AlertRecord& leader, const AlertRecord& record);
  void note_member(AlertRecord& record) const;
  void end(Records::iterator record, double time_s, std::string_view why);
  void end_left_alone(double time_s);
  void restore_members(AlertRecord& leader, double time_s, int64_t realtime_offset_ns);
  void resolve(Records::iterator record, double time_s, std::string_view why);
  Records::iterator drop(Records::iterator record);
  void end_process(const ProcessKey& process, double time_s, std::string_view why);
  void end_silent_ones(double time_s);
  void end_gone(double time_s);
  void adopt_restored(const Observation& observation);
  void note_silence(AlertRecord& record, const Observation& observation) const;
  void end_silent_restored(Records::iterator record, double time_s);
  [[nodiscard]] std::optional<AlertRecord::Predecessor> cooling_down(const AlertRecord& fresh) const;
  [[nodiscard]] bool may_fire(const AlertRecord& record) const;
  [[nodiscard]] std::string fresh_id();
  void bound_history();
  [[nodiscard]] std::vector<const AlertRecord*> newest_first() const;
  [[nodiscard]] std::vector<Records::iterator> active_of(const ProcessKey& process);

  AlertPolicyOptions options_;
  const Clock& clock_;
  AlertIds ids_;
  AlertContext context_;
  Counters counters_;
  Records active_;   ///< pending and firing, oldest first
  Records history_;  ///< resolved, the one resolved last first
  std::unordered_map<ProcessKey, size_t> active_per_process_;
  std::vector<Records::iterator> gone_;  ///< restored ones whose process does not live, until the first tick
  std::vector<Alert> changed_;           ///< in this tick
  int64_t realtime_offset_ns_ = 0;       ///< CLOCK_REALTIME - time line of the findings, as of this tick
  uint64_t next_sequence_ = 0;
  size_t history_bytes_ = 0;
};

}  // namespace stackwatch
