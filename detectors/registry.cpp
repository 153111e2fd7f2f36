// SPDX-License-Identifier: Apache-2.0
#include "detectors/registry.h"

#include <array>

#include "detectors/composition.h"
#include "detectors/rate.h"

namespace stackwatch {
namespace {

/// One row per detector. A new one is a file pair, a struct of settings and a row here.
struct Row {
  std::string_view name;
  bool (*wanted)(ProbeKind, const DetectorSettings&);
  std::unique_ptr<Detector> (*make)(ProbeKind, const DetectionPolicy&, const DetectorSettings&);
};

constexpr std::array<Row, 2> kTable{{
    {CompositionDetector::kName,
     // Not for run_queue: where a process is when others take its CPU away is their doing, not its own.
     [](ProbeKind probe, const DetectorSettings& s) {
       return s.composition.enabled && probe != ProbeKind::kMemory && probe != ProbeKind::kRunQueue &&
              probe != ProbeKind::kCensus;
     },
     [](ProbeKind, const DetectionPolicy& policy, const DetectorSettings& s) -> std::unique_ptr<Detector> {
       return std::make_unique<CompositionDetector>(policy, s.composition);
     }},
    {RateDetector::kName,
     [](ProbeKind probe, const DetectorSettings& s) {
       return s.rate.enabled && probe != ProbeKind::kMemory && probe != ProbeKind::kCensus;
     },
     [](ProbeKind probe, const DetectionPolicy& policy, const DetectorSettings& s) -> std::unique_ptr<Detector> {
       return std::make_unique<RateDetector>(probe, policy, s.rate);
     }},
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
  for (const Row& row : kTable) {
    if (row.wanted(probe, settings)) out.push_back(row.make(probe, policy, settings));
  }
  return out;
}

}  // namespace stackwatch
