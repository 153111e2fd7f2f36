// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "config/config.h"
#include "core/process.h"
#include "daemon/procfs.h"

namespace stackwatch {

/// Which watch rule each process falls under. A process is compared with the rules when it is first seen and again when
/// it executes another program, renames itself, changes its user or moves to another cgroup; not at every tick.
class RuleBook {
 public:
  explicit RuleBook(Procfs procfs) : procfs_(std::move(procfs)) {}

  /// Replaces the rules; all processes are compared anew at their next lookup.
  void set_rules(std::vector<WatchRule> rules);
  [[nodiscard]] const std::vector<WatchRule>& rules() const { return rules_; }
  /// nullptr where there is no such rule (any more).
  [[nodiscard]] const WatchRule* find(const std::string& id) const;

  /// The first rule that matches; nullptr where none does. Valid until set_rules().
  const WatchRule* rule_of(const ProcessSample& sample);
  /// Whether a process of this name may fall under a rule; false only where the names alone rule that out.
  [[nodiscard]] bool may_match(std::string_view comm) const;
  /// Forgets processes that were not looked up since the last call.
  void end_tick();

 private:
  struct Verdict {
    ExecId exec;
    std::string comm;
    std::string cgroup;
    uint32_t uid = 0;
    const WatchRule* rule = nullptr;
    uint64_t seen = 0;
  };
  [[nodiscard]] const WatchRule* match(const ProcessSample& sample);

  Procfs procfs_;
  std::vector<WatchRule> rules_;
  std::unordered_map<ProcessKey, Verdict> verdicts_;
  std::unordered_map<uint32_t, std::optional<std::string>> users_;  // the database may be slow; read once per reload
  uint64_t tick_ = 1;
  size_t seen_ = 0;  // verdicts looked up in this tick
};

/// Name of a user, from the system's user database; nothing where there is none with this id.
[[nodiscard]] std::optional<std::string> user_name_of(uint32_t uid);

}  // namespace stackwatch
