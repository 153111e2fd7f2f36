// SPDX-License-Identifier: Apache-2.0
// Alerts that outlive the daemon: docs/alerts.md, "Restarts".
#include <algorithm>
#include <cmath>
#include <utility>

#include "daemon/alerting/alert_policy.h"
#include "daemon/alerting/causes.h"
#include "daemon/alerting/message.h"

namespace stackwatch {
namespace {

/// From the start of the daemon to the first counts of a process whose alert stands: it is attached at the first tick.
/// Names may take some seconds, a loaded machine some more.
constexpr double kRestoredPatienceS = 60;

/// A change was seen once within some time. Not seen again within twice as long, by the same past, it is over; but a
/// large one that was seen at once may have been a lucky one.
constexpr double kSeenAgainFactor = 2;
constexpr double kSeenAgainAtLeastS = 120;

double seconds_of(uint64_t realtime_ns, int64_t offset_ns) {
  return static_cast<double>(static_cast<int64_t>(realtime_ns) - offset_ns) * 1e-9;
}

// As it was told: a stranger's table may lack the id.
std::string_view name_of(const Finding& finding, const Observation& observation) {
  const FunctionTable* functions = observation.functions;
  const bool known = finding.frame && functions != nullptr && finding.frame->value < functions->size();
  return known ? std::string_view((*functions)[*finding.frame].name) : std::string_view();
}

}  // namespace

AlertRecord restored_record(const Alert& alert, double time_s, int64_t offset_ns) {
  AlertRecord record;
  record.alert = alert;
  record.restored = true;
  record.first_s = seconds_of(alert.opened_ns, offset_ns);
  record.onset_s = seconds_of(alert.onset_ns, offset_ns);
  record.seen_s = time_s;  // its patience begins now
  record.restored_s = time_s;
  // They join again as they are found again.
  for (Alert::Part& part : record.alert.parts) part.stands = false;
  record.resolved_s = seconds_of(alert.resolved_ns.value_or(alert.updated_ns), offset_ns);
  record.realtime_offset_ns = offset_ns;
  record.largest_change = record.told_change = std::abs(alert.after - alert.before);
  record.told_s = time_s;
  return record;
}

void AlertPolicy::restore(std::span<const Alert> alerts, const std::function<bool(const Alert&)>& lives, double time_s,
                          int64_t realtime_offset_ns) {
  for (auto next = alerts.rbegin(); next != alerts.rend(); ++next) {
    const Alert& alert = *next;
    if (alert.state == AlertState::kPending || find(alert.id)) continue;
    AlertRecord record = restored_record(alert, time_s, realtime_offset_ns);
    record.sequence = next_sequence_++;
    if (alert.state == AlertState::kResolved) {
      history_.push_front(std::move(record));
      history_bytes_ += bytes_of(history_.front());
    } else if (active_.size() < options_.active_per_host) {
      active_.push_back(std::move(record));
      ++active_per_process_[alert.process.key];
      if (lives(alert)) {
        restore_members(active_.back(), time_s, realtime_offset_ns);
      } else {
        gone_.push_back(std::prev(active_.end()));
      }
    }
  }
  // The cooldown looks at the one resolved last first.
  history_.sort([](const AlertRecord& a, const AlertRecord& b) { return a.resolved_s > b.resolved_s; });
  bound_history();
}

std::vector<Alert> AlertPolicy::standing() const {
  std::vector<Alert> standing;
  for (const AlertRecord& record : active_) {
    if (record.alert.is_firing() && !record.is_hidden()) standing.push_back(record.alert);
  }
  return standing;
}

void AlertPolicy::end_gone(double time_s) {
  for (const auto record : std::exchange(gone_, {})) resolve(record, time_s, kGoneMeanwhile);
}

// A finding about what the alert names says that it goes on; one that says the opposite, from detectors that know no
// other past than the alert's present, says that it is over.
void AlertPolicy::adopt_restored(const Observation& observation) {
  for (const auto it : active_of(observation.process)) {
    AlertRecord& record = *it;
    if (!record.restored || record.alert.probe != observation.probe) continue;
    bool over = false;
    for (const Finding& finding : observation.findings) {
      if (finding.probe != observation.probe || finding.unit_of_measure != record.alert.unit_of_measure ||
          name_of(finding, observation) != record.alert.frame) {
        continue;
      }
      if ((finding.after >= finding.before) != record.grows()) {
        over = true;
      } else {
        record.restored = false;
        record.told_onset_s = record.onset_s;
        record.frame = finding.frame;
      }
      break;
    }
    if (record.own_over) continue;
    if (over) {
      end(it, observation.time_s, kBackToBaseline);
    } else if (record.restored) {
      note_silence(record, observation);
    }
  }
}

// While a detector tells another change of the process, its silence says nothing about this one, unless it follows
// each: most tell one at a time.
void AlertPolicy::note_silence(AlertRecord& record, const Observation& observation) const {
  const std::string_view detector = record.alert.detector;
  const bool tells_another =
      std::ranges::any_of(observation.findings, [&](const Finding& finding) { return finding.detector == detector; });
  const auto& remembers = tells_another ? context_.remembers_each : context_.remembers;
  if (!remembers(observation.process, observation.probe, detector)) {
    record.silent_since_s = 0;
  } else if (record.silent_since_s == 0) {
    record.silent_since_s = observation.time_s;
  }
}

// Detectors that have forgotten what was normal before say nothing by their silence, until the alert is so old that
// they would have taken it for normal.
void AlertPolicy::end_silent_restored(Records::iterator record, double time_s) {
  const double again_s = std::max(kSeenAgainAtLeastS, kSeenAgainFactor * (record->first_s - record->onset_s));
  if (time_s - std::max(record->observed_s, record->seen_s) >= kRestoredPatienceS) {
    end(record, time_s, kNotWatched);
  } else if (record->silent_since_s > 0 && time_s - record->silent_since_s >= again_s) {
    end(record, time_s, kBackToBaseline);
  } else if (time_s - record->onset_s >= options_.adopt_after_s) {
    end(record, time_s, kCountsAsNormal);
  }
}

}  // namespace stackwatch
