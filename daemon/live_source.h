// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "config/config.h"
#include "core/census.h"
#include "core/clock.h"
#include "daemon/attachments.h"
#include "daemon/delta_source.h"
#include "daemon/governor.h"
#include "daemon/overhead_guard.h"
#include "daemon/process_list.h"
#include "daemon/procfs.h"
#include "daemon/ranking.h"
#include "daemon/rule_book.h"
#include "daemon/stack_board.h"
#include "daemon/status.h"
#include "daemon/survey.h"

namespace stackwatch {

/// Deltas of the machine that the daemon runs on: census, ranking, rules, attachments. One next() per tick.
class LiveSource final : public DeltaSource {
 public:
  struct Parts {
    Census& census;
    Attachments& attachments;
    Procfs procfs;
    Entitlement entitlement{1};  ///< what the ranking holds processes against
  };
  /// `parts` and `clock` outlive the source.
  LiveSource(Parts parts, const Clock& clock, const Config& config);

  /// Rules, weights and limits of a new configuration; what stays attached keeps its counts.
  void configure(const Config& config);
  /// Processes that must stay attached though no rule or rank asks for it: an alert stands.
  void set_keep(std::function<bool(const ProcessKey&)> keep) { keep_ = std::move(keep); }
  /// Processes whose alerts stand from an earlier run: attached at the next tick as suspects are, or among its exits.
  void watch_again(std::vector<ProcessKey> processes) { again_ = std::move(processes); }
  /// What the daemon does without from the next tick on.
  void shed(const Shedding& shedding) { shedding_ = shedding; }
  /// Why an attached process is counted less than was asked for; empty where it is not.
  [[nodiscard]] std::string note(const ProcessKey& process) const;
  /// What counting costs an attached process, as a share of its CPU time; the memory probe is left out.
  [[nodiscard]] double overhead_percent(const ProcessKey& process) const;
  /// Attached by a rule or as a suspect: what [limits] attachments bounds.
  [[nodiscard]] size_t focused() const;
  /// Ticks were missed since the last next().
  void mark_late() { late_ = true; }

  /// A rule on top of the configuration's, in force at once: processes that it matches are attached before this
  /// returns. With a pid it means the process that has it now, and began at `start_time_ns` where that is given; it is
  /// dropped when that process and the children that it brought in have ended. Errors: a rule with this id is there;
  /// its process does not exist or cannot be attached (the rule is not taken then).
  [[nodiscard]] Result<void> add_rule(const WatchRule& rule, std::optional<uint64_t> start_time_ns = std::nullopt);
  /// Error: there is no such rule among those added.
  [[nodiscard]] Result<void> remove_rule(const std::string& id);
  [[nodiscard]] std::vector<WatchRow> watches() const;
  /// Whether a process that is now called so may have to be attached by a rule.
  [[nodiscard]] bool may_want(std::string_view comm) const { return rules_.may_match(comm); }
  /// Between two ticks: attaches what rules want, as far as that goes in some 10 ms. True where some wait for the
  /// next call or tick.
  [[nodiscard]] Result<bool> attach_new();

  [[nodiscard]] Result<std::optional<TickBatch>> next() override;
  [[nodiscard]] ProcessIdentity identify(const ProcessKey& process) const override;
  [[nodiscard]] Losses losses(const ProcessKey& process, ProbeKind probe) const override;

  // For status and control.
  [[nodiscard]] Result<std::vector<RankingRow>> ranking(size_t limit, const std::string& by) const;
  /// Stacks of the whole machine whose frequency is unusual against their own past, most unusual first.
  [[nodiscard]] std::vector<UnusualStack> unusual_stacks(size_t limit) const;
  [[nodiscard]] size_t processes() const { return processes_.size(); }
  [[nodiscard]] uint64_t tasks() const { return processes_.tasks(); }
  [[nodiscard]] size_t suspects() const { return ranker_.suspects().size(); }
  [[nodiscard]] size_t surveyed() const { return survey_.size(); }
  [[nodiscard]] size_t rules() const { return rules_.rules().size(); }
  [[nodiscard]] bool has_rules() const { return !rules_.rules().empty(); }
  [[nodiscard]] double census_ms() const { return census_ms_; }
  /// What cannot be attached now, one line; empty where all is well.
  [[nodiscard]] std::string attach_problem() const;
  [[nodiscard]] bool has_process(int32_t pid_in_ns) const;

 private:
  [[nodiscard]] Result<void> take_census();
  void set_rules();
  [[nodiscard]] Result<std::optional<ProcessKey>> process_of(const WatchRule& rule,
                                                             std::optional<uint64_t> start_time_ns) const;
  void drop_ended_rules();
  void end_exited();
  [[nodiscard]] std::vector<ProcessKey> replace_programs();
  void attach_adopted();
  void attach_wanted();
  void attach_suspect(const ProcessKey& suspect);
  void attach_again(std::vector<ProcessKey>& exits);
  void attach_surveyed(const ProcessKey& process);
  void attach_by_rule(const ProcessSample& sample);
  void follow_rule_of_child(const ProcessSample& sample, const AttachReason& reason);
  [[nodiscard]] ProcessSample unseen_child(const ProbeEngine::Adopted& child) const;
  [[nodiscard]] AttachReason child_of(const ProcessKey& parent, const AttachReason& reason) const;
  [[nodiscard]] bool is_wanted_by_rule(const ProcessKey& process);
  void attach(const ProcessSample& sample, AttachOrder order);
  [[nodiscard]] bool is_focused(const ProcessKey& process) const;
  [[nodiscard]] bool focus_is_full() const;
  void drop_unwanted();
  void drop_surplus();
  [[nodiscard]] double rate(double frequency_hz) const;
  [[nodiscard]] size_t places() const;
  [[nodiscard]] AttachOrder order_by_rule(const ProcessKey& process, const WatchRule& rule, AttachReason reason) const;
  void watch_overhead(double time_s);
  void read_paths();

  Parts parts_;
  const Clock& clock_;
  Ranker ranker_;
  Survey survey_;
  StackBoard board_;
  RuleBook rules_;
  std::function<bool(const ProcessKey&)> keep_ = [](const ProcessKey&) { return false; };
  ProcessList processes_;
  double census_ms_ = 0;
  bool late_ = false;
  std::vector<WatchRule> configured_rules_;
  std::vector<WatchRule> added_rules_;
  std::unordered_map<std::string, ProcessKey> rule_processes_;  // of added rules with a pid, by the rule's id
  size_t max_focused_ = 0;
  Shedding shedding_;
  OverheadGuard guard_;
  std::vector<ProcessKey> without_exe_;  // attached since the last tick
  std::vector<ProcessKey> again_;
  std::string full_problem_;
  std::unordered_map<ProcessKey, std::string> refused_;  // why each cannot be attached; only processes that live
};

}  // namespace stackwatch
