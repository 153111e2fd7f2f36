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

  /// The first rule that matches; nullptr where none does. Valid until set_rules(). Cheapest in the order of a census.
  const WatchRule* rule_of(const ProcessSample& sample);
  /// Whether a process of this name may fall under a rule; false only where the names alone rule that out.
  [[nodiscard]] bool may_match(std::string_view comm) const;
  /// Forgets processes that were not looked up since the last call.
  void end_tick();

 private:
  struct Verdict {
    ProcessKey process;
    // What a rule may ask for and may change. Of the path a hash: the one thing here that is not beside the rest.
    std::string comm;
    size_t cgroup = 0;
    ExecId exec;
    uint32_t uid = 0;
    const WatchRule* rule = nullptr;
    uint64_t seen = 0;
  };
  /// nullptr where the process is new.
  [[nodiscard]] Verdict* verdict_on(const ProcessKey& process);
  [[nodiscard]] const WatchRule* match(const ProcessSample& sample);

  Procfs procfs_;
  std::vector<WatchRule> rules_;
  std::vector<Verdict> verdicts_;                  // by process
  std::unordered_map<ProcessKey, Verdict> fresh_;  // of this tick: they join the others at its end
  size_t next_ = 0;                                // of verdicts_: whose turn it is in the order of a census
  std::unordered_map<uint32_t, std::optional<std::string>> users_;  // the database may be slow; read once per reload
  uint64_t tick_ = 1;
};

/// Name of a user, from the system's user database; nothing where there is none with this id.
[[nodiscard]] std::optional<std::string> user_name_of(uint32_t uid);

}  // namespace stackwatch
