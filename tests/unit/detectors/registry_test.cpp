// SPDX-License-Identifier: Apache-2.0
#include "detectors/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <set>
#include <string_view>

namespace stackwatch {
namespace {

std::vector<std::string_view> names(const std::vector<std::unique_ptr<Detector>>& detectors) {
  std::vector<std::string_view> out;
  for (const auto& detector : detectors) out.push_back(detector->name());
  return out;
}

TEST(Settings, EveryKeyIsRefusedOutsideOfItsRange) {
  EXPECT_TRUE(validate({}));
  const auto refused = [](auto change, std::string_view key) {
    DetectorSettings settings;
    change(settings);
    const auto result = validate(settings);
    ASSERT_FALSE(result) << key;
    EXPECT_EQ(result.error().what, key);
    EXPECT_EQ(result.error().kind, ErrorKind::kUsage);
    EXPECT_THAT(result.error().hint, testing::StartsWith("between "));
  };
  refused([](auto& s) { s.composition.learn_s = 29; }, "[detectors.composition] learn");
  refused([](auto& s) { s.composition.quarantine_s = -1; }, "[detectors.composition] quarantine");
  refused([](auto& s) { s.composition.memory_s = 0; }, "[detectors.composition] memory");
  refused([](auto& s) { s.composition.persistence_s = 241; }, "[detectors.composition] persistence");
  refused([](auto& s) { s.composition.adopt_after_s = 59; }, "[detectors.composition] adopt_after");
  refused([](auto& s) { s.composition.min_relative_change = std::numeric_limits<double>::quiet_NaN(); },
          "[detectors.composition] min_relative_change");
  refused([](auto& s) { s.composition.explains = 1.1; }, "[detectors.composition] explains");
  refused([](auto& s) { s.composition.max_streams = 1; }, "[detectors.composition] max_streams");
  refused([](auto& s) { s.rate.learn_s = 1e9; }, "[detectors.rate] learn");
  refused([](auto& s) { s.rate.quarantine_s = 1000; }, "[detectors.rate] quarantine");
  refused([](auto& s) { s.rate.memory_s = std::numeric_limits<double>::infinity(); }, "[detectors.rate] memory");
  refused([](auto& s) { s.rate.persistence_s = -0.1; }, "[detectors.rate] persistence");
  refused([](auto& s) { s.rate.adopt_after_s = 0; }, "[detectors.rate] adopt_after");
  refused([](auto& s) { s.rate.min_relative_change = 0; }, "[detectors.rate] min_relative_change");
  refused([](auto& s) { s.rate.min_change_cores = -1; }, "[detectors.rate] min_change_cores");
  refused([](auto& s) { s.rate.min_starved_threads = 0; }, "[detectors.rate] min_starved_threads");
  refused([](auto& s) { s.wait.learn_s = 0; }, "[detectors.wait] learn");
  refused([](auto& s) { s.wait.max_streams = 9000; }, "[detectors.wait] max_streams");
  refused([](auto& s) { s.leak.block_s = 0; }, "[detectors.leak] block");
  refused([](auto& s) { s.leak.min_growth_mb = 0; }, "[detectors.leak] min_growth_mb");
  refused([](auto& s) { s.novelty.quarantine_s = 10; }, "[detectors.novelty] quarantine");
  refused([](auto& s) { s.subspace.explained = 1; }, "[detectors.subspace] explained");
  refused([](auto& s) { s.peers.min_siblings = 1; }, "[detectors.peers] min_siblings");
}

TEST(Registry, NamesAreThoseOfTheDetectors) {
  using testing::ElementsAre;
  EXPECT_THAT(detector_names(), ElementsAre("composition", "rate", "wait", "leak", "novelty", "subspace", "peers"));
  EXPECT_THAT(names(make_detectors(ProbeKind::kOnCpu, {})), ElementsAre("composition", "rate"));
  EXPECT_THAT(names(make_detectors(ProbeKind::kPageFault, {})), ElementsAre("composition", "rate"));
  EXPECT_THAT(names(make_detectors(ProbeKind::kBlocked, {})), ElementsAre("wait"));
  EXPECT_THAT(names(make_detectors(ProbeKind::kMemory, {})), ElementsAre("leak"));
  EXPECT_THAT(names(make_detectors(ProbeKind::kCensus, {})), ElementsAre("rate", "rate", "rate", "rate", "leak"));
}

TEST(Registry, WhatIsKeptForSuccessorsHasANameOfItsOwn) {
  for (const auto probe : {ProbeKind::kOnCpu, ProbeKind::kPageFault, ProbeKind::kBlocked, ProbeKind::kCensus}) {
    std::set<std::string_view> seen;
    for (const auto& detector : make_detectors(probe, {})) {
      EXPECT_TRUE(seen.insert(detector->heritage_name()).second) << detector->heritage_name();
    }
  }
}

TEST(Registry, WaitingForACpuIsTheMachinesDoing) { EXPECT_TRUE(make_detectors(ProbeKind::kRunQueue, {}).empty()); }

TEST(Registry, EachCanBeTurnedOnAndOff) {
  DetectorSettings settings;
  settings.composition.enabled = settings.rate.enabled = settings.wait.enabled = settings.leak.enabled = false;
  for (const auto probe : {ProbeKind::kOnCpu, ProbeKind::kBlocked, ProbeKind::kMemory, ProbeKind::kCensus}) {
    EXPECT_TRUE(make_detectors(probe, {}, settings).empty());
  }
  settings.novelty.enabled = settings.subspace.enabled = true;
  EXPECT_THAT(names(make_detectors(ProbeKind::kOnCpu, {}, settings)), testing::ElementsAre("novelty", "subspace"));
}

}  // namespace
}  // namespace stackwatch
