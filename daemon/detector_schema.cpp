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
  std::vector<DetectorSchema> schemas = {schema_of("composition", kComposition), schema_of("rate", kRate)};
  schemas[0].keys.push_back({"max_streams", Kind::kInteger, CompositionSettings{}.max_streams, 16, 8192});
  return schemas;
}

DetectorSettings detector_settings(const Config& config) {
  DetectorSettings settings;
  apply(config, "composition", kComposition, settings.composition);
  apply(config, "rate", kRate, settings.rate);
  if (const auto found = config.detectors.find("composition"); found != config.detectors.end()) {
    const auto streams = found->second.values.find("max_streams");
    if (streams != found->second.values.end())
      settings.composition.max_streams = static_cast<uint32_t>(streams->second);
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
