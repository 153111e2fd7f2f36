// SPDX-License-Identifier: Apache-2.0
#include "daemon/state/saved_state.h"

#include <gmock/gmock.h>

#include "tests/fakes/fake_clock.h"
#include "tests/fakes/proc_tree.h"
#include "tests/unit/state/state_fixture.h"

namespace stackwatch {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class SavedStateTest : public StateTest {
 protected:
  SavedStateTest() { boot("11111111-2222-3333-4444-555555555555"); }
  void boot(const std::string& id) {
    std::filesystem::create_directories(tree_.root() + "/sys/kernel/random");
    std::ofstream(tree_.root() + "/sys/kernel/random/boot_id") << id << "\n";
  }
  /// A daemon that begins: its policy knows nothing yet.
  SavedState& start() {
    stop();
    policy_.emplace(AlertPolicyOptions{}, clock_, random_alert_ids(),
                    AlertContext{[](const ProcessKey&) { return ProcessIdentity{}; },
                                 [](const ProcessKey&, ProbeKind) { return Losses{}; }});
    detection_.emplace(DetectionPolicy{}, DetectorSettings{});
    journal_ = make_journal();
    auto opened = SavedState::open(directory_ + "/state", LimitsConfig{},
                                   {clock_, *policy_, *detection_, *journal_, Procfs(tree_.root())});
    if (!opened) throw std::runtime_error(opened.error().message());
    state_ = std::move(*opened);
    return *state_;
  }
  void stop() {
    state_.reset();
    journal_.reset();
  }
  [[nodiscard]] double now_s() const { return static_cast<double>(clock_.monotonic_ns()) * 1e-9; }
  std::vector<Alert> tick(std::vector<ProcessKey> exits = {}) {
    clock_.advance_s(1);
    auto changed = policy_->tick(now_s(), {}, exits);
    for (const Alert& each : changed) EXPECT_TRUE(state_->sink().publish(each));
    state_->tick();
    return changed;
  }

  FakeClock clock_;
  ProcTree tree_;
  std::optional<AlertPolicy> policy_;
  std::optional<Detection> detection_;
  std::unique_ptr<JournalSink> journal_;
  std::unique_ptr<SavedState> state_;
};

TEST_F(SavedStateTest, StandingAlertsGoOnAndResolvedOnesAreKnown) {
  start();
  ASSERT_TRUE(state_->sink().publish(alert("standing")));
  ASSERT_TRUE(state_->sink().publish(alert("over", AlertState::kResolved)));
  start();
  EXPECT_EQ(policy_->firing(), 1U);
  ASSERT_TRUE(policy_->find("over"));
  EXPECT_EQ(policy_->find("over")->state, AlertState::kResolved);
  EXPECT_EQ(policy_->find("standing")->stack, alert("standing").stack);
  EXPECT_THAT(state_->to_watch_again(), ElementsAre(alert("standing").process.key));
  EXPECT_THAT(tick(), IsEmpty());
  EXPECT_TRUE(policy_->concerns(alert("standing").process.key));
}

TEST_F(SavedStateTest, OneWhoseProcessIsGoneIsResolvedWithTheReason) {
  start();
  ASSERT_TRUE(state_->sink().publish(alert("standing")));
  start();
  const auto changed = tick({alert("standing").process.key});
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].state, AlertState::kResolved);
  EXPECT_EQ(changed[0].resolution, "the process ended while stackwatchd did not run");
  EXPECT_TRUE(soon([&] { return untold(state_->store()) == 0; }));  // ended before that, it would be told again
  start();
  EXPECT_EQ(policy_->firing(), 0U);
  EXPECT_THAT(entries(), ElementsAre("standing firing", "standing resolved"));
}

TEST_F(SavedStateTest, AfterABootAProcessOfTheSamePidAndStartIsAnotherOne) {
  start();
  ASSERT_TRUE(state_->sink().publish(alert("standing")));
  boot("99999999-2222-3333-4444-555555555555");
  start();
  EXPECT_THAT(state_->to_watch_again(), IsEmpty());
  const auto changed = tick();
  ASSERT_THAT(changed, SizeIs(1));
  EXPECT_EQ(changed[0].state, AlertState::kResolved);
}

TEST_F(SavedStateTest, HowAnAlertStandsIsSavedEveryTenSeconds) {
  start();
  ASSERT_TRUE(state_->sink().publish(alert("standing")));
  start();
  tick();
  const uint64_t written = [&] {
    EXPECT_TRUE(state_->store().flush(10));
    return state_->store().status().written;
  }();
  for (int i = 0; i < 10; ++i) tick();
  EXPECT_TRUE(state_->store().flush(10));
  EXPECT_GT(state_->store().status().written, written);
}

TEST_F(SavedStateTest, WhatWasLearnedIsWrittenAtTheEndAndReadAtTheStart) {
  const Baselines::Key key{"redis", ProbeKind::kOnCpu, "composition"};
  start();
  detection_->baselines().put(key, "learned");
  EXPECT_THAT(state_->take_events(), IsEmpty());
  start();
  EXPECT_EQ(detection_->baselines().get(key), "learned");
  EXPECT_THAT(state_->take_events(), IsEmpty());
}

TEST_F(SavedStateTest, ABaselineThatCannotBeReadIsToldOnceAndTheRestIsThere) {
  const Baselines::Key key{"redis", ProbeKind::kOnCpu, "composition"};
  start();
  detection_->baselines().put(key, "learned");
  ASSERT_TRUE(state_->store().put(Baseline{"nginx", 1, 1, {std::byte{9}}}));
  start();
  EXPECT_EQ(detection_->baselines().get(key), "learned");
  EXPECT_THAT(detection_->baselines().all(), SizeIs(1));
  EXPECT_THAT(state_->take_events(), SizeIs(1));
  EXPECT_THAT(state_->take_events(), IsEmpty());
}

TEST_F(SavedStateTest, ARowThatIsNoAlertIsPassedOver) {
  {
    auto file = StateFile::open(directory_ + "/state", {}, 1);
    ASSERT_TRUE(file);
    ASSERT_TRUE(file->file->put(
        StoredAlert{"broken", AlertState::kFiring, {1, 0}, boot_id_of(Procfs(tree_.root())), 1, 2, "{]"}));
    ASSERT_TRUE(file->file->put_to_tell(StoredAlert{"broken", AlertState::kFiring, {1, 0}, "b", 1, 2, "{]"}));
  }
  start();
  EXPECT_THAT(policy_->all(), IsEmpty());
  tick();
  EXPECT_TRUE(soon([&] { return untold(state_->store()) == 0; }));
  EXPECT_THAT(entries(), IsEmpty());
}

}  // namespace
}  // namespace stackwatch
