// SPDX-License-Identifier: Apache-2.0
#include "daemon/live_source.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "config/load.h"
#include "config/match.h"
#include "config/rule.h"
#include "config/text.h"
#include "daemon/process_identity.h"
#include "daemon/ranking_rows.h"

namespace stackwatch {
namespace {

constexpr double kSuspectFrequencyHz = 99;
/// Page faults tell of growth at next to no cost; what costs more is for rules to ask for.
const std::vector<ProbeKind> kSuspectProbes = {ProbeKind::kOnCpu, ProbeKind::kPageFault};

/// Places of the survey, on top of those for whom somebody asked or who stand out.
size_t survey_places(const Config& config) { return config.limits.attachments / 2; }

AttachmentLimits limits_of(const Config& config) {
  return {config.limits.attachments + survey_places(config), config.limits.stacks_per_process};
}

}  // namespace

LiveSource::LiveSource(Parts parts, const Clock& clock, const Config& config)
    : parts_(std::move(parts)),
      clock_(clock),
      ranker_(config.ranking, std::move(parts_.entitlement)),
      rules_(parts_.procfs) {
  configure(config);
}

void LiveSource::configure(const Config& config) {
  ranker_.configure(config.ranking);
  configured_rules_ = config.watch;
  set_rules();
  survey_.configure(config.survey, survey_places(config));
  max_focused_ = config.limits.attachments;
  guard_.set_limit(config.limits.overhead_percent_per_process);
  refused_.clear();
  parts_.attachments.set_limits(limits_of(config));
}

// The first that matches wins: what somebody asks for one process, then the configuration, then what else was added.
void LiveSource::set_rules() {
  std::vector<WatchRule> all = added_rules_;
  const auto others =
      std::stable_partition(all.begin(), all.end(), [](const WatchRule& rule) { return rule.pid.has_value(); });
  all.insert(others, configured_rules_.begin(), configured_rules_.end());
  rules_.set_rules(std::move(all));
  refused_.clear();
}

Result<void> LiveSource::add_rule(const WatchRule& rule, std::optional<uint64_t> start_time_ns) {
  static constexpr const char* kWhat = "add a watch rule";
  if (added_rules_.size() >= kMaxWatchRules) return fail(kWhat, "there are too many", "remove some of them");
  if (rules_.find(rule.id) != nullptr) {
    return fail(ErrorKind::kUsage, kWhat, "there is a rule " + rule.id, "give it another id");
  }
  if (auto taken = take_census(); !taken) return taken;
  const auto process = process_of(rule, start_time_ns);
  if (!process) return Failure(process.error());
  added_rules_.push_back(rule);
  set_rules();
  for (const ProcessSample& sample : processes_.samples()) attach_by_rule(sample);
  if (*process && !is_focused(**process)) {
    added_rules_.pop_back();
    const std::string problem = attach_problem();
    set_rules();
    return fail(kWhat, problem.empty() ? "the process does not match the rest of the rule" : problem);
  }
  if (*process) rule_processes_[rule.id] = **process;
  return {};
}

Result<std::optional<ProcessKey>> LiveSource::process_of(const WatchRule& rule,
                                                         std::optional<uint64_t> start_time_ns) const {
  static constexpr const char* kWhat = "add a watch rule";
  if (!rule.pid) return std::optional<ProcessKey>();
  const std::string pid = std::to_string(*rule.pid);
  const ProcessSample* sample = processes_.find_pid_in_ns(*rule.pid);
  if (sample == nullptr) {
    return fail(kWhat, "the daemon sees no process " + pid,
                start_time_ns ? "its pid namespace is not yours, or the process has ended" : "see stackwatch top");
  }
  if (start_time_ns &&
      *start_time_ns / kStartTimeGranularityNs * kStartTimeGranularityNs != sample->key.start_time_ns) {
    return fail(kWhat, "process " + pid + " is another one for the daemon: " + printable(sample->comm),
                "its pid namespace is not yours: run this in the daemon's");
  }
  return std::optional(sample->key);
}

// Whoever added the rule may be gone as well. Children that the process left behind are watched to their end.
void LiveSource::drop_ended_rules() {
  const auto has_children = [this](const std::string& rule) {
    return std::ranges::any_of(parts_.attachments.processes(), [&](const ProcessKey& process) {
      const AttachReason* reason = parts_.attachments.reason(process);
      return reason->kind == AttachReason::Kind::kChild && reason->rule == rule && processes_.find(process) != nullptr;
    });
  };
  const size_t before = added_rules_.size();
  std::erase_if(added_rules_, [&](const WatchRule& rule) {
    const auto process = rule_processes_.find(rule.id);
    if (process == rule_processes_.end() || processes_.find(process->second) != nullptr || has_children(rule.id))
      return false;
    rule_processes_.erase(process);
    return true;
  });
  if (added_rules_.size() != before) set_rules();
}

Result<void> LiveSource::remove_rule(const std::string& id) {
  if (std::erase_if(added_rules_, [&id](const WatchRule& rule) { return rule.id == id; }) == 0) {
    const bool configured = rules_.find(id) != nullptr;
    return fail(ErrorKind::kUsage, "remove a watch rule",
                configured ? "the rule " + id + " is one of the configuration" : "there is no rule " + id,
                configured ? "take it out of the file and reload" : "see stackwatch watch list");
  }
  rule_processes_.erase(id);
  set_rules();
  return {};
}

std::vector<WatchRow> LiveSource::watches() const {
  std::vector<WatchRow> rows;
  for (const WatchRule& rule : configured_rules_) rows.push_back({rule, true, 0});
  for (const WatchRule& rule : added_rules_) rows.push_back({rule, false, 0});
  for (const ProcessKey& process : parts_.attachments.processes()) {
    const AttachReason* reason = parts_.attachments.reason(process);
    const auto row = std::ranges::find(rows, reason->rule, [](const WatchRow& each) { return each.rule.id; });
    if (!reason->rule.empty() && row != rows.end()) ++row->processes;
  }
  return rows;
}

Result<bool> LiveSource::attach_new() {
  // Clients of the control socket wait meanwhile, and on a busy machine for a multiple of it.
  constexpr uint64_t kAttachSliceNs = 10'000'000;
  if (auto taken = take_census(); !taken) return Failure(taken.error());
  const uint64_t begun_ns = clock_.monotonic_ns();
  end_exited();  // their places are free
  const size_t attached_before = parts_.attachments.size();
  full_problem_.clear();
  for (const ProcessSample& sample : processes_.samples()) {
    // A slice that gets nowhere, among very many processes, is not gone on with: the tick does it.
    if (clock_.monotonic_ns() - begun_ns > kAttachSliceNs) return parts_.attachments.size() > attached_before;
    attach_by_rule(sample);
  }
  return false;
}

Result<void> LiveSource::take_census() {
  const uint64_t begun_ns = clock_.monotonic_ns();
  auto samples = parts_.census.take();
  if (!samples) return Failure(samples.error());
  processes_.set(std::move(*samples));
  census_ms_ = static_cast<double>(clock_.monotonic_ns() - begun_ns) * 1e-6;
  return {};
}

Result<std::optional<TickBatch>> LiveSource::next() {
  if (auto taken = take_census(); !taken) return Failure(taken.error());
  const uint64_t now_ns = clock_.monotonic_ns();
  end_exited();
  std::erase_if(refused_, [this](const auto& entry) { return processes_.find(entry.first) == nullptr; });
  read_paths();
  TickBatch batch;
  batch.replaced = replace_programs();
  if (auto collected = parts_.attachments.collect(std::exchange(late_, false)); !collected) {
    return Failure(collected.error());
  }
  for (const ProcessKey& process : parts_.attachments.processes()) {
    if (const ProcessSample* sample = processes_.find(process)) parts_.attachments.set_on_cpu(*sample);
  }
  batch.time_s = static_cast<double>(now_ns) * 1e-9;
  Attachments::Ready ready = parts_.attachments.take();
  batch.deltas = std::move(ready.deltas);
  batch.exits = std::move(ready.exits);
  batch.detached = std::move(ready.detached);
  board_.observe(batch.time_s, batch.deltas);
  for (const auto* gone : {&batch.exits, &batch.detached}) {
    for (const ProcessKey& process : *gone) board_.forget(process);
  }

  ranker_.observe(batch.time_s, processes_.samples());
  full_problem_.clear();
  watch_overhead(batch.time_s);
  drop_surplus();
  attach_adopted();
  attach_wanted();
  attach_again(batch.exits);
  drop_unwanted();
  drop_ended_rules();
  batch.samples = processes_.samples();
  batch.realtime_offset_ns = static_cast<int64_t>(clock_.realtime_ns() - clock_.monotonic_ns());
  return std::optional(std::move(batch));
}

void LiveSource::end_exited() {
  for (const ProcessKey& process : parts_.attachments.processes()) {
    if (processes_.find(process) == nullptr) parts_.attachments.end(process, true);
  }
}

std::vector<ProcessKey> LiveSource::replace_programs() {
  std::vector<ProcessKey> replaced;
  for (const ProcessKey& process : parts_.attachments.processes()) {
    const ProcessSample* sample = processes_.find(process);
    if (sample == nullptr || parts_.attachments.exec(process) == sample->exec) continue;
    parts_.attachments.replace_program(identity_in_census(*sample), sample->exec);
    without_exe_.push_back(process);
    replaced.push_back(process);
  }
  return replaced;
}

// Children that hit a sample are attached by the kernel side already; here they get their place among the attachments.
void LiveSource::attach_adopted() {
  for (const ProbeEngine::Adopted& child : parts_.attachments.take_adopted()) {
    const AttachReason* parent = parts_.attachments.reason(child.parent);
    const ProbeOptions* options = parts_.attachments.options(child.parent);
    if (parent != nullptr && options != nullptr) {
      const ProcessSample* sample = processes_.find(child.process);
      const ProcessSample unseen = unseen_child(child);
      attach(sample != nullptr ? *sample : unseen,
             {child.process, parts_.attachments.probes(child.parent), *options, child_of(child.parent, *parent), true});
    }
    if (!parts_.attachments.contains(child.process)) parts_.attachments.refuse(child.process);
  }
}

// A child that began after this tick's census, or ended before it. Until the next census tells it is called like its
// parent, whose image it runs. Its pid in the daemon's namespace is not known where the two namespaces differ.
ProcessSample LiveSource::unseen_child(const ProbeEngine::Adopted& child) const {
  ProcessSample sample;
  sample.key = child.process;
  if (const ProcessIdentity* parent = parts_.attachments.identity(child.parent)) {
    sample.comm = parent->comm;
    sample.cgroup = parent->cgroup;
    if (parent->pid_in_ns == child.parent.pid) sample.pid_in_ns = child.process.pid;
  }
  return sample;
}

AttachReason LiveSource::child_of(const ProcessKey& parent, const AttachReason& reason) const {
  const ProcessIdentity* identity = parts_.attachments.identity(parent);
  return {AttachReason::Kind::kChild, reason.rule,
          fmt::format("child of {}", identity != nullptr ? identity->pid_in_ns : parent.pid)};
}

void LiveSource::attach_wanted() {
  for (const ProcessSample& sample : processes_.samples()) attach_by_rule(sample);
  for (const ProcessKey& suspect : ranker_.suspects()) {
    if (!shedding_.suspects) break;
    const AttachReason* reason = parts_.attachments.contains(suspect) ? parts_.attachments.reason(suspect) : nullptr;
    if (reason == nullptr || reason->kind == AttachReason::Kind::kSurvey) attach_suspect(suspect);
  }
  if (!shedding_.survey) {
    survey_.clear();
    return;
  }
  for (const ProcessKey& process : survey_.choose(ranker_.ranking())) {
    if (!parts_.attachments.contains(process)) attach_surveyed(process);
  }
}

void LiveSource::attach_surveyed(const ProcessKey& process) {
  const ProcessSample* sample = processes_.find(process);
  if (sample == nullptr) return;
  attach(*sample, {process,
                   {ProbeKind::kOnCpu},
                   {.frequency_hz = rate(survey_.frequency_hz()), .children = false},
                   {AttachReason::Kind::kSurvey, "", "survey"}});
}

void LiveSource::attach_suspect(const ProcessKey& suspect) {
  const ProcessSample* sample = processes_.find(suspect);
  if (sample == nullptr) return;
  const Ranked* ranked = ranker_.find(suspect);
  attach(*sample, {suspect,
                   kSuspectProbes,
                   {.frequency_hz = rate(kSuspectFrequencyHz), .children = false},
                   {AttachReason::Kind::kSuspect, "", fmt::format("suspect: {}", ranked->reason())}});
}

// Whoever a rule names is attached by it already. set_keep() keeps the others, as long as their alerts stand.
void LiveSource::attach_again(std::vector<ProcessKey>& exits) {
  for (const ProcessKey& process : std::exchange(again_, {})) {
    const ProcessSample* sample = processes_.find(process);
    if (sample == nullptr) {
      exits.push_back(process);
    } else if (!is_focused(process)) {
      attach(*sample, {process,
                       kSuspectProbes,
                       {.frequency_hz = rate(kSuspectFrequencyHz), .children = false},
                       {AttachReason::Kind::kSuspect, "", "an alert of an earlier run stands"}});
    }
  }
}

// A rule goes before an ancestor's rule, and both before a suspicion.
void LiveSource::attach_by_rule(const ProcessSample& sample) {
  const AttachReason* now = parts_.attachments.contains(sample.key) ? parts_.attachments.reason(sample.key) : nullptr;
  if (const WatchRule* rule = rules_.rule_of(sample)) {
    const AttachOrder order = order_by_rule(sample.key, *rule, {AttachReason::Kind::kRule, rule->id, ""});
    if (now != nullptr && now->kind == AttachReason::Kind::kRule && now->rule == rule->id &&
        *parts_.attachments.options(sample.key) == order.options &&
        parts_.attachments.probes(sample.key) == order.probes) {
      return;
    }
    AttachOrder told = order;
    told.reason.text = fmt::format("watch rule {}", describe(*rule));
    attach(sample, std::move(told));
    return;
  }
  if (now != nullptr && now->kind == AttachReason::Kind::kChild) {
    follow_rule_of_child(sample, *now);
    return;
  }
  if (now != nullptr && now->kind == AttachReason::Kind::kRule) return;  // drop_unwanted() decides
  const ProcessSample* parent = processes_.parent_of(sample);
  if (parent == nullptr) return;
  const ProcessKey& key = parent->key;
  if (!parts_.attachments.contains(key)) return;
  const AttachReason* reason = parts_.attachments.reason(key);
  const ProbeOptions* options = parts_.attachments.options(key);
  if (reason == nullptr || !options->children || reason->kind == AttachReason::Kind::kSuspect) return;
  attach(sample, {sample.key, parts_.attachments.probes(key), *options, child_of(key, *reason)});
}

// A reload may have changed what the rule asks for.
void LiveSource::follow_rule_of_child(const ProcessSample& sample, const AttachReason& reason) {
  const WatchRule* rule = rules_.find(reason.rule);
  if (rule == nullptr || !rule->children) return;  // drop_unwanted() decides
  AttachOrder order = order_by_rule(sample.key, *rule, reason);
  if (*parts_.attachments.options(sample.key) != order.options ||
      parts_.attachments.probes(sample.key) != order.probes) {
    attach(sample, std::move(order));
  }
}

// Who was refused once is not tried again until the configuration changes: a try disturbs the sampling of all others.
void LiveSource::attach(const ProcessSample& sample, AttachOrder order) {
  if (refused_.contains(sample.key)) return;
  // What was full stays so until the next tick. To count anew for each of 200 processes that restart at once took 60
  // ms.
  const bool needs_place = order.reason.kind != AttachReason::Kind::kSurvey && !is_focused(sample.key);
  if (needs_place && (!full_problem_.empty() || focus_is_full())) {
    full_problem_ = fmt::format(
        "more processes to watch than the {} that may be (raise attachments in [limits], or "
        "narrow the watch rules)",
        places());
    return;
  }
  if (parts_.attachments.full() && !parts_.attachments.contains(sample.key)) return;  // a place is free next tick
  const bool is_new = !parts_.attachments.contains(sample.key);
  if (auto attached = parts_.attachments.attach(identity_in_census(sample), sample, order); !attached) {
    refused_[sample.key] = attached.error().message();
  } else if (is_new) {
    without_exe_.push_back(sample.key);
  }
}

// The path of its program is read a tick later: while a process executes a program the kernel makes readers of the link
// wait, 160 ms on a busy machine, and this is the loop's thread.
void LiveSource::read_paths() {
  for (const ProcessKey& process : std::exchange(without_exe_, {})) {
    const ProcessSample* sample = processes_.find(process);
    if (sample == nullptr || sample->pid_in_ns <= 0 || !parts_.attachments.contains(process)) continue;
    parts_.attachments.set_exe(process, parts_.procfs.exe(sample->pid_in_ns).value_or(""));
  }
}

bool LiveSource::is_focused(const ProcessKey& process) const {
  return parts_.attachments.contains(process) &&
         parts_.attachments.reason(process)->kind != AttachReason::Kind::kSurvey;
}

bool LiveSource::focus_is_full() const { return parts_.attachments.size() >= places() && focused() >= places(); }

size_t LiveSource::focused() const {
  const std::vector<ProcessKey> all = parts_.attachments.processes();
  const auto focused = std::ranges::count_if(all, [this](const ProcessKey& process) {
    return is_focused(process) && parts_.attachments.takes_place(process);
  });
  return static_cast<size_t>(focused);
}

size_t LiveSource::places() const {
  const auto places = static_cast<size_t>(shedding_.places * static_cast<double>(max_focused_));
  return std::max<size_t>(1, places);
}

std::string LiveSource::attach_problem() const {
  if (!full_problem_.empty()) return full_problem_;
  return refused_.empty() ? parts_.attachments.problem() : refused_.begin()->second;
}

// What is attached without a reason any more goes, unless an alert stands on it or it is a suspect.
void LiveSource::drop_unwanted() {
  const auto& suspects = ranker_.suspects();
  for (const ProcessKey& process : parts_.attachments.processes()) {
    const AttachReason::Kind kind = parts_.attachments.reason(process)->kind;
    if (is_wanted_by_rule(process) || keep_(process)) continue;
    const bool is_suspect = shedding_.suspects && std::ranges::find(suspects, process) != suspects.end();
    const double now_hz = parts_.attachments.options(process)->frequency_hz;
    if (is_suspect) {
      if (kind != AttachReason::Kind::kSuspect || now_hz != rate(kSuspectFrequencyHz)) attach_suspect(process);
    } else if (shedding_.survey && survey_.contains(process)) {
      const bool as_wanted = kind == AttachReason::Kind::kSurvey && now_hz == rate(survey_.frequency_hz());
      if (!as_wanted) attach_surveyed(process);
    } else {
      parts_.attachments.end(process, false);
    }
  }
  rules_.end_tick();
}

bool LiveSource::is_wanted_by_rule(const ProcessKey& process) {
  const AttachReason& reason = *parts_.attachments.reason(process);
  const ProcessSample* sample = processes_.find(process);
  switch (reason.kind) {
    case AttachReason::Kind::kSuspect:
    case AttachReason::Kind::kSurvey:
      return false;
    case AttachReason::Kind::kRule: {
      if (sample == nullptr) return true;  // it has ended; end_exited() decides
      const WatchRule* rule = rules_.rule_of(*sample);
      return rule != nullptr && rule->id == reason.rule;
    }
    case AttachReason::Kind::kChild: {
      const WatchRule* rule = rules_.find(reason.rule);
      return rule != nullptr && rule->children;
    }
  }
  return false;
}

ProcessIdentity LiveSource::identify(const ProcessKey& process) const {
  if (const ProcessIdentity* known = parts_.attachments.identity(process)) return *known;
  if (const ProcessSample* sample = processes_.find(process)) return identity_of(*sample, parts_.procfs);
  ProcessIdentity unknown;
  unknown.key = process;
  unknown.pid_in_ns = process.pid;
  return unknown;
}

bool LiveSource::has_process(int32_t pid_in_ns) const { return processes_.find_pid_in_ns(pid_in_ns) != nullptr; }

std::vector<UnusualStack> LiveSource::unusual_stacks(size_t limit) const {
  std::vector<UnusualStack> result;
  for (const StackBoard::Row& row : board_.unusual(limit)) {
    UnusualStack& stack = result.emplace_back();
    for (const FunctionId frame : row.frames) stack.frames.push_back(parts_.attachments.functions()[frame].name);
    stack.score = row.score;
    stack.before_cores = row.past_cores;
    stack.now_cores = row.now_cores;
    for (const StackBoard::Share& share : row.processes) {
      stack.processes.push_back({identify(share.process), share.past_cores, share.now_cores});
    }
  }
  return result;
}

Losses LiveSource::losses(const ProcessKey& process, ProbeKind probe) const {
  return parts_.attachments.losses(process, probe);
}

Result<std::vector<RankingRow>> LiveSource::ranking(size_t limit, const std::string& by) const {
  return ranking_rows(ranker_, processes_, parts_.procfs, limit, by);
}

}  // namespace stackwatch
