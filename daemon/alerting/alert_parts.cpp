// SPDX-License-Identifier: Apache-2.0
// What several probes of a process show of one incident is one alert: docs/alerts.md, "One incident, several probes".
// As with workers, each part keeps a record of its own, which lives as if it were alone; one of them is told.
#include <algorithm>
#include <tuple>
#include <utility>

#include "daemon/alerting/alert_policy.h"
#include "daemon/alerting/causes.h"

namespace stackwatch {
namespace {

/// A process has six probes and the census some metrics; more would not be read.
constexpr size_t kMaxParts = 8;

Alert::Part part_of(const Alert& alert) {
  return {alert.probe,  alert.detector, alert.frame,           alert.onset_ns,
          alert.before, alert.after,    alert.unit_of_measure, true};
}

bool is_same(const Alert::Part& part, const Alert& alert) {
  return part.probe == alert.probe && part.frame == alert.frame && part.unit_of_measure == alert.unit_of_measure;
}

}  // namespace

// Of the alert's own process the told change is what a function is compared with: all that began at one time would be
// one incident by way of the change of the whole process, else.
AlertRecord* AlertPolicy::incident_of(const AlertRecord& record) {
  // What was a part before a restart of the daemon is one again, however long its detector took to see it again.
  const auto was_part_of = [&record](const AlertRecord& told) {
    return told.restored_s > 0 && !record.alert.shift && told.alert.process.key == record.alert.process.key &&
           std::ranges::any_of(told.alert.parts, [&](const Alert::Part& part) {
             return is_same(part, record.alert) && (part.after >= part.before) == record.grows();
           });
  };
  for (AlertRecord& part : active_) {
    AlertRecord& told = part.told();
    if (told.alert.is_firing() && was_part_of(told)) return &told;
    const bool counts = &part == &told || part.alert.process.key != told.alert.process.key;
    if (counts && told.alert.is_firing() && same_incident(part, record, options_.onset_overlap_s)) return &told;
  }
  return nullptr;
}

bool AlertPolicy::stands(const AlertRecord& told, const ProcessKey& process) const {
  return std::ranges::any_of(active_, [&](const AlertRecord& record) {
    return &record.told() == &told && record.alert.process.key == process && !record.own_over;
  });
}

void AlertPolicy::note_parts(AlertRecord& told) {
  Alert& alert = told.alert;
  if (told.followers == 0 && alert.parts.empty()) return;
  for (Alert::Part& part : alert.parts) part.stands = false;
  for (const AlertRecord& record : active_) {
    if (record.leader != &told || record.own_over || record.alert.probe == alert.probe) continue;
    const auto known =
        std::ranges::find_if(alert.parts, [&](const Alert::Part& part) { return is_same(part, record.alert); });
    if (known == alert.parts.end()) {
      if (alert.parts.size() < kMaxParts) alert.parts.push_back(part_of(record.alert));
    } else if (!known->stands) {  // of several workers' the first one's values
      *known = part_of(record.alert);
    }
  }
}

// A person who was told that a process changed wants to know in which function as soon as it is known.
void AlertPolicy::tell_name(AlertRecord& record) {
  Alert& alert = record.alert;
  const auto told = std::ranges::find(changed_, alert.id, &Alert::id);
  if (told != changed_.end()) {  // it began in this tick: nobody has read it yet
    *told = alert;
    return;
  }
  alert.named_ns = alert.updated_ns;
  changed_.push_back(alert);
}

// Of one process: what an alert's process is does not change.
void AlertPolicy::name_incident(AlertRecord& record) {
  if (record.leader == nullptr || !record.frame || record.alert.shift) return;
  const Alert& told = record.leader->alert;
  const bool names_it = told.is_firing() && told.frame.empty() && told.process.key == record.alert.process.key;
  if (!names_it) return;
  lead(record);
  tell_name(record);
}

// The alert with all that belongs to it goes over to the record; what told it so far becomes a part.
void AlertPolicy::lead(AlertRecord& record) {
  AlertRecord& old = *record.leader;
  Alert& alert = record.alert;
  alert.id = old.alert.id;
  alert.opened_ns = old.alert.opened_ns;
  alert.updated_ns = std::max(alert.updated_ns, old.alert.updated_ns);
  alert.processes = std::exchange(old.alert.processes, {});
  alert.processes_omitted = std::exchange(old.alert.processes_omitted, 0);
  alert.parts = std::exchange(old.alert.parts, {});
  std::erase_if(alert.parts, [&](const Alert::Part& part) { return is_same(part, alert); });
  std::swap(record.sequence, old.sequence);
  std::tie(record.first_onset_s, record.last_onset_s) = std::pair(old.first_onset_s, old.last_onset_s);
  record.unlisted = std::exchange(old.unlisted, {});
  record.ended_why = old.ended_why;
  record.told_shift = std::exchange(old.told_shift, false);
  record.followers = std::exchange(old.followers, 0);
  for (AlertRecord& other : active_) {
    if (other.leader == &old) other.leader = &record;
  }
  record.leader = nullptr;
  old.leader = &record;
  record.restored_s = old.restored_s;
  if (old.restored_s > 0) {
    record.told_onset_s = old.told_onset_s.value_or(old.onset_s);
    alert.onset_ns = std::min(alert.onset_ns, old.alert.onset_ns);
  }
  // Values of the others were in the unit of what told it; who has no finding of this kind yet has none.
  for (Alert::Member& member : alert.processes) member.before = member.after = 0;
  for (AlertRecord& other : active_) {
    if (&other.told() == &record && !other.own_over) note_member(other);
  }
  note_parts(record);
}

}  // namespace stackwatch
