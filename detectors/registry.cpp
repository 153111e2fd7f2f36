// SPDX-License-Identifier: Apache-2.0
#include "detectors/registry.h"

#include <array>

#include "detectors/composition.h"
#include "detectors/leak.h"
#include "detectors/novelty.h"
#include "detectors/peers.h"
#include "detectors/rate.h"
#include "detectors/subspace.h"
#include "detectors/wait.h"

namespace stackwatch {
namespace {

using Detectors = std::vector<std::unique_ptr<Detector>>;

/// One row per detector: adds those that make sense for a probe. A new one is a file pair, a struct of settings and a
/// row here.
struct Row {
  std::string_view name;
  void (*make)(ProbeKind, const DetectionPolicy&, const DetectorSettings&, Detectors&);
};

// Shares of on-CPU samples and of faults: amounts of time and bytes have no independent counts. And not of run_queue:
// where a process is when others take its CPU away is their doing, not its own.
void make_composition(ProbeKind probe, const DetectionPolicy& policy, const DetectorSettings& s, Detectors& out) {
  const bool wanted = probe == ProbeKind::kOnCpu || probe == ProbeKind::kPageFault;
  if (s.composition.enabled && wanted) out.push_back(std::make_unique<CompositionDetector>(policy, s.composition));
}

// Not the total of `blocked`: what threads do not compute they wait, so it changes with every change of load.
void make_rate(ProbeKind probe, const DetectionPolicy& policy, const DetectorSettings& s, Detectors& out) {
  if (!s.rate.enabled) return;
  const auto add = [&](RateMetric metric) { out.push_back(std::make_unique<RateDetector>(metric, policy, s.rate)); };
  if (probe == ProbeKind::kOnCpu) add(RateMetric::kCores);
  if (probe == ProbeKind::kPageFault) add(RateMetric::kFaults);
  if (probe != ProbeKind::kCensus) return;
  for (const auto metric : {RateMetric::kStarved, RateMetric::kSwitches, RateMetric::kAllFaults, RateMetric::kIo}) {
    add(metric);
  }
}

void make_wait(ProbeKind probe, const DetectionPolicy& policy, const DetectorSettings& s, Detectors& out) {
  if (s.wait.enabled && probe == ProbeKind::kBlocked) out.push_back(std::make_unique<WaitDetector>(policy, s.wait));
}

void make_leak(ProbeKind probe, const DetectionPolicy& policy, const DetectorSettings& s, Detectors& out) {
  const bool wanted = probe == ProbeKind::kMemory || probe == ProbeKind::kCensus;
  if (s.leak.enabled && wanted) out.push_back(std::make_unique<LeakDetector>(probe, policy, s.leak));
}

void make_novelty(ProbeKind probe, const DetectionPolicy& policy, const DetectorSettings& s, Detectors& out) {
  const bool wanted = probe == ProbeKind::kOnCpu || probe == ProbeKind::kPageFault;
  if (s.novelty.enabled && wanted) out.push_back(std::make_unique<NoveltyDetector>(policy, s.novelty));
}

void make_subspace(ProbeKind probe, const DetectionPolicy& policy, const DetectorSettings& s, Detectors& out) {
  if (s.subspace.enabled && probe == ProbeKind::kOnCpu) {
    out.push_back(std::make_unique<SubspaceDetector>(policy, s.subspace));
  }
}

// It sees all processes at once: made by whoever has them.
void make_peers(ProbeKind /*probe*/, const DetectionPolicy& /*policy*/, const DetectorSettings& /*s*/,
                Detectors& /*out*/) {}

constexpr std::array<Row, 7> kTable{{
    {CompositionDetector::kName, make_composition},
    {RateDetector::kName, make_rate},
    {WaitDetector::kName, make_wait},
    {LeakDetector::kName, make_leak},
    {NoveltyDetector::kName, make_novelty},
    {SubspaceDetector::kName, make_subspace},
    {PeersDetector::kName, make_peers},
}};

constexpr auto kNames = [] {
  std::array<std::string_view, kTable.size()> names;
  for (size_t i = 0; i < names.size(); ++i) names[i] = kTable[i].name;
  return names;
}();

}  // namespace

std::span<const std::string_view> detector_names() { return kNames; }

std::vector<std::unique_ptr<Detector>> make_detectors(ProbeKind probe, const DetectionPolicy& policy,
                                                      const DetectorSettings& settings) {
  std::vector<std::unique_ptr<Detector>> out;
  for (const Row& row : kTable) row.make(probe, policy, settings, out);
  return out;
}

}  // namespace stackwatch
