// SPDX-License-Identifier: Apache-2.0
#include "daemon/detector_schema.h"

#include <array>
#include <span>

#include "detectors/registry.h"

namespace stackwatch {
namespace {

using Kind = DetectorSchema::Kind;

template <class Settings>
struct Key {
  const char* name;
  Kind kind;
  double Settings::*value;
  double min;
  double max;
};

// The ranges are those that detectors/settings.h states; a test holds the two together.
constexpr std::array kComposition = {
    Key<CompositionSettings>{"learn", Kind::kDuration, &CompositionSettings::learn_s, 30, 86400},
    Key<CompositionSettings>{"quarantine", Kind::kDuration, &CompositionSettings::quarantine_s, 0, 240},
    Key<CompositionSettings>{"memory", Kind::kDuration, &CompositionSettings::memory_s, 300, 2592000},
    Key<CompositionSettings>{"persistence", Kind::kDuration, &CompositionSettings::persistence_s, 0, 240},
    Key<CompositionSettings>{"adopt_after", Kind::kDuration, &CompositionSettings::adopt_after_s, 60, 2592000},
    Key<CompositionSettings>{"min_relative_change", Kind::kNumber, &CompositionSettings::min_relative_change, 0, 10},
    Key<CompositionSettings>{"explains", Kind::kNumber, &CompositionSettings::explains, 0.5, 1},
};
constexpr std::array kRate = {
    Key<RateSettings>{"learn", Kind::kDuration, &RateSettings::learn_s, 30, 86400},
    Key<RateSettings>{"quarantine", Kind::kDuration, &RateSettings::quarantine_s, 0, 240},
    Key<RateSettings>{"memory", Kind::kDuration, &RateSettings::memory_s, 300, 2592000},
    Key<RateSettings>{"persistence", Kind::kDuration, &RateSettings::persistence_s, 0, 240},
    Key<RateSettings>{"adopt_after", Kind::kDuration, &RateSettings::adopt_after_s, 60, 2592000},
    Key<RateSettings>{"min_relative_change", Kind::kNumber, &RateSettings::min_relative_change, 0.1, 100},
    Key<RateSettings>{"min_change_cores", Kind::kNumber, &RateSettings::min_change_cores, 0, 4096},
    Key<RateSettings>{"min_starved_threads", Kind::kNumber, &RateSettings::min_starved_threads, 0.1, 4096},
};
constexpr std::array kWait = {
    Key<WaitSettings>{"learn", Kind::kDuration, &WaitSettings::learn_s, 30, 86400},
    Key<WaitSettings>{"quarantine", Kind::kDuration, &WaitSettings::quarantine_s, 0, 240},
    Key<WaitSettings>{"memory", Kind::kDuration, &WaitSettings::memory_s, 300, 2592000},
    Key<WaitSettings>{"persistence", Kind::kDuration, &WaitSettings::persistence_s, 0, 240},
    Key<WaitSettings>{"adopt_after", Kind::kDuration, &WaitSettings::adopt_after_s, 60, 2592000},
    Key<WaitSettings>{"min_relative_change", Kind::kNumber, &WaitSettings::min_relative_change, 0.1, 100},
    Key<WaitSettings>{"min_change_threads", Kind::kNumber, &WaitSettings::min_change_threads, 0.001, 4096},
};
constexpr std::array kLeak = {
    Key<LeakSettings>{"settle", Kind::kDuration, &LeakSettings::settle_s, 0, 86400},
    Key<LeakSettings>{"block", Kind::kDuration, &LeakSettings::block_s, 1, 3600},
    Key<LeakSettings>{"min_growth_mb", Kind::kNumber, &LeakSettings::min_growth_mb, 0.001, 1e6},
    Key<LeakSettings>{"min_relative", Kind::kNumber, &LeakSettings::min_relative, 0, 100},
};
constexpr std::array kNovelty = {
    Key<NoveltySettings>{"learn", Kind::kDuration, &NoveltySettings::learn_s, 120, 86400},
    Key<NoveltySettings>{"quarantine", Kind::kDuration, &NoveltySettings::quarantine_s, 30, 240},
    Key<NoveltySettings>{"memory", Kind::kDuration, &NoveltySettings::memory_s, 300, 2592000},
    Key<NoveltySettings>{"persistence", Kind::kDuration, &NoveltySettings::persistence_s, 0, 240},
    Key<NoveltySettings>{"adopt_after", Kind::kDuration, &NoveltySettings::adopt_after_s, 60, 2592000},
    Key<NoveltySettings>{"min_relative_change", Kind::kNumber, &NoveltySettings::min_relative_change, 0, 100},
};
constexpr std::array kSubspace = {
    Key<SubspaceSettings>{"learn", Kind::kDuration, &SubspaceSettings::learn_s, 60, 86400},
    Key<SubspaceSettings>{"memory", Kind::kDuration, &SubspaceSettings::memory_s, 300, 2592000},
    Key<SubspaceSettings>{"persistence", Kind::kDuration, &SubspaceSettings::persistence_s, 0, 240},
    Key<SubspaceSettings>{"adopt_after", Kind::kDuration, &SubspaceSettings::adopt_after_s, 60, 2592000},
    Key<SubspaceSettings>{"explained", Kind::kNumber, &SubspaceSettings::explained, 0.5, 0.999},
    Key<SubspaceSettings>{"min_relative_change", Kind::kNumber, &SubspaceSettings::min_relative_change, 0.1, 100},
};
constexpr std::array kPeers = {
    Key<PeersSettings>{"learn", Kind::kDuration, &PeersSettings::learn_s, 30, 86400},
    Key<PeersSettings>{"memory", Kind::kDuration, &PeersSettings::memory_s, 300, 2592000},
    Key<PeersSettings>{"persistence", Kind::kDuration, &PeersSettings::persistence_s, 0, 240},
    Key<PeersSettings>{"adopt_after", Kind::kDuration, &PeersSettings::adopt_after_s, 60, 2592000},
    Key<PeersSettings>{"min_change_cores", Kind::kNumber, &PeersSettings::min_change_cores, 0.001, 4096},
};

/// The few keys that are whole numbers.
struct IntegerKey {
  const char* detector;
  const char* name;
  uint32_t* (*value)(DetectorSettings&);
  double min;
  double max;
};
constexpr std::array kIntegers = {
    IntegerKey{"composition", "max_streams", [](DetectorSettings& s) { return &s.composition.max_streams; }, 16, 8192},
    IntegerKey{"wait", "max_streams", [](DetectorSettings& s) { return &s.wait.max_streams; }, 16, 8192},
    IntegerKey{"leak", "max_streams", [](DetectorSettings& s) { return &s.leak.max_streams; }, 16, 8192},
    IntegerKey{"peers", "min_siblings", [](DetectorSettings& s) { return &s.peers.min_siblings; }, 2, 1024},
};

template <class Settings, size_t N>
DetectorSchema schema_of(const char* name, const std::array<Key<Settings>, N>& keys) {
  const Settings defaults;
  DetectorSchema schema{.name = name, .enabled = defaults.enabled, .keys = {}};
  for (const auto& key : keys) schema.keys.push_back({key.name, key.kind, defaults.*key.value, key.min, key.max});
  return schema;
}

template <class Settings, size_t N>
void apply(const Config& config, const char* name, const std::array<Key<Settings>, N>& keys, Settings& settings) {
  const auto found = config.detectors.find(name);
  if (found == config.detectors.end()) return;
  settings.enabled = found->second.enabled;
  for (const auto& key : keys) {
    const auto value = found->second.values.find(key.name);
    if (value != found->second.values.end()) settings.*key.value = value->second;
  }
}

}  // namespace

std::vector<DetectorSchema> detector_schemas() {
  std::vector<DetectorSchema> schemas = {schema_of("composition", kComposition),
                                         schema_of("rate", kRate),
                                         schema_of("wait", kWait),
                                         schema_of("leak", kLeak),
                                         schema_of("novelty", kNovelty),
                                         schema_of("subspace", kSubspace),
                                         schema_of("peers", kPeers)};
  for (DetectorSchema& schema : schemas) {
    for (const IntegerKey& key : kIntegers) {
      if (schema.name != key.detector) continue;
      DetectorSettings defaults;
      schema.keys.push_back({key.name, Kind::kInteger, static_cast<double>(*key.value(defaults)), key.min, key.max});
    }
  }
  return schemas;
}

DetectorSettings detector_settings(const Config& config) {
  DetectorSettings settings;
  apply(config, "composition", kComposition, settings.composition);
  apply(config, "rate", kRate, settings.rate);
  apply(config, "wait", kWait, settings.wait);
  apply(config, "leak", kLeak, settings.leak);
  apply(config, "novelty", kNovelty, settings.novelty);
  apply(config, "subspace", kSubspace, settings.subspace);
  apply(config, "peers", kPeers, settings.peers);
  for (const IntegerKey& key : kIntegers) {
    const auto found = config.detectors.find(key.detector);
    if (found == config.detectors.end()) continue;
    const auto value = found->second.values.find(key.name);
    if (value != found->second.values.end()) *key.value(settings) = static_cast<uint32_t>(value->second);
  }
  return settings;
}

DetectionPolicy detection_policy(const Config& config) {
  DetectionPolicy policy;
  policy.false_alarms = config.alerts.false_alarms;
  policy.false_alarm_period_s = config.alerts.false_alarm_period_s;
  policy.tick_s = config.tick_s;
  policy.min_change_share = config.alerts.min_change_share;
  policy.min_change_cores = config.alerts.min_change_cores;
  return policy;
}

}  // namespace stackwatch
