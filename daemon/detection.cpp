// SPDX-License-Identifier: Apache-2.0
#include "daemon/detection.h"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>

#include "core/kernel_entry.h"
#include "core/time_text.h"
#include "daemon/entitlement.h"

namespace stackwatch {
namespace {

/// Workers of one service have one name and one control group. Not one parent: a capture does not tell it, and a replay
/// must find the same siblings.
uint64_t service_of(const ProcessSample& sample) {
  const uint64_t name = std::hash<std::string_view>{}(sample.comm);
  const uint64_t group = std::hash<std::string_view>{}(sample.cgroup);
  return (name ^ (group * 0x9e3779b97f4a7c15ULL)) | 1;
}

PeerSample peer_sample(const CensusDelta& delta, const ProcessSample& sample) {
  return {.process = delta.process,
          .service = service_of(sample),
          .time_s = delta.time_s,
          .interval_s = delta.interval_s,
          .on_cpu_s = delta.on_cpu_s,
          .run_queue_s = delta.run_queue_s,
          .weight = Entitlement::weight(sample)};
}

int64_t local_time_of(const TickBatch& batch) {
  if (!batch.realtime_offset_ns || !std::isfinite(batch.time_s)) return -1;
  return local_seconds(*batch.realtime_offset_ns + static_cast<int64_t>(batch.time_s * 1e9));
}

/// What the kernel does under the name of a process that is throttled or crowded out, or no longer is; or who is named
/// for it, since the kernel's entry says nothing.
bool is_price_of_waiting(const Finding& finding, const Starvation& starvation, const NamedDelta& delta) {
  if (finding.probe != ProbeKind::kOnCpu || !finding.frame || delta.functions == nullptr) return false;
  return (finding.calls_kernel || is_in_kernel((*delta.functions)[*finding.frame].name)) &&
         starvation.explains(finding.onset_s, delta.time_s);
}

/// The path of a program is read a tick or two after attaching; what has none by then has none (a kernel thread).
constexpr int kIdentifyTicks = 10;

}  // namespace

std::vector<Observation> Detection::observe(const TickBatch& batch, const DeltaSource* source) {
  std::vector<Observation> observations;
  observations.reserve(2 * batch.deltas.size());
  for (const ProcessKey& process : batch.replaced) part_with(process);
  observe_census(batch, observations);
  observe_peers(observations);
  for (const NamedDelta& delta : batch.deltas) {
    observe_delta(delta, observations);
    if (source != nullptr) identify(processes_[delta.process], delta, *source);
  }
  for (const ProcessKey& process : batch.exits) part_with(process);
  for (const ProcessKey& process : batch.detached) part_with(process);
  share_budget();
  return observations;
}

// Before the deltas: what a probe's detector conditions on must be there when the delta comes.
void Detection::observe_census(const TickBatch& batch, std::vector<Observation>& observations) {
  peer_samples_.clear();
  const int64_t local_s = local_time_of(batch);
  for (const ProcessSample& sample : batch.samples) {
    const auto found = processes_.find(sample.key);
    if (found == processes_.end()) continue;
    Watched& watched = found->second;
    const double before_s = std::exchange(watched.last_census_s, batch.time_s);
    auto delta = before_s > 0 ? census_delta(watched.last_census, before_s, sample, batch.time_s) : std::nullopt;
    watched.last_census = sample;
    if (!delta) continue;
    delta->local_s = local_s;
    watched.starvation.observe(*delta);
    Observation& observation = observations.emplace_back();
    observation.process = sample.key;
    observation.probe = ProbeKind::kCensus;
    observation.time_s = batch.time_s;
    observation.functions = watched.functions;
    if (settings_.peers.enabled) peer_samples_.push_back(peer_sample(*delta, sample));
    detectors_of(watched, ProbeKind::kCensus);
    for (auto& [probe, detectors] : watched.probes) {
      for (const auto& detector : detectors) {
        auto finding = detector->observe_census(*delta);
        if (finding && probe == ProbeKind::kCensus) observation.findings.push_back(std::move(*finding));
      }
    }
  }
}

// So far there are census observations alone, in the same order as the samples.
void Detection::observe_peers(std::vector<Observation>& observations) {
  auto observation = observations.begin();
  for (auto& found : peers_.observe(peer_samples_)) {
    observation = std::find_if(observation, observations.end(),
                               [&found](const Observation& each) { return each.process == found.first; });
    if (observation == observations.end()) return;
    observation->findings.push_back(std::move(found.second));
  }
}

void Detection::observe_delta(const NamedDelta& delta, std::vector<Observation>& observations) {
  Watched& watched = processes_[delta.process];
  watched.functions = delta.functions;
  Observation& observation = observations.emplace_back();
  observation.process = delta.process;
  observation.probe = delta.probe;
  observation.time_s = delta.time_s;
  observation.stacks = delta.stacks;
  observation.functions = delta.functions;
  for (const auto& detector : detectors_of(watched, delta.probe)) {
    const auto add = [&](Finding finding) {
      if (!is_price_of_waiting(finding, watched.starvation, delta)) observation.findings.push_back(std::move(finding));
    };
    if (auto finding = detector->observe(delta)) {
      add(std::move(*finding));
      for (Finding& other : detector->further()) add(std::move(other));
    }
  }
}

Detection::Detectors& Detection::detectors_of(Watched& watched, ProbeKind probe) {
  const auto [entry, is_new] = watched.probes.try_emplace(probe);
  if (is_new) {
    entry->second = make_detectors(probe, policy_, settings_);
    inherit(watched, probe, entry->second);
  }
  return entry->second;
}

void Detection::identify(Watched& watched, const NamedDelta& delta, const DeltaSource& source) {
  if (!watched.service.empty() || watched.unidentified_ticks >= kIdentifyTicks) return;
  watched.service = Baselines::service_of(source.identify(delta.process));
  if (watched.service.empty()) {
    ++watched.unidentified_ticks;
    return;
  }
  if (++members_[watched.service] > 1) baselines_.share(watched.service);
  for (auto& [probe, detectors] : watched.probes) inherit(watched, probe, detectors);
  inherit_starvation(watched, delta.time_s);
}

void Detection::inherit(const Watched& watched, ProbeKind probe, Detectors& detectors) {
  if (watched.service.empty()) return;
  for (const auto& detector : detectors) {
    const std::string_view saved = baselines_.get({watched.service, probe, std::string(detector->heritage_name())});
    if (!saved.empty() && !detector->restore(saved)) ++refused_;
  }
}

// With the census, which it is made of.
void Detection::inherit_starvation(Watched& watched, double now_s) {
  const std::string_view saved =
      baselines_.get({watched.service, ProbeKind::kCensus, std::string(Starvation::kHeritageName)});
  if (!saved.empty() && !watched.starvation.restore(saved, now_s)) ++refused_;
}

void Detection::keep(const Watched& watched) {
  if (watched.service.empty() || baselines_.is_shared(watched.service)) return;
  bool any = false;
  for (const auto& [probe, detectors] : watched.probes) {
    for (const auto& detector : detectors) {
      std::string saved = detector->save();
      if (saved.empty()) continue;
      baselines_.put({watched.service, probe, std::string(detector->heritage_name())}, std::move(saved));
      any = true;
    }
  }
  // By itself it says nothing.
  std::string waits = any ? watched.starvation.save() : std::string();
  if (waits.empty()) return;
  baselines_.put({watched.service, ProbeKind::kCensus, std::string(Starvation::kHeritageName)}, std::move(waits));
}

std::vector<ProcessKey> Detection::watched() const {
  std::vector<ProcessKey> all;
  all.reserve(processes_.size());
  for (const auto& [process, watched] : processes_) all.push_back(process);
  return all;
}

void Detection::keep(const ProcessKey& process) {
  if (const auto found = processes_.find(process); found != processes_.end()) keep(found->second);
}

bool Detection::remembers(const ProcessKey& process, ProbeKind probe, std::string_view detector) const {
  return all_say(process, probe, detector, &Detector::remembers);
}

bool Detection::remembers_each(const ProcessKey& process, ProbeKind probe, std::string_view detector) const {
  return all_say(process, probe, detector, &Detector::remembers_each);
}

bool Detection::all_say(const ProcessKey& process, ProbeKind probe, std::string_view detector,
                        bool (Detector::*question)() const) const {
  const auto watched = processes_.find(process);
  if (watched == processes_.end()) return false;
  const auto detectors = watched->second.probes.find(probe);
  if (detectors == watched->second.probes.end()) return false;
  bool any = false;
  for (const auto& each : detectors->second) {
    if (each->name() != detector) continue;
    if (!(*each.*question)()) return false;
    any = true;
  }
  return any;
}

void Detection::part_with(const ProcessKey& process) {
  const auto found = processes_.find(process);
  if (found == processes_.end()) return;
  keep(found->second);
  if (const auto members = members_.find(found->second.service); members != members_.end()) {
    if (--members->second == 0) members_.erase(members);
  }
  processes_.erase(found);
}

template <class Action>
void Detection::for_each_detector(const Action& action) {
  for (const auto& [process, watched] : processes_) {
    for (const auto& [probe, detectors] : watched.probes) {
      for (const auto& detector : detectors) action(*detector);
    }
  }
}

// The false-alarm budget is the host's: the more series are tested, the more evidence each one needs.
void Detection::share_budget() {
  size_t streams = 0;
  for_each_detector([&streams](const Detector& detector) { streams += detector.streams(); });
  streams += peers_.streams();
  streams_ = streams;
  // Thresholds go with the logarithm: a change of less than a tenth moves them by less than 0.1.
  const double now = std::max(1000.0, static_cast<double>(streams));
  if (std::abs(now - policy_.expected_streams) < policy_.expected_streams / 10) return;
  policy_.expected_streams = now;
  configure(policy_, settings_);
}

void Detection::configure(const DetectionPolicy& policy, const DetectorSettings& settings) {
  const double streams = policy_.expected_streams;
  policy_ = policy;
  policy_.expected_streams = std::max(policy.expected_streams, streams);
  settings_ = settings;
  for_each_detector([this](Detector& detector) { detector.set_policy(policy_); });
  peers_.set_policy(policy_);
}

}  // namespace stackwatch
