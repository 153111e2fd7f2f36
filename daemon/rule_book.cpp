// SPDX-License-Identifier: Apache-2.0
#include "daemon/rule_book.h"

#include <pwd.h>
#include <unistd.h>

#include <algorithm>

#include "config/glob.h"
#include "config/match.h"

namespace stackwatch {
namespace {

/// Names of users that are remembered: more than a host has services, less than a multi-user machine has people.
constexpr size_t kMaxUsers = 1024;

class ProcFacts final : public FactsProvider {
 public:
  using Users = std::unordered_map<uint32_t, std::optional<std::string>>;
  ProcFacts(const Procfs& procfs, int32_t pid, Users& users) : procfs_(procfs), pid_(pid), users_(users) {}
  std::optional<std::string> exe() override { return procfs_.exe(pid_); }
  std::optional<std::string> cmdline() override { return procfs_.read(pid_, "cmdline", kMaxCmdlineBytes); }
  std::optional<std::string> user_name(uint32_t uid) override {
    if (const auto known = users_.find(uid); known != users_.end()) return known->second;
    if (users_.size() >= kMaxUsers) users_.clear();
    return users_[uid] = user_name_of(uid);
  }

 private:
  const Procfs& procfs_;
  int32_t pid_;
  Users& users_;
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
  fresh_.clear();
  users_.clear();
  rules_ = std::move(rules);
}

const WatchRule* RuleBook::find(const std::string& id) const {
  const auto found = std::ranges::find(rules_, id, &WatchRule::id);
  return found == rules_.end() ? nullptr : &*found;
}

const WatchRule* RuleBook::rule_of(const ProcessSample& sample) {
  if (rules_.empty()) return nullptr;
  const size_t cgroup = std::hash<std::string>{}(sample.cgroup);
  Verdict* verdict = verdict_on(sample.key);
  const bool is_new = verdict == nullptr;
  if (is_new) verdict = &fresh_[sample.key];
  verdict->process = sample.key;
  verdict->seen = tick_;
  if (is_new || verdict->exec != sample.exec || verdict->uid != sample.uid || verdict->comm != sample.comm ||
      verdict->cgroup != cgroup) {
    verdict->exec = sample.exec;
    verdict->uid = sample.uid;
    verdict->comm = sample.comm;
    verdict->cgroup = cgroup;
    verdict->rule = match(sample);
  }
  return verdict->rule;
}

RuleBook::Verdict* RuleBook::verdict_on(const ProcessKey& process) {
  if (next_ >= verdicts_.size() || verdicts_[next_].process != process) {
    const auto found = std::ranges::lower_bound(verdicts_, process, {}, &Verdict::process);
    next_ = static_cast<size_t>(found - verdicts_.begin());
  }
  if (next_ < verdicts_.size() && verdicts_[next_].process == process) return &verdicts_[next_++];
  const auto fresh = fresh_.find(process);
  return fresh == fresh_.end() ? nullptr : &fresh->second;
}

bool RuleBook::may_match(std::string_view comm) const {
  constexpr size_t kMaxComm = 15;  // a name of that length may have been cut
  return std::ranges::any_of(rules_, [comm](const WatchRule& rule) {
    return !rule.name || comm.size() >= kMaxComm || match_glob(*rule.name, comm) == GlobMatch::kYes;
  });
}

void RuleBook::end_tick() {
  std::erase_if(verdicts_, [this](const Verdict& verdict) { return verdict.seen != tick_; });
  if (!fresh_.empty()) {
    for (const auto& [process, verdict] : fresh_) {
      if (verdict.seen == tick_) verdicts_.push_back(verdict);
    }
    std::ranges::sort(verdicts_, {}, &Verdict::process);
    fresh_.clear();
  }
  next_ = 0;
  ++tick_;
}

const WatchRule* RuleBook::match(const ProcessSample& sample) {
  ProcFacts provider(procfs_, sample.pid_in_ns, users_);
  ProcessFacts facts({sample.pid_in_ns, sample.comm, sample.cgroup, sample.uid}, provider);
  const auto found = std::ranges::find_if(rules_, [&facts](const WatchRule& rule) { return matches(rule, facts); });
  return found == rules_.end() ? nullptr : &*found;
}

}  // namespace stackwatch
