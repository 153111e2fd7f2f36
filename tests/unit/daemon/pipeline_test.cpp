// SPDX-License-Identifier: Apache-2.0
#include "daemon/pipeline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/fakes/fake_clock.h"
#include "tests/fakes/fake_sink.h"
#include "tests/fakes/fake_source.h"

namespace stackwatch {
namespace {

using ::testing::IsEmpty;

constexpr ProcessKey kRedis{4711, 10'000'000};
constexpr ProcessKey kNginx{99, 20'000'000};
const FakeSource::Counts kUsual = {{"parse", 80}, {"render", 20}};
const FakeSource::Counts kChanged = {{"parse", 40}, {"render", 60}};

class PipelineTest : public testing::Test {
 protected:
  PipelineTest() { pipeline_.add_sink(first_); }

  Pipeline::Outcome tick() {
    clock_.advance_s(1);
    auto outcome = pipeline_.tick();
    if (outcome) return std::move(*outcome);
    ADD_FAILURE() << outcome.error().message();
    return {};
  }
  void learn() {
    for (int i = 0; i < 120; ++i) ASSERT_THAT(tick().changed, IsEmpty());
  }
  /// Ticks until an alert fires or is resolved.
  Pipeline::Outcome next_change() {
    for (int i = 0; i < 300; ++i) {
      if (Pipeline::Outcome outcome = tick(); !outcome.changed.empty()) return outcome;
    }
    ADD_FAILURE() << "nothing happens";
    return {};
  }

  FakeClock clock_;
  FakeSource source_;
  DetectorSettings settings_ = [] {
    DetectorSettings settings;
    settings.rate.enabled = false;
    return settings;
  }();
  Detection detection_{DetectionPolicy{}, settings_};
  AlertPolicy policy_{{},
                      clock_,
                      sequential_alert_ids(),
                      {[this](const ProcessKey& process) { return source_.identify(process); },
                       [](const ProcessKey&, ProbeKind) { return Losses{}; }}};
  Pipeline pipeline_{source_, detection_, policy_};
  FakeSink first_{"first"};
  FakeSink second_{"second"};
};

TEST_F(PipelineTest, AnErrorOfTheSourceIsTheTicks) {
  source_.fail_with(Error{ErrorKind::kFailed, "take a census", "no", ""});
  const auto outcome = pipeline_.tick();
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().what, "take a census");
  source_.fail_with(std::nullopt);
  EXPECT_TRUE(pipeline_.tick());
}

TEST_F(PipelineTest, TheEndOfTheSourceIsTheEnd) {
  EXPECT_FALSE(tick().ended);
  source_.end();
  EXPECT_TRUE(tick().ended);
  EXPECT_TRUE(tick().ended);
}

TEST_F(PipelineTest, WithoutSinksAlertsAreStillToldToTheCaller) {
  Pipeline without{source_, detection_, policy_};
  source_.does(kRedis, kUsual);
  const auto run = [&](int ticks) {
    size_t changed = 0;
    for (int i = 0; i < ticks; ++i) {
      clock_.advance_s(1);
      const auto outcome = without.tick();
      changed += outcome ? outcome->changed.size() : 0;
    }
    return changed;
  };
  EXPECT_EQ(run(120), 0U);
  source_.does(kRedis, kChanged);
  EXPECT_EQ(run(60), 1U);
}

TEST_F(PipelineTest, EverySinkGetsEveryChangeOnce) {
  pipeline_.add_sink(second_);
  source_.does(kRedis, kUsual);
  learn();
  source_.does(kRedis, kChanged);
  const auto fired = next_change();
  ASSERT_EQ(fired.changed.size(), 1U);
  EXPECT_TRUE(fired.changed[0].is_firing());
  EXPECT_EQ(fired.changed[0].process.key, kRedis);
  EXPECT_THAT(fired.sink_errors, IsEmpty());
  source_.does(kRedis, kUsual);
  const auto resolved = next_change();
  ASSERT_EQ(resolved.changed.size(), 1U);
  EXPECT_EQ(resolved.changed[0].id, fired.changed[0].id);
  for (int i = 0; i < 30; ++i) tick();
  for (const FakeSink* sink : {&first_, &second_}) {
    ASSERT_EQ(sink->alerts().size(), 2U) << sink->name();
    EXPECT_EQ(sink->alerts()[0].state, AlertState::kFiring);
    EXPECT_EQ(sink->alerts()[1].state, AlertState::kResolved);
  }
}

TEST_F(PipelineTest, AnExitResolvesWithTheLastDeltaSeen) {
  source_.does(kRedis, kUsual);
  learn();
  source_.does(kRedis, kChanged);
  ASSERT_EQ(next_change().changed.size(), 1U);
  source_.exits(kRedis);
  const auto outcome = tick();
  ASSERT_EQ(outcome.changed.size(), 1U);
  EXPECT_EQ(outcome.changed[0].state, AlertState::kResolved);
  EXPECT_EQ(outcome.changed[0].resolution, "the process exited");
  EXPECT_EQ(detection_.streams(), 0U);
}

TEST_F(PipelineTest, AnotherProgramResolves) {
  source_.does(kRedis, kUsual);
  learn();
  source_.does(kRedis, kChanged);
  ASSERT_EQ(next_change().changed.size(), 1U);
  source_.replaces(kRedis);
  const auto outcome = tick();
  ASSERT_EQ(outcome.changed.size(), 1U);
  EXPECT_EQ(outcome.changed[0].resolution, "the process executes another program");
}

TEST_F(PipelineTest, ASinkThatFailsIsToldOnceUntilItWorksAgainAndDisturbsNobody) {
  pipeline_.add_sink(second_);
  first_.fail_with(Error{ErrorKind::kFailed, "write to the journal", "it is gone", ""});
  const auto change = [&](const FakeSource::Counts& counts) {
    source_.does(kRedis, counts);
    return next_change().sink_errors;
  };
  source_.does(kRedis, kUsual);
  learn();
  const auto first = change(kChanged);
  ASSERT_EQ(first.size(), 1U);
  EXPECT_EQ(first[0].why, "it is gone");
  EXPECT_THAT(change(kUsual), IsEmpty()) << "told already";
  EXPECT_EQ(second_.alerts().size(), 2U);

  first_.fail_with(std::nullopt);
  source_.does(kNginx, kUsual);
  for (int i = 0; i < 120; ++i) tick();
  source_.does(kNginx, kChanged);
  EXPECT_THAT(next_change().sink_errors, IsEmpty());
  EXPECT_EQ(first_.alerts().size(), 1U) << "it works again";
  first_.fail_with(Error{ErrorKind::kFailed, "write to the journal", "again", ""});
  source_.does(kNginx, kUsual);
  const auto again = next_change().sink_errors;
  ASSERT_EQ(again.size(), 1U);
  EXPECT_EQ(again[0].why, "again");
}

TEST_F(PipelineTest, WhatIsKnownNotToWorkIsNotToldAgain) {
  second_.fail_with(Error{ErrorKind::kFailed, "write", "there is no journal", ""});
  pipeline_.add_sink(second_, false);
  source_.does(kRedis, kUsual);
  learn();
  source_.does(kRedis, kChanged);
  EXPECT_THAT(next_change().sink_errors, IsEmpty());
  EXPECT_EQ(second_.tries(), 1) << "but tried";
}

}  // namespace
}  // namespace stackwatch
