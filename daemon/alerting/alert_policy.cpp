// SPDX-License-Identifier: Apache-2.0
#include "daemon/alerting/alert_policy.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "daemon/alerting/causes.h"
#include "daemon/alerting/message.h"

namespace stackwatch {
namespace {

/// Ids are drawn again where one is taken; that many bad draws in a row are a broken generator.
constexpr int kIdDraws = 4;

/// Times are sums of ticks in floating point, and ticks have jitter: what misses a limit by so little has reached it.
constexpr double kJitterS = 0.01;

/// Onsets are estimates: a change of nearly that age may be one of just that age.
constexpr double kAboutAdopted = 0.9;

uint64_t realtime_of(double time_s, int64_t offset_ns) {
  const double ns = std::clamp(time_s, -4e9, 4e9) /* a century, far from overflow */ * 1e9;
  return static_cast<uint64_t>(std::max<int64_t>(0, static_cast<int64_t>(ns) + offset_ns));
}

/// A claim of not-a-number would be compared with everything below, each time with "no".
bool is_usable(const Finding& finding, const Observation& observation) {
  return std::isfinite(finding.before) && std::isfinite(finding.after) && std::isfinite(finding.onset_s) &&
         finding.probe == observation.probe && observation.functions != nullptr;
}

/// A new name of old code is new code to who does not know that.
bool is_explained(const Finding& finding, const Observation& observation) {
  return !finding.shift && finding.frame && std::ranges::any_of(observation.findings, [&](const Finding& other) {
    return other.shift && other.shift->to == finding.frame && other.probe == finding.probe;
  });
}

/// A detector that tells two changes on one stack at once means two, unless they began together.
bool is_told_beside(const AlertRecord& record, const Finding& finding, const Observation& observation,
                    double onset_overlap_s) {
  if (std::abs(record.onset_s - finding.onset_s) <= onset_overlap_s) return false;
  return std::ranges::any_of(observation.findings, [&](const Finding& other) {
    return &other != &finding && other.detector == finding.detector &&
           kinship(record, other, {}, onset_overlap_s) == Kinship::kSame;
  });
}

std::span<const FunctionId> stack_of(const Finding& finding, const Observation& observation) {
  const StackTable* stacks = observation.stacks;
  if (!finding.stack || stacks == nullptr || finding.stack->value >= stacks->size()) return {};
  return (*stacks)[*finding.stack];
}

}  // namespace

size_t bytes_of(const AlertRecord& record) {
  size_t bytes = sizeof record + record.stack.capacity() * sizeof(FunctionId);
  for (const std::string& frame : record.alert.stack) bytes += sizeof frame + frame.capacity();
  for (const auto& c : record.alert.contributors) bytes += sizeof c + c.frame.capacity();
  const auto text_of = [](const ProcessIdentity& p) { return p.cgroup.capacity() + p.exe.capacity(); };
  for (const auto& member : record.alert.processes) bytes += sizeof member + text_of(member.process);
  for (const auto& part : record.alert.parts) bytes += sizeof part + part.frame.capacity();
  return bytes + record.unlisted.capacity() * sizeof(ProcessKey) + text_of(record.alert.process);
}

/// The findings of one observation that mean one alert, the one that names it best first.
struct AlertPolicy::Group {
  AlertRecord* record = nullptr;
  std::vector<std::pair<const Finding*, Kinship>> findings;
};

AlertPolicy::AlertPolicy(AlertPolicyOptions options, const Clock& clock, AlertIds ids, AlertContext context)
    : options_(std::move(options)), clock_(clock), ids_(std::move(ids)), context_(std::move(context)) {}

void AlertPolicy::set_options(AlertPolicyOptions options) { options_ = std::move(options); }

std::vector<Alert> AlertPolicy::tick(double time_s, std::span<const Observation> observations,
                                     std::span<const ProcessKey> exits, std::span<const ProcessKey> replaced,
                                     std::optional<int64_t> realtime_offset_ns) {
  changed_.clear();
  realtime_offset_ns_ = realtime_offset_ns.value_or(static_cast<int64_t>(clock_.realtime_ns() - clock_.monotonic_ns()));
  end_gone(time_s);
  for (const ProcessKey& process : replaced) end_process(process, time_s, kProgramReplaced);
  for (const Observation& observation : observations) observe(observation);
  for (const ProcessKey& process : exits) end_process(process, time_s, kProcessExited);
  end_silent_ones(time_s);
  end_left_alone(time_s);
  return std::exchange(changed_, {});
}

void AlertPolicy::observe(const Observation& observation) {
  adopt_restored(observation);
  std::vector<Group> groups = group(observation);
  for (const auto it : active_of(observation.process)) {
    AlertRecord& record = *it;
    if (record.alert.probe != observation.probe) continue;
    record.observed_s = observation.time_s;
    const auto own = std::ranges::find(groups, &record, &Group::record);
    if (own != groups.end()) {
      update(record, observation, *own);
      record.is_pending() ? settle(record) : reconsider(record);
    } else if (std::ranges::any_of(observation.findings, [&](const Finding& f) { return mentions(f, record); })) {
      touch(record, observation.time_s);
    } else if (record.is_pending()) {
      ++(record.is_hidden() ? counters_.cooled_down : counters_.vanished);
      drop(it);
    }
  }
}

std::vector<AlertPolicy::Group> AlertPolicy::group(const Observation& observation) {
  std::vector<const Finding*> findings;
  for (const Finding& finding : observation.findings) {
    if (is_usable(finding, observation) && !is_explained(finding, observation)) findings.push_back(&finding);
  }
  std::ranges::stable_sort(findings, [](const Finding* a, const Finding* b) {
    return a->frame.has_value() != b->frame.has_value() ? a->frame.has_value() : a->score > b->score;
  });
  std::vector<Group> groups;
  const auto active = active_of(observation.process);
  std::vector<AlertRecord*> candidates;
  for (const auto it : active) {
    if (!it->restored) candidates.push_back(&*it);
  }
  for (const Finding* finding : findings) {
    AlertRecord* closest = nullptr;
    Kinship how = Kinship::kNone;
    for (AlertRecord* record : candidates) {
      Kinship k = kinship(*record, *finding, stack_of(*finding, observation), options_.onset_overlap_s);
      if (k == Kinship::kSameStack && is_told_beside(*record, *finding, observation, options_.onset_overlap_s)) {
        k = Kinship::kNone;
      }
      if (k > how) std::tie(how, closest) = std::pair(k, record);
    }
    if (closest == nullptr) {
      closest = open(observation, *finding);
      if (closest == nullptr) continue;
      candidates.push_back(closest);
      how = Kinship::kSame;
    }
    auto own = std::ranges::find(groups, closest, &Group::record);
    if (own == groups.end()) own = groups.insert(groups.end(), Group{closest, {}});
    own->findings.emplace_back(finding, how);
  }
  for (Group& g : groups) {
    std::ranges::stable_sort(g.findings, [](const auto& a, const auto& b) { return names_better(*a.first, *b.first); });
  }
  return groups;
}

AlertRecord* AlertPolicy::open(const Observation& observation, const Finding& finding) {
  size_t& of_process = active_per_process_[observation.process];
  if (of_process >= options_.active_per_process || active_.size() >= options_.active_per_host) {
    ++counters_.refused;
    if (of_process == 0) active_per_process_.erase(observation.process);
    return nullptr;
  }
  ++of_process;
  AlertRecord& record = active_.emplace_back();
  record.sequence = next_sequence_++;
  record.first_s = record.seen_s = record.observed_s = observation.time_s;
  record.realtime_offset_ns = realtime_offset_ns_;
  Alert& alert = record.alert;
  alert.probe = observation.probe;
  alert.process = context_.identify(observation.process);
  alert.process.key = observation.process;
  alert.false_alarm_budget = options_.false_alarm_budget;
  alert.opened_ns = realtime_of(observation.time_s, realtime_offset_ns_);
  take_over(record, finding, observation.stacks, *observation.functions);
  record.predecessor = cooling_down(record);
  alert.id = record.predecessor ? record.predecessor->id : fresh_id();
  return &record;
}

/// While pending, an alert is about what its best finding of this tick is about. Once it fires its function stays,
/// because people were told it; only one that fired without a function takes one over when it is found.
void AlertPolicy::update(AlertRecord& record, const Observation& observation, const Group& group) {
  const FunctionTable& functions = *observation.functions;
  const auto& [best, kin] = group.findings.front();
  // Cost that moved explains nothing to others who stand behind the alert.
  const bool explains = !best->shift || record.told().followers == 0;
  const bool gains_function = best->frame && !record.frame && explains;
  const bool better = kin >= Kinship::kSameStack || !best->frame || names_better_than(*best, record);
  const Finding* main = nullptr;
  const bool is_named = gains_function && !best->shift && record.alert.is_firing() && record.leader == nullptr;
  if (gains_function || (record.is_pending() && better)) {
    main = best;
    take_over(record, *main, observation.stacks, functions);
  } else {
    const auto exact = std::ranges::find(group.findings, Kinship::kSame, &std::pair<const Finding*, Kinship>::second);
    if (exact != group.findings.end()) main = exact->first;
    if (main != nullptr) refresh(record, *main, functions);
  }
  for (const auto& [finding, _] : group.findings) {
    if (finding != main) add_mention(record, *finding, functions);
  }
  touch(record, observation.time_s);
  if (is_named) tell_name(record);
  name_incident(record);
}

void AlertPolicy::touch(AlertRecord& record, double time_s) {
  record.seen_s = time_s;
  Alert& alert = record.alert;
  alert.lost = context_.losses(alert.process.key, alert.probe);
  alert.updated_ns = std::max({alert.updated_ns, alert.opened_ns, realtime_of(time_s, realtime_offset_ns_)});
  const double onset_s = std::min({record.onset_s, record.first_s, record.told_onset_s.value_or(record.first_s)});
  alert.onset_ns = realtime_of(onset_s, record.realtime_offset_ns);
  note_member(record);
  note_parts(record.told());
}

void AlertPolicy::settle(AlertRecord& record) {
  if (record.seen_s - record.first_s < options_.persistence_s - kJitterS) return;
  if (AlertRecord* leader = leader_of(record)) {
    join(*leader, record);
    name_incident(record);
  } else if (may_fire(record)) {
    record.alert.shift ? tell_shift(record) : fire(record);
  }
}

// A change that turns out to be no more than cost that moved is no alarm, and what turns out to be more is one. Each at
// most once: an attribution that wavers is not told again and again. Where others stand behind it, one process's
// verdict does not take their alarm away, and where one of them really grows, the first one's verdict is not its own.
void AlertPolicy::reconsider(AlertRecord& record) {
  Alert& alert = record.alert;
  if (record.leader != nullptr) {
    if (!record.leader->alert.is_firing() && !alert.shift) leave(record);
    return;
  }
  if (alert.is_firing() && alert.shift && !record.told_shift && record.followers == 0) {
    tell_shift(record);
  } else if (!alert.is_firing() && !alert.shift) {
    fire(record);
  } else if (alert.is_firing() && !alert.shift && record.growths > record.told_growths) {
    tell_growth(record);
  }
  if (alert.is_firing()) alert.shift.reset();
}

// Who was told of 5 points more must hear of 25. Not each step of a slow climb: the cooldown is between two.
void AlertPolicy::tell_growth(AlertRecord& record) {
  const double size = std::abs(record.alert.after - record.alert.before);
  const bool larger = size >= options_.larger_factor * record.told_change;
  if (!larger && record.seen_s - record.told_s < options_.cooldown_s - kJitterS) return;
  note_told(record);
  record.alert.named_ns.reset();
  ++counters_.grown;
  changed_.push_back(record.alert);
}

void AlertPolicy::note_told(AlertRecord& record) const {
  record.told_growths = record.growths;
  record.told_change = std::abs(record.alert.after - record.alert.before);
  record.told_s = record.seen_s;
}

bool AlertPolicy::may_fire(const AlertRecord& record) const {
  if (!record.predecessor) return true;
  const AlertRecord::Predecessor& before = *record.predecessor;
  const bool larger = before.unit_of_measure == record.alert.unit_of_measure &&
                      record.largest_change >= options_.larger_factor * before.largest_change;
  return larger || record.seen_s >= before.cool_until_s - kJitterS;
}

void AlertPolicy::claim_id(AlertRecord& record) {
  Alert& alert = record.alert;
  // Another process of the service may have come back under this id for another reason.
  const bool taken = record.predecessor && std::ranges::any_of(active_, [&](const AlertRecord& r) {
                       return &r != &record && !r.is_hidden() && r.alert.id == alert.id;
                     });
  if (taken) {
    record.predecessor.reset();
    alert.id = fresh_id();
  }
  if (record.predecessor) {
    alert.opened_ns = record.predecessor->opened_ns;
    const auto old =
        std::ranges::find(history_, alert.id, [](const AlertRecord& r) -> const std::string& { return r.alert.id; });
    if (old != history_.end()) {
      history_bytes_ -= bytes_of(*old);
      history_.erase(old);
    }
  }
}

void AlertPolicy::fire(AlertRecord& record) {
  claim_id(record);
  identify_again(record);
  Alert& alert = record.alert;
  alert.state = AlertState::kFiring;
  alert.named_ns.reset();
  alert.resolved_ns.reset();
  alert.resolution.clear();
  enlist(record, record);
  note_told(record);
  ++counters_.fired;
  changed_.push_back(alert);
}

// In the list it is among those that are over; the record stays as long as its finding does.
void AlertPolicy::tell_shift(AlertRecord& record) {
  claim_id(record);
  identify_again(record);
  Alert& alert = record.alert;
  record.told_shift = true;
  alert.state = AlertState::kResolved;
  alert.resolved_ns = alert.updated_ns;
  alert.resolution = kCostMoved;
  enlist(record, record);
  ++counters_.shifts;
  changed_.push_back(alert);
}

// It may have executed another program; it may also be gone and unknown.
void AlertPolicy::identify_again(AlertRecord& record) const {
  ProcessIdentity now = context_.identify(record.alert.process.key);
  if (now.comm.empty()) return;
  now.key = record.alert.process.key;
  record.alert.process = std::move(now);
}

void AlertPolicy::resolve(Records::iterator record, double time_s, std::string_view why) {
  Alert& alert = record->alert;
  record->resolved_s = time_s;
  if (alert.state != AlertState::kResolved) {  // a cost shift was told as over
    alert.state = AlertState::kResolved;
    alert.resolution = why;
    for (Alert::Part& part : alert.parts) part.stands = false;
    alert.updated_ns = std::max(alert.updated_ns, realtime_of(time_s, realtime_offset_ns_));
    alert.resolved_ns = alert.updated_ns;
    ++counters_.resolved;
    changed_.push_back(alert);
  }
  if (auto n = active_per_process_.find(alert.process.key); --n->second == 0) active_per_process_.erase(n);
  history_bytes_ += bytes_of(*record);
  history_.splice(history_.begin(), active_, record);
  bound_history();
}

AlertPolicy::Records::iterator AlertPolicy::drop(Records::iterator record) {
  if (auto n = active_per_process_.find(record->alert.process.key); --n->second == 0) active_per_process_.erase(n);
  return active_.erase(record);
}

void AlertPolicy::end_process(const ProcessKey& process, double time_s, std::string_view why) {
  for (const auto it : active_of(process)) {
    if (it->is_pending()) {
      ++(it->is_hidden() ? counters_.cooled_down : counters_.vanished);
      drop(it);
    } else {
      end(it, time_s, it->restored && it->observed_s == 0 ? kGoneMeanwhile : why);
    }
  }
}

void AlertPolicy::end_silent_ones(double time_s) {
  for (auto it = active_.begin(); it != active_.end();) {
    const auto current = it++;
    if (current->own_over) continue;
    if (current->restored) {
      end_silent_restored(current, time_s);
      continue;
    }
    if (time_s - current->seen_s < options_.resolve_after_s - kJitterS) continue;
    if (current->is_pending()) {  // no delta came since: it can neither fire nor be seen to be over
      ++(current->is_hidden() ? counters_.cooled_down : counters_.vanished);
      drop(current);
    } else if (current->observed_s <= current->seen_s) {
      end(current, time_s, kNotWatched);
    } else {
      const bool old = current->seen_s - current->onset_s >= kAboutAdopted * options_.adopt_after_s;
      end(current, time_s, old ? kCountsAsNormal : kBackToBaseline);
    }
  }
}

std::optional<AlertRecord::Predecessor> AlertPolicy::cooling_down(const AlertRecord& fresh) const {
  for (const AlertRecord& old : history_) {  // the one resolved last comes first
    const double until_s = old.resolved_s + options_.cooldown_s;
    if (fresh.first_s >= until_s - kJitterS) return std::nullopt;
    if (const auto told = same_cause(old, fresh)) {
      return AlertRecord::Predecessor{old.alert.id, old.alert.opened_ns, until_s, told->change,
                                      std::string(told->unit_of_measure)};
    }
  }
  return std::nullopt;
}

std::string AlertPolicy::fresh_id() {
  for (int i = 0; i < kIdDraws; ++i) {
    std::string id = ids_();
    if (!id.empty() && !find(id)) return id;
  }
  return fmt::format("{:012x}", (next_sequence_ + clock_.realtime_ns()) & 0xffff'ffff'ffffULL);
}

void AlertPolicy::bound_history() {
  while (history_.size() > options_.history || (history_bytes_ > options_.history_bytes && !history_.empty())) {
    history_bytes_ -= bytes_of(history_.back());
    history_.pop_back();
    ++counters_.forgotten;
  }
}

std::vector<AlertPolicy::Records::iterator> AlertPolicy::active_of(const ProcessKey& process) {
  std::vector<Records::iterator> found;
  if (!concerns(process)) return found;
  for (auto it = active_.begin(); it != active_.end(); ++it) {
    if (it->alert.process.key == process) found.push_back(it);
  }
  return found;
}

std::vector<const AlertRecord*> AlertPolicy::newest_first() const {
  std::vector<const AlertRecord*> records;
  for (const AlertRecord& record : active_) {
    if (!record.is_hidden()) records.push_back(&record);
  }
  for (const AlertRecord& record : history_) records.push_back(&record);
  std::ranges::sort(records, std::greater{}, &AlertRecord::sequence);
  return records;
}

std::vector<Alert> AlertPolicy::all() const {
  std::vector<Alert> alerts;
  for (const AlertRecord* record : newest_first()) alerts.push_back(record->alert);
  return alerts;
}

std::optional<Alert> AlertPolicy::find(const std::string& id) const {
  for (const Records* records : {&active_, &history_}) {
    for (const AlertRecord& record : *records) {
      if (record.alert.id == id && !record.is_hidden()) return record.alert;
    }
  }
  return std::nullopt;
}

size_t AlertPolicy::pending() const {
  return static_cast<size_t>(
      std::ranges::count_if(active_, [](const AlertRecord& r) { return r.is_pending() && !r.is_hidden(); }));
}

size_t AlertPolicy::firing() const {
  return static_cast<size_t>(
      std::ranges::count_if(active_, [](const AlertRecord& r) { return r.alert.is_firing() && !r.is_hidden(); }));
}

bool AlertPolicy::concerns(const ProcessKey& process) const { return active_per_process_.contains(process); }

}  // namespace stackwatch
