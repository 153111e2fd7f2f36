// SPDX-License-Identifier: Apache-2.0
// The worker is played by the test; the process that is looked at is the test itself.
#include "symbols/allocator_finder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <functional>
#include <optional>
#include <vector>

#include "fake_worker.h"
#include "target_process.h"
#include "tests/fakes/fake_clock.h"

namespace stackwatch {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr int kPatienceMs = 5000;
constexpr int kTurnMs = 10;

class AllocatorFinderTest : public ::testing::Test {
 protected:
  AllocatorFinderTest() {
    AllocatorFinderOptions options;
    options.spawner = std::make_unique<FakeSpawner>(workers_);
    finder_ = std::move(*make_allocator_finder(clock_, std::move(options)));
  }

  /// Plays the worker until it has nothing to do: the file with number `with` (from 0, in order of asking) has an
  /// allocator, all others have none.
  void answer_all(std::optional<int> with) {
    answer([&](const protocol::FindAllocator& find) {
      protocol::Allocator answer{find.sequence, find.object, false, {}};
      if (with == asked_++) answer.places = {{.role = AllocatorRole::kMalloc, .stepped = false, .offset = 0x1234}};
      workers_.say(protocol::encode(answer));
    });
  }
  void answer(const std::function<void(const protocol::FindAllocator&)>& allocator) {
    int waited_ms = 0;
    while (finder_->pending() > 0) {
      finder_->dispatch();
      ASSERT_LT(workers_.spawned, 10) << "a file is asked for again and again";
      bool any = false;
      while (workers_.socket && hung_ != workers_.spawned) {
        auto request = workers_.next();
        if (!request) break;
        any = true;
        if (const auto* add = std::get_if<protocol::AddObject>(&request->first)) {
          workers_.say(protocol::encode(protocol::ObjectInfo{add->sequence, add->object, status_, {}}));
        } else if (const auto* find = std::get_if<protocol::FindAllocator>(&request->first)) {
          allocator(*find);
        }
      }
      if (any) continue;
      // The reader's thread takes real time, a worker that was ended a pause that the clock knows.
      ASSERT_LT(waited_ms, kPatienceMs) << "nothing comes any more";
      pollfd ready{finder_->fd(), POLLIN, 0};
      if (::poll(&ready, 1, kTurnMs) == 0) waited_ms += kTurnMs;
      clock_.advance_s(0.1);
    }
  }
  void answer_with_one(const protocol::FindAllocator& find, uint64_t offset) {
    protocol::Allocator answer{find.sequence, find.object, false, {}};
    answer.places = {{.role = AllocatorRole::kMalloc, .stepped = false, .offset = offset}};
    workers_.say(protocol::encode(answer));
  }
  void watch() { finder_->watch(self_, self_.pid); }

  FakeClock clock_;
  FakeWorkers workers_;
  protocol::ObjectStatus status_ = protocol::ObjectStatus::kReadable;
  int asked_ = 0;
  int hung_ = 0;  ///< this worker answers no more; from 1
  ProcessKey self_ = key_of(::getpid());
  std::unique_ptr<AllocatorFinder> finder_;
};

TEST_F(AllocatorFinderTest, NobodyIsStartedForNothing) {
  finder_->dispatch();
  EXPECT_EQ(workers_.spawned, 0);
  EXPECT_EQ(finder_->pending(), 0U);
  EXPECT_THAT(finder_->take(), IsEmpty());
}

TEST_F(AllocatorFinderTest, AProcessThatIsGoneIsToldOnce) {
  const ProcessKey gone{self_.pid, self_.start_time_ns + 1'000'000'000};
  finder_->watch(gone, self_.pid);
  answer_all(std::nullopt);
  const auto found = finder_->take();
  ASSERT_THAT(found, SizeIs(1));
  EXPECT_FALSE(found[0].alive);
  EXPECT_THAT(finder_->take(), IsEmpty());
}

TEST_F(AllocatorFinderTest, AFileThatCannotBeReadHasNoAllocator) {
  status_ = protocol::ObjectStatus::kUnreadable;
  watch();
  answer_all(0);
  const auto found = finder_->take();
  ASSERT_THAT(found, SizeIs(1));
  EXPECT_TRUE(found[0].alive);
  EXPECT_THAT(found[0].objects, IsEmpty());
  EXPECT_EQ(asked_, 0);
}

TEST_F(AllocatorFinderTest, WhatOneFileHasIsToldWithItsDescriptor) {
  watch();
  EXPECT_EQ(finder_->pending(), 1U);
  answer_all(1);
  const auto found = finder_->take();
  ASSERT_THAT(found, SizeIs(1));
  EXPECT_EQ(found[0].process, self_);
  EXPECT_EQ(found[0].pid_in_ns, self_.pid);
  ASSERT_THAT(found[0].objects, SizeIs(1));
  EXPECT_TRUE(found[0].objects[0]->file);
  ASSERT_THAT(found[0].objects[0]->places, SizeIs(1));
  EXPECT_EQ(found[0].objects[0]->places[0].offset, 0x1234U);
  EXPECT_THAT(finder_->take_events(), IsEmpty());
}

TEST_F(AllocatorFinderTest, FilesThatAreKnownAreNotAskedForAgain) {
  watch();
  answer_all(1);
  static_cast<void>(finder_->take());
  const int asked = asked_;
  finder_->forget(self_);
  watch();
  answer_all(std::nullopt);
  EXPECT_EQ(asked_, asked);
  const auto found = finder_->take();
  ASSERT_THAT(found, SizeIs(1));
  EXPECT_THAT(found[0].objects, SizeIs(1));
}

TEST_F(AllocatorFinderTest, AForgottenProcessGetsNoAnswer) {
  watch();
  finder_->forget(self_);
  EXPECT_EQ(finder_->pending(), 0U);
  pollfd read{finder_->fd(), POLLIN, 0};
  ASSERT_EQ(::poll(&read, 1, kPatienceMs), 1) << "its mappings are read all the same";
  finder_->dispatch();
  EXPECT_THAT(finder_->take(), IsEmpty());
  EXPECT_FALSE(workers_.socket && workers_.next()) << "nobody asks for its files";
}

TEST_F(AllocatorFinderTest, AFileThatEndsTheWorkerIsGivenUpAndTheOthersAreAnswered) {
  watch();
  std::optional<uint32_t> killer;
  int deaths = 0;
  answer([&](const protocol::FindAllocator& find) {
    if (!killer) killer = find.object;
    if (find.object == *killer) {
      ++deaths;
      workers_.socket.reset();
      return;
    }
    answer_with_one(find, 0x77);
  });
  EXPECT_EQ(deaths, 1);
  EXPECT_EQ(workers_.spawned, 2);
  EXPECT_THAT(finder_->take_events(), SizeIs(1));
  const auto found = finder_->take();
  ASSERT_THAT(found, SizeIs(1));
  EXPECT_TRUE(found[0].alive);
  ASSERT_THAT(found[0].objects, SizeIs(::testing::Gt(2)));
  EXPECT_EQ(found[0].objects[0]->places[0].offset, 0x77U);
}

TEST_F(AllocatorFinderTest, AFileThatTheWorkerHangsOnIsTriedOnceMoreAndThenGivenUp) {
  watch();
  std::optional<uint32_t> heavy;
  int hangs = 0;
  answer([&](const protocol::FindAllocator& find) {
    if (!heavy) heavy = find.object;
    if (find.object == *heavy) {
      ++hangs;
      hung_ = workers_.spawned;
      clock_.advance_s(60);  // past any patience
      return;
    }
    answer_with_one(find, 0x77);
  });
  EXPECT_EQ(hangs, 2) << "the machine may have been busy once";
  EXPECT_EQ(workers_.spawned, 3);
  const auto found = finder_->take();
  ASSERT_THAT(found, SizeIs(1));
  EXPECT_THAT(found[0].objects, SizeIs(::testing::Gt(2)));
}

TEST_F(AllocatorFinderTest, AWorkerThatCannotBeStartedLeavesTheQuestionOpen) {
  workers_.refuse = true;
  watch();
  std::vector<Error> events;
  for (int waited_ms = 0; waited_ms < kPatienceMs && events.empty(); waited_ms += 10) {
    pollfd ready{finder_->fd(), POLLIN, 0};
    ::poll(&ready, 1, 10);
    finder_->dispatch();
    events = finder_->take_events();
  }
  EXPECT_THAT(events, SizeIs(1));
  EXPECT_EQ(finder_->pending(), 1U);
  EXPECT_THAT(finder_->take(), IsEmpty());
  // And when it can be started the question is asked.
  workers_.refuse = false;
  clock_.advance_s(60);
  answer_all(1);
  const auto found = finder_->take();
  ASSERT_THAT(found, SizeIs(1));
  EXPECT_THAT(found[0].objects, SizeIs(1));
}

}  // namespace
}  // namespace stackwatch
