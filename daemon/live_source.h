// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "config/config.h"
#include "core/census.h"
#include "core/clock.h"
#include "daemon/attachments.h"
#include "daemon/delta_source.h"
#include "daemon/procfs.h"
#include "daemon/ranking.h"
#include "daemon/rule_book.h"
#include "daemon/status.h"

namespace stackwatch {

/// Deltas of the machine that the daemon runs on: census, ranking, rules, attachments. One next() per tick.
class LiveSource final : public DeltaSource {
 public:
  struct Parts {
    Census& census;
    Attachments& attachments;
    Procfs procfs;
    unsigned cpus = 1;
  };
  /// `parts` and `clock` outlive the source.
  LiveSource(Parts parts, const Clock& clock, const Config& config);

  /// Rules, weights and limits of a new configuration; what stays attached keeps its counts.
  void configure(const Config& config);
  /// Processes that must stay attached though no rule or rank asks for it: an alert stands.
  void set_keep(std::function<bool(const ProcessKey&)> keep) { keep_ = std::move(keep); }
  /// Ticks were missed since the last next().
  void mark_late() { late_ = true; }

  [[nodiscard]] Result<std::optional<TickBatch>> next() override;
  [[nodiscard]] ProcessIdentity identify(const ProcessKey& process) const override;
  [[nodiscard]] Losses losses(const ProcessKey& process, ProbeKind probe) const override;

  // For status and control.
  [[nodiscard]] Result<std::vector<RankingRow>> ranking(size_t limit, const std::string& by) const;
  [[nodiscard]] size_t processes() const { return samples_.size(); }
  [[nodiscard]] uint64_t tasks() const { return tasks_; }
  [[nodiscard]] size_t suspects() const { return ranker_.suspects().size(); }
  [[nodiscard]] size_t rules() const { return rules_.rules().size(); }
  [[nodiscard]] double census_ms() const { return census_ms_; }
  /// What cannot be attached now, one line; empty where all is well.
  [[nodiscard]] std::string attach_problem() const;
  [[nodiscard]] bool has_process(int32_t pid_in_ns) const;

 private:
  void end_exited();
  [[nodiscard]] std::vector<ProcessKey> replace_programs();
  void attach_adopted();
  void attach_wanted();
  void attach_suspect(const ProcessKey& suspect);
  void attach_by_rule(const ProcessSample& sample);
  void follow_rule_of_child(const ProcessSample& sample, const AttachReason& reason);
  [[nodiscard]] ProcessSample unseen_child(const ProbeEngine::Adopted& child) const;
  [[nodiscard]] AttachReason child_of(const ProcessKey& parent, const AttachReason& reason) const;
  [[nodiscard]] bool is_wanted_by_rule(const ProcessKey& process);
  void attach(const ProcessSample& sample, AttachOrder order);
  void drop_unwanted();
  [[nodiscard]] const ProcessSample* sample_of(const ProcessKey& process) const;
  [[nodiscard]] ProcessIdentity identity_of(const ProcessSample& sample) const;
  [[nodiscard]] RankingRow row_of(const Ranked& ranked, const ProcessSample& sample) const;

  Parts parts_;
  const Clock& clock_;
  Ranker ranker_;
  RuleBook rules_;
  std::function<bool(const ProcessKey&)> keep_ = [](const ProcessKey&) { return false; };
  std::vector<ProcessSample> samples_;
  std::unordered_map<ProcessKey, size_t> index_;
  std::unordered_map<int32_t, size_t> index_by_pid_;
  uint64_t tasks_ = 0;
  double census_ms_ = 0;
  bool late_ = false;
  std::string full_problem_;
  std::unordered_map<ProcessKey, std::string> refused_;  // why each cannot be attached; only processes that live
};

}  // namespace stackwatch
