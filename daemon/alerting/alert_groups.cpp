// SPDX-License-Identifier: Apache-2.0
// One cause in ten workers of a service is one alert: docs/alerts.md, "Workers of one service". Each worker keeps a
// record of its own, which lives as if it were alone; only the first one's is told.
#include <algorithm>
#include <utility>

#include "daemon/alerting/alert_policy.h"
#include "daemon/alerting/causes.h"
#include "daemon/alerting/message.h"

namespace stackwatch {
namespace {

/// What a person reads; 10 kB of an alert. More are counted.
constexpr size_t kMaxProcesses = 32;

Alert::Member* member_of(Alert& alert, const ProcessKey& process) {
  const auto found = std::ranges::find(
      alert.processes, process, [](const Alert::Member& member) -> const auto& { return member.process.key; });
  return found == alert.processes.end() ? nullptr : &*found;
}

/// Those of a finding on another probe are in the alert's parts.
void note_values(Alert::Member& member, const AlertRecord& record) {
  if (record.alert.probe != record.told().alert.probe) return;
  member.onset_ns = record.alert.onset_ns;
  member.before = record.alert.before;
  member.after = record.alert.after;
}

}  // namespace

AlertRecord* AlertPolicy::leader_of(const AlertRecord& record) {
  for (AlertRecord& worker : active_) {
    const AlertRecord& told = worker.told();
    const bool near = record.onset_s >= told.first_onset_s - options_.workers_onset_s &&
                      record.onset_s <= told.last_onset_s + options_.workers_onset_s;
    const bool one_kind = told.alert.shift.has_value() == record.alert.shift.has_value();
    if (near && one_kind && !told.is_pending() && changed_alike(worker, record)) return &worker.told();
  }
  return incident_of(record);
}

void AlertPolicy::join(AlertRecord& leader, AlertRecord& record) {
  record.predecessor.reset();
  record.leader = &leader;
  record.alert.state = leader.alert.state;
  ++leader.followers;
  ++counters_.joined;
  identify_again(record);
  enlist(leader, record);
  leader.first_onset_s = std::min(leader.first_onset_s, record.onset_s);
  leader.last_onset_s = std::max(leader.last_onset_s, record.onset_s);
  note_member(record);
  note_parts(leader);
  for (Alert& told : changed_) {  // in this tick: nobody has read it yet
    if (told.id == leader.alert.id) told = leader.alert;
  }
}

// A process that was a member before takes its own place again.
void AlertPolicy::enlist(AlertRecord& leader, const AlertRecord& record) {
  const ProcessIdentity& process = record.alert.process;
  if (&leader == &record) leader.first_onset_s = leader.last_onset_s = record.onset_s;
  Alert& alert = leader.alert;
  if (Alert::Member* known = member_of(alert, process.key)) {
    known->stands = true;
  } else if (alert.processes.size() < kMaxProcesses) {
    alert.processes.push_back({process, record.alert.onset_ns, 0, 0, true});
    note_values(alert.processes.back(), record);
  } else if (std::ranges::find(leader.unlisted, process.key) == leader.unlisted.end() &&
             leader.unlisted.size() < options_.active_per_host) {
    leader.unlisted.push_back(process.key);
    alert.processes_omitted = std::max<uint64_t>(alert.processes_omitted, leader.unlisted.size());
  }
}

// A process was seen to differ still: its line in the alert that tells it.
void AlertPolicy::note_member(AlertRecord& record) const {
  AlertRecord& told = record.leader != nullptr ? *record.leader : record;
  told.alert.updated_ns = std::max(told.alert.updated_ns, record.alert.updated_ns);
  record.own_over = false;
  if (Alert::Member* member = member_of(told.alert, record.alert.process.key)) {
    note_values(*member, record);
    member->stands = true;
  }
}

// One process's part is over. The alert is over when nobody's part stands: end_left_alone().
void AlertPolicy::end(Records::iterator record, double time_s, std::string_view why) {
  AlertRecord& told = record->told();
  if (told.followers == 0) {
    resolve(record, time_s, why);
    return;
  }
  told.ended_why = why;
  const ProcessKey process = record->alert.process.key;
  if (&told == &*record) {
    record->own_over = true;
  } else {
    --told.followers;
    drop(record);
  }
  if (Alert::Member* member = member_of(told.alert, process)) member->stands = stands(told, process);
  note_parts(told);
}

// It is told by itself if it lasts, or joins who left before it.
void AlertPolicy::leave(AlertRecord& record) {
  AlertRecord& told = *std::exchange(record.leader, nullptr);
  --told.followers;
  if (Alert::Member* member = member_of(told.alert, record.alert.process.key)) member->stands = false;
  record.sequence = next_sequence_++;
  record.first_s = record.seen_s;
  record.alert.id = fresh_id();
  record.alert.opened_ns = record.alert.updated_ns;
  record.alert.state = AlertState::kPending;
}

// After everything else of a tick: it must not take a record away from under somebody who goes through all.
void AlertPolicy::end_left_alone(double time_s) {
  const auto for_each_over = [this](const auto& action) {
    for (auto it = active_.begin(); it != active_.end();) {
      const auto current = it++;
      if (current->own_over) action(current);
    }
  };
  for_each_over([this](Records::iterator record) {
    if (record->leader == nullptr) return;  // else another part tells the alert since
    --record->leader->followers;
    drop(record);
  });
  for_each_over([&](Records::iterator record) {
    if (record->followers == 0) resolve(record, time_s, record->ended_why);
  });
}

void AlertPolicy::restore_members(AlertRecord& leader, double time_s, int64_t realtime_offset_ns) {
  if (leader.alert.processes.empty()) enlist(leader, leader);  // of a version that did not know members
  leader.first_onset_s = leader.last_onset_s = leader.onset_s;
  for (Alert::Member& member : leader.alert.processes) {
    const bool own = member.process.key == leader.alert.process.key;
    if (own) {
      leader.own_over = !member.stands;
    } else if (member.process.key.pid == 0 || active_.size() >= options_.active_per_host) {
      member.stands = false;  // not to be found again: where its finding comes, it joins anew
    } else if (member.stands) {
      Alert part = leader.alert;
      part.process = member.process;
      part.processes.clear();
      part.parts.clear();
      part.onset_ns = member.onset_ns;
      part.before = member.before;
      part.after = member.after;
      AlertRecord& record = active_.emplace_back(restored_record(part, time_s, realtime_offset_ns));
      record.sequence = next_sequence_++;
      record.leader = &leader;
      leader.first_onset_s = std::min(leader.first_onset_s, record.onset_s);
      leader.last_onset_s = std::max(leader.last_onset_s, record.onset_s);
      ++leader.followers;
      ++active_per_process_[member.process.key];
    }
  }
  if (leader.own_over) leader.ended_why = kNotWatched;
}

}  // namespace stackwatch
