// SPDX-License-Identifier: Apache-2.0
#include "daemon/detector_schema.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "detectors/registry.h"

namespace stackwatch {
namespace {

using Kind = DetectorSchema::Kind;

/// A configuration as config/ makes it: every key of every detector has a value.
Config configuration() {
  Config config;
  for (const DetectorSchema& schema : detector_schemas()) {
    DetectorConfig& detector = config.detectors[schema.name];
    detector.enabled = schema.enabled;
    for (const auto& key : schema.keys) detector.values[key.name] = key.default_value;
  }
  return config;
}

Result<void> check(const std::string& detector, const std::string& key, double value) {
  Config config = configuration();
  config.detectors[detector].values[key] = value;
  return validate(detector_settings(config));
}

template <class Check>
void for_each_key(const Check& check_key) {
  for (const DetectorSchema& schema : detector_schemas()) {
    for (const auto& key : schema.keys) {
      SCOPED_TRACE(schema.name + "." + key.name);
      check_key(schema, key);
    }
  }
}

TEST(DetectorSchema, JustOutsideOfARangeIsRefusedAndTheKeyIsNamed) {
  for_each_key([](const DetectorSchema& schema, const DetectorSchema::Key& key) {
    const bool is_integer = key.kind == Kind::kInteger;
    const double below = is_integer ? key.min - 1 : std::nextafter(key.min, -std::numeric_limits<double>::infinity());
    const double above = is_integer ? key.max + 1 : std::nextafter(key.max, std::numeric_limits<double>::infinity());
    for (const double value : {below, above}) {
      const auto checked = check(schema.name, key.name, value);
      ASSERT_FALSE(checked) << value;
      EXPECT_EQ(checked.error().what, "[detectors." + schema.name + "] " + key.name);
    }
  });
}

TEST(DetectorSchema, BothEndsOfARangeAreInIt) {
  for_each_key([](const DetectorSchema& schema, const DetectorSchema::Key& key) {
    ASSERT_LT(key.min, key.max);
    EXPECT_TRUE(check(schema.name, key.name, key.min));
    EXPECT_TRUE(check(schema.name, key.name, key.max));
    EXPECT_GE(key.default_value, key.min);
    EXPECT_LE(key.default_value, key.max);
  });
}

TEST(DetectorSchema, HasEveryDetectorAndEveryKeyOnce) {
  std::set<std::string> names;
  for (const DetectorSchema& schema : detector_schemas()) {
    EXPECT_TRUE(names.insert(schema.name).second);
    std::set<std::string> keys;
    for (const auto& key : schema.keys) EXPECT_TRUE(keys.insert(key.name).second) << key.name;
  }
  std::set<std::string> known;
  for (const std::string_view name : detector_names()) known.emplace(name);
  EXPECT_EQ(names, known);
}

TEST(DetectorSchema, NoSettingIsLeftOut) {
  // A setting that is added to one of these does not compile here before it has a key.
  [[maybe_unused]] const auto [composition_enabled, c1, c2, c3, c4, c5, c6, c7, c8] = CompositionSettings{};
  [[maybe_unused]] const auto [rate_enabled, r1, r2, r3, r4, r5, r6, r7, r8] = RateSettings{};
  [[maybe_unused]] const auto [wait_enabled, w1, w2, w3, w4, w5, w6, w7, w8] = WaitSettings{};
  [[maybe_unused]] const auto [leak_enabled, l1, l2, l3, l4, l5] = LeakSettings{};
  [[maybe_unused]] const auto [novelty_enabled, n1, n2, n3, n4, n5, n6] = NoveltySettings{};
  [[maybe_unused]] const auto [subspace_enabled, s1, s2, s3, s4, s5, s6] = SubspaceSettings{};
  [[maybe_unused]] const auto [peers_enabled, p1, p2, p3, p4, p5, p6] = PeersSettings{};
  const auto schemas = detector_schemas();
  ASSERT_EQ(schemas.size(), 7U);
  EXPECT_EQ(schemas[0].keys.size(), 8U);
  EXPECT_EQ(schemas[1].keys.size(), 8U);
  EXPECT_EQ(schemas[2].keys.size(), 8U);
  EXPECT_EQ(schemas[3].keys.size(), 5U);
  EXPECT_EQ(schemas[4].keys.size(), 6U);
  EXPECT_EQ(schemas[5].keys.size(), 6U);
  EXPECT_EQ(schemas[6].keys.size(), 6U);
  EXPECT_EQ(schemas[0].enabled, composition_enabled);
  EXPECT_EQ(schemas[1].enabled, rate_enabled);
  EXPECT_EQ(schemas[2].enabled, wait_enabled);
  EXPECT_EQ(schemas[3].enabled, leak_enabled);
  EXPECT_EQ(schemas[4].enabled, novelty_enabled);
  EXPECT_EQ(schemas[5].enabled, subspace_enabled);
  EXPECT_EQ(schemas[6].enabled, peers_enabled);
}

void expect_defaults(const DetectorSettings& settings) {
  const CompositionSettings c;
  const CompositionSettings& composition = settings.composition;
  EXPECT_EQ(composition.enabled, c.enabled);
  EXPECT_EQ(composition.learn_s, c.learn_s);
  EXPECT_EQ(composition.quarantine_s, c.quarantine_s);
  EXPECT_EQ(composition.memory_s, c.memory_s);
  EXPECT_EQ(composition.persistence_s, c.persistence_s);
  EXPECT_EQ(composition.adopt_after_s, c.adopt_after_s);
  EXPECT_EQ(composition.min_relative_change, c.min_relative_change);
  EXPECT_EQ(composition.explains, c.explains);
  EXPECT_EQ(composition.max_streams, c.max_streams);
  const RateSettings r;
  const RateSettings& rate = settings.rate;
  EXPECT_EQ(rate.enabled, r.enabled);
  EXPECT_EQ(rate.learn_s, r.learn_s);
  EXPECT_EQ(rate.quarantine_s, r.quarantine_s);
  EXPECT_EQ(rate.memory_s, r.memory_s);
  EXPECT_EQ(rate.persistence_s, r.persistence_s);
  EXPECT_EQ(rate.adopt_after_s, r.adopt_after_s);
  EXPECT_EQ(rate.min_relative_change, r.min_relative_change);
  EXPECT_EQ(rate.min_change_cores, r.min_change_cores);
}

TEST(DetectorSettingsOf, AConfigurationThatSaysNothingMeansTheDefaults) {
  expect_defaults(detector_settings(Config{}));
  Config empty_tables;
  empty_tables.detectors["composition"] = {};
  empty_tables.detectors["rate"] = {};
  expect_defaults(detector_settings(empty_tables));
}

TEST(DetectorSettingsOf, TheSchemasDefaultsAreTheDetectors) { expect_defaults(detector_settings(configuration())); }

TEST(DetectorSettingsOf, EveryValueArrivesWhereItBelongs) {
  Config config = configuration();
  config.detectors["composition"] = {.enabled = false,
                                     .values = {{"learn", 101},
                                                {"quarantine", 102},
                                                {"memory", 1003},
                                                {"persistence", 104},
                                                {"adopt_after", 105},
                                                {"min_relative_change", 6},
                                                {"explains", 0.7},
                                                {"max_streams", 108}}};
  config.detectors["rate"] = {.enabled = false,
                              .values = {{"learn", 201},
                                         {"quarantine", 202},
                                         {"memory", 2003},
                                         {"persistence", 204},
                                         {"adopt_after", 205},
                                         {"min_relative_change", 26},
                                         {"min_change_cores", 27}}};
  const DetectorSettings settings = detector_settings(config);
  EXPECT_TRUE(validate(settings));
  EXPECT_FALSE(settings.composition.enabled);
  EXPECT_EQ(settings.composition.learn_s, 101);
  EXPECT_EQ(settings.composition.quarantine_s, 102);
  EXPECT_EQ(settings.composition.memory_s, 1003);
  EXPECT_EQ(settings.composition.persistence_s, 104);
  EXPECT_EQ(settings.composition.adopt_after_s, 105);
  EXPECT_EQ(settings.composition.min_relative_change, 6);
  EXPECT_EQ(settings.composition.explains, 0.7);
  EXPECT_EQ(settings.composition.max_streams, 108U);
  EXPECT_FALSE(settings.rate.enabled);
  EXPECT_EQ(settings.rate.learn_s, 201);
  EXPECT_EQ(settings.rate.quarantine_s, 202);
  EXPECT_EQ(settings.rate.memory_s, 2003);
  EXPECT_EQ(settings.rate.persistence_s, 204);
  EXPECT_EQ(settings.rate.adopt_after_s, 205);
  EXPECT_EQ(settings.rate.min_relative_change, 26);
  EXPECT_EQ(settings.rate.min_change_cores, 27);
}

TEST(DetectionPolicyOf, TheConfigurationsBudgetAndSizes) {
  Config config;
  config.tick_s = 2;
  config.alerts.false_alarms = 3;
  config.alerts.false_alarm_period_s = 86400;
  config.alerts.min_change_share = 0.07;
  config.alerts.min_change_cores = 0.3;
  const DetectionPolicy policy = detection_policy(config);
  EXPECT_EQ(policy.tick_s, 2);
  EXPECT_EQ(policy.false_alarms, 3);
  EXPECT_EQ(policy.false_alarm_period_s, 86400);
  EXPECT_EQ(policy.min_change_share, 0.07);
  EXPECT_EQ(policy.min_change_cores, 0.3);
}

TEST(DetectionPolicyOf, BuiltInDefaultsAreTheSameOnBothSides) {
  const DetectionPolicy policy = detection_policy(Config{});
  const DetectionPolicy defaults;
  EXPECT_EQ(policy.tick_s, defaults.tick_s);
  EXPECT_EQ(policy.false_alarms, defaults.false_alarms);
  EXPECT_EQ(policy.false_alarm_period_s, defaults.false_alarm_period_s);
  EXPECT_EQ(policy.min_change_share, defaults.min_change_share);
  EXPECT_EQ(policy.min_change_cores, defaults.min_change_cores);
}

}  // namespace
}  // namespace stackwatch
