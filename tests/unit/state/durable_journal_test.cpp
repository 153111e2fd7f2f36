// SPDX-License-Identifier: Apache-2.0
#include "daemon/state/durable_journal.h"

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/wait.h>

#include <atomic>
#include <cerrno>

#include "tests/fakes/fake_clock.h"
#include "tests/unit/state/state_fixture.h"

namespace stackwatch {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class DurableJournalTest : public StateTest {
 protected:
  [[nodiscard]] std::string state() const { return directory_ + "/state"; }
  /// A daemon that publishes these, and is gone by SIGKILL at the moment that `answer_` or the caller's store chooses.
  void run_and_die(const std::vector<Alert>& alerts) {
    const pid_t child = fork();
    if (child == 0) {
      auto store = make_store(state());
      auto journal = make_journal();
      DurableJournal durable(*store, *journal, clock_);
      for (const Alert& each : alerts) static_cast<void>(durable.publish(each));
      store->flush(10);
      journal->flush(10);
      kill(getpid(), SIGKILL);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << status;
  }
};

TEST_F(DurableJournalTest, KilledBetweenTheIntentAndTheEntryItIsToldByTheNextOne) {
  answer_ = [](const std::string&) { return kill(getpid(), SIGKILL); };  // nothing has left the process yet
  run_and_die({alert("aaaaaaaaaaaa")});
  answer_ = {};
  auto store = make_store(state());
  ASSERT_EQ(untold(*store), 1U);
  auto journal = make_journal();
  DurableJournal durable(*store, *journal, clock_);
  durable.tick();
  EXPECT_TRUE(soon([&] { return entries().size() == 1; }));
  EXPECT_THAT(entries(), ElementsAre("aaaaaaaaaaaa firing"));
  EXPECT_TRUE(soon([&] { return untold(*store) == 0; }));
}

TEST_F(DurableJournalTest, KilledBetweenTheEntryAndTheMarkItIsToldAgainWithTheSameId) {
  // The entry counts as written when the fake returns; the mark comes after it, and this store takes none any more.
  std::atomic<int>* sent = nullptr;
  static std::atomic<int> count;
  sent = &count;
  answer_ = [sent](const std::string& entry) {
    ++*sent;
    if (entry.ends_with("resolved")) kill(getpid(), SIGKILL);
    return 0;
  };
  run_and_die({alert("bbbbbbbbbbbb"), alert("bbbbbbbbbbbb", AlertState::kResolved)});
  answer_ = {};
  auto store = make_store(state());
  auto journal = make_journal();
  DurableJournal durable(*store, *journal, clock_);
  durable.tick();
  EXPECT_TRUE(soon([&] { return untold(*store) == 0; }));
  // The first may have got its mark in time, the second cannot have.
  ASSERT_FALSE(entries().empty());
  EXPECT_EQ(entries().back(), "bbbbbbbbbbbb resolved");
}

TEST_F(DurableJournalTest, WhatIsToldIsToldOnceOverACleanRestart) {
  for (int run = 0; run < 3; ++run) {
    auto store = make_store(state());
    auto journal = make_journal();
    {
      DurableJournal durable(*store, *journal, clock_);
      durable.tick();
      ASSERT_TRUE(durable.publish(alert("run" + std::to_string(run))));
    }
    ASSERT_TRUE(journal->flush(10));
    store.reset();
  }
  EXPECT_THAT(entries(), ElementsAre("run0 firing", "run1 firing", "run2 firing"));
  auto store = make_store(state());
  EXPECT_EQ(untold(*store), 0U);
}

TEST_F(DurableJournalTest, WithoutAJournalItIsKeptUntilThereIsOne) {
  remove_journal_socket();
  FakeClock clock;
  auto store = make_store(state());
  auto journal = make_journal();
  DurableJournal durable(*store, *journal, clock);
  EXPECT_FALSE(durable.publish(alert("cccccccccccc")));
  ASSERT_TRUE(store->flush(10));
  durable.tick();
  EXPECT_EQ(untold(*store), 1U);
  make_journal_socket();
  clock.advance_s(DurableJournal::kRetryS + 1);
  durable.tick();
  EXPECT_TRUE(soon([&] { return untold(*store) == 0; }));
  EXPECT_THAT(entries(), ElementsAre("cccccccccccc firing"));
}

TEST_F(DurableJournalTest, WhatJournaldRefusesIsTriedAgain) {
  std::atomic<bool> refusing = true;
  answer_ = [&](const std::string&) { return refusing ? -EINVAL : 0; };
  FakeClock clock;
  auto store = make_store(state());
  auto journal = make_journal();
  DurableJournal durable(*store, *journal, clock);
  ASSERT_TRUE(durable.publish(alert("dddddddddddd")));
  ASSERT_TRUE(soon([&] { return journal->stats().failed == 1; }));
  refusing = false;
  clock.advance_s(DurableJournal::kRetryS + 1);
  EXPECT_TRUE(soon([&] {
    durable.tick();
    return untold(*store) == 0;
  }));
  EXPECT_THAT(entries(), ElementsAre("dddddddddddd firing"));
}

TEST_F(DurableJournalTest, WithoutAStoreItIsToldAllTheSame) {
  auto store = make_store("/nonexistent/state");
  auto journal = make_journal();
  DurableJournal durable(*store, *journal, clock_);
  EXPECT_TRUE(durable.publish(alert("eeeeeeeeeeee")));
  EXPECT_TRUE(soon([&] { return entries().size() == 1; }));
}

TEST_F(DurableJournalTest, WhatNeitherTakesIsToldByWhicheverIsBackFirst) {
  remove_journal_socket();
  FakeClock clock;
  auto store = make_store("/nonexistent/state");
  auto journal = make_journal();
  DurableJournal durable(*store, *journal, clock);
  EXPECT_FALSE(durable.publish(alert("aaaaaaaaaaaa")));
  EXPECT_FALSE(durable.publish(alert("bbbbbbbbbbbb")));
  for (int i = 0; i < 100; ++i) {
    clock.advance_s(1);
    durable.tick();
  }
  make_journal_socket();
  clock.advance_s(DurableJournal::kPatienceS + 1);
  durable.tick();
  EXPECT_TRUE(soon([&] { return entries().size() == 2; }));
  EXPECT_THAT(entries(), ElementsAre("aaaaaaaaaaaa firing", "bbbbbbbbbbbb firing"));
  clock.advance_s(DurableJournal::kPatienceS + 1);
  durable.tick();
  ASSERT_TRUE(journal->flush(10));
  EXPECT_THAT(entries(), SizeIs(2)) << "once";
  EXPECT_FALSE(durable.take_event());
}

TEST_F(DurableJournalTest, WhatJournaldRefusesWithoutAStoreIsTriedAgain) {
  std::atomic<bool> refusing = true;
  answer_ = [&](const std::string&) { return refusing ? -EINVAL : 0; };
  FakeClock clock;
  auto store = make_store("/nonexistent/state");
  auto journal = make_journal();
  DurableJournal durable(*store, *journal, clock);
  ASSERT_TRUE(durable.publish(alert("dddddddddddd")));
  ASSERT_TRUE(soon([&] { return journal->stats().failed == 1; }));
  refusing = false;
  EXPECT_TRUE(soon([&] {
    clock.advance_s(DurableJournal::kPatienceS + 1);
    durable.tick();
    return entries().size() == 1;
  }));
}

TEST_F(DurableJournalTest, OfTooManyThatNeitherTakesTheOldestAreLostAndThatIsTold) {
  remove_journal_socket();
  FakeClock clock;
  auto store = make_store("/nonexistent/state");
  auto journal = make_journal();
  DurableJournal durable(*store, *journal, clock);
  for (size_t i = 0; i < DurableJournal::kMaxUntold + 3; ++i) {
    EXPECT_FALSE(durable.publish(alert("run" + std::to_string(i))));
  }
  const auto event = durable.take_event();
  ASSERT_TRUE(event);
  EXPECT_THAT(event->message(), testing::HasSubstr("tell 3 changes"));
  EXPECT_FALSE(durable.take_event());
}

TEST_F(DurableJournalTest, ADiskThatHangsHoldsUpNoAlertForLong) {
  // Before the store, whose thread still uses them at its end.
  std::promise<void> release;
  const auto gate = release.get_future().share();
  std::promise<void> blocked;
  FakeClock clock;
  auto store = make_store(state());
  auto journal = make_journal();
  DurableJournal durable(*store, *journal, clock);
  ASSERT_TRUE(store->put_to_tell(alert("first"), [&](auto) {
    blocked.set_value();
    gate.wait();
  }));
  blocked.get_future().wait();
  ASSERT_TRUE(durable.publish(alert("ffffffffffff")));
  durable.tick();
  usleep(50'000);
  EXPECT_THAT(entries(), IsEmpty());
  clock.advance_s(DurableJournal::kPatienceS + 1);
  durable.tick();
  EXPECT_TRUE(soon([&] { return entries().size() == 1; }));
  release.set_value();
}

TEST_F(DurableJournalTest, AManyAlertsAtOnceAreAllToldInOrder) {
  auto store = make_store(state());
  auto journal = make_journal();
  std::vector<std::string> expected;
  {
    DurableJournal durable(*store, *journal, clock_);
    for (int i = 0; i < 100; ++i) {
      ASSERT_TRUE(durable.publish(alert("a" + std::to_string(i))));
      expected.push_back("a" + std::to_string(i) + " firing");
    }
  }
  ASSERT_TRUE(journal->flush(10));
  EXPECT_EQ(entries(), expected);
}

}  // namespace
}  // namespace stackwatch
