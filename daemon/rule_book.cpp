// SPDX-License-Identifier: Apache-2.0
#include "daemon/rule_book.h"

#include <pwd.h>
#include <unistd.h>

#include <algorithm>

#include "config/match.h"

namespace stackwatch {
namespace {

class ProcFacts final : public FactsProvider {
 public:
  ProcFacts(const Procfs& procfs, int32_t pid) : procfs_(procfs), pid_(pid) {}
  std::optional<std::string> exe() override { return procfs_.exe(pid_); }
  std::optional<std::string> cmdline() override { return procfs_.read(pid_, "cmdline", kMaxCmdlineBytes); }
  std::optional<std::string> user_name(uint32_t uid) override { return user_name_of(uid); }

 private:
  const Procfs& procfs_;
  int32_t pid_;
};

}  // namespace

std::optional<std::string> user_name_of(uint32_t uid) {
  std::vector<char> buffer(16 * 1024);
  passwd entry{};
  passwd* found = nullptr;
  if (getpwuid_r(uid, &entry, buffer.data(), buffer.size(), &found) != 0 || found == nullptr) return std::nullopt;
  return std::string(entry.pw_name);
}

void RuleBook::set_rules(std::vector<WatchRule> rules) {
  verdicts_.clear();
  rules_ = std::move(rules);
}

bool RuleBook::has_rule(const std::string& id) const {
  return std::ranges::find(rules_, id, &WatchRule::id) != rules_.end();
}

const WatchRule* RuleBook::rule_of(const ProcessSample& sample) {
  if (rules_.empty()) return nullptr;
  const auto [entry, is_new] = verdicts_.try_emplace(sample.key);
  Verdict& verdict = entry->second;
  verdict.seen = tick_;
  if (is_new || verdict.exec != sample.exec || verdict.comm != sample.comm || verdict.cgroup != sample.cgroup) {
    verdict.exec = sample.exec;
    verdict.comm = sample.comm;
    verdict.cgroup = sample.cgroup;
    verdict.rule = match(sample);
  }
  return verdict.rule;
}

void RuleBook::end_tick() {
  std::erase_if(verdicts_, [this](const auto& entry) { return entry.second.seen != tick_; });
  ++tick_;
}

const WatchRule* RuleBook::match(const ProcessSample& sample) const {
  ProcFacts provider(procfs_, sample.pid_in_ns);
  ProcessFacts facts({sample.pid_in_ns, sample.comm, sample.cgroup, sample.uid}, provider);
  const auto found = std::ranges::find_if(rules_, [&facts](const WatchRule& rule) { return matches(rule, facts); });
  return found == rules_.end() ? nullptr : &*found;
}

}  // namespace stackwatch
