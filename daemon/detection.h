// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/census_delta.h"
#include "core/process.h"
#include "daemon/alerting/alert_policy.h"
#include "daemon/baselines.h"
#include "daemon/delta_source.h"
#include "detectors/peers.h"
#include "detectors/registry.h"
#include "detectors/starvation.h"

namespace stackwatch {

/// The detectors of all watched processes: each process has its own, each probe of it too, and one set for its census.
/// A process is watched from its first delta on. One thread.
class Detection {
 public:
  Detection(const DetectionPolicy& policy, const DetectorSettings& settings)
      : policy_(policy), settings_(settings), peers_(policy, settings.peers) {}

  /// What the detectors say about a batch: one observation per delta, and one per census of a watched process.
  /// Processes that ended or were detached lose their detectors afterwards. With a `source`, which knows what service a
  /// process belongs to, what they had learned is kept for their successors, and a process that begins to be watched
  /// takes over what its predecessor had learned.
  [[nodiscard]] std::vector<Observation> observe(const TickBatch& batch, const DeltaSource* source = nullptr);

  /// The policy takes effect at once and forgets nothing; settings are for detectors made from now on.
  void configure(const DetectionPolicy& policy, const DetectorSettings& settings);
  [[nodiscard]] size_t streams() const { return streams_; }
  /// What was learned about services: state/baseline_keeper.h keeps it over a restart of the daemon.
  [[nodiscard]] Baselines& baselines() { return baselines_; }
  [[nodiscard]] std::vector<ProcessKey> watched() const;
  /// Brings what was learned about a process into baselines(), as if it had ended now. Nothing where it is not watched.
  void keep(const ProcessKey& process);
  /// Whether this detector of the process judges by a past from before it, or from before the daemon was restarted.
  [[nodiscard]] bool remembers(const ProcessKey& process, ProbeKind probe, std::string_view detector) const;
  /// Whether it judges each change by itself that stood in that past.
  [[nodiscard]] bool remembers_each(const ProcessKey& process, ProbeKind probe, std::string_view detector) const;
  /// Baselines that a detector would not take: another version's, or damaged. It learns anew.
  [[nodiscard]] uint64_t refused() const { return refused_; }

 private:
  using Detectors = std::vector<std::unique_ptr<Detector>>;
  struct Watched {
    std::unordered_map<ProbeKind, Detectors> probes;
    ProcessSample last_census;
    double last_census_s = 0;  ///< 0: there was none yet
    Starvation starvation;
    const FunctionTable* functions = nullptr;
    std::string service;  ///< empty: not known
    int unidentified_ticks = 0;
  };
  void identify(Watched& watched, const NamedDelta& delta, const DeltaSource& source);
  void inherit(const Watched& watched, ProbeKind probe, Detectors& detectors);
  void inherit_starvation(Watched& watched, double now_s);
  void keep(const Watched& watched);
  void part_with(const ProcessKey& process);
  void observe_census(const TickBatch& batch, std::vector<Observation>& observations);
  void observe_peers(std::vector<Observation>& observations);
  void observe_delta(const NamedDelta& delta, std::vector<Observation>& observations);
  Detectors& detectors_of(Watched& watched, ProbeKind probe);
  /// Of several detectors of one name an alert does not tell which: whether all say so.
  [[nodiscard]] bool all_say(const ProcessKey& process, ProbeKind probe, std::string_view detector,
                             bool (Detector::*question)() const) const;
  template <class Action>
  void for_each_detector(const Action& action);
  void share_budget();

  DetectionPolicy policy_;
  DetectorSettings settings_;
  std::unordered_map<ProcessKey, Watched> processes_;
  Baselines baselines_;
  std::unordered_map<std::string, size_t> members_;  // watched processes of each service
  PeersDetector peers_;
  std::vector<PeerSample> peer_samples_;  // of the tick at hand
  size_t streams_ = 0;
  uint64_t refused_ = 0;
};

}  // namespace stackwatch
