// SPDX-License-Identifier: Apache-2.0
#include "symbols/symbol_worker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/epoll.h>

#include <array>
#include <filesystem>
#include <string>

#include "fake_worker.h"
#include "tests/fakes/fake_clock.h"

namespace stackwatch {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

struct Recorder final : SymbolWorker::Listener {
  void on_object(const protocol::ObjectInfo& info) override {
    const uint32_t object = info.object;
    objects.push_back(object);
  }
  void on_name(uint32_t, uint64_t offset, const protocol::Name& name) override {
    names.emplace_back(offset, name.name);
  }
  void on_death(std::optional<uint32_t> culprit, bool certain) override { deaths.emplace_back(culprit, certain); }

  std::vector<uint32_t> objects;
  std::vector<std::pair<uint64_t, std::string>> names;
  std::vector<std::pair<std::optional<uint32_t>, bool>> deaths;
};

class SymbolWorkerTest : public ::testing::Test {
 protected:
  SymbolWorkerTest() { worker.dispatch(listener); }

  protocol::Names answer_to(const protocol::Resolve& request) {
    protocol::Names names{request.sequence, request.object, {}};
    for (size_t i = 0; i < request.offsets.size(); ++i) {
      names.names.push_back({static_cast<uint16_t>(i), protocol::NameKind::kSymbol, 0, "f" + std::to_string(i), ""});
    }
    return names;
  }
  /// Sends a resolve() of two offsets and takes it at the other end.
  protocol::Resolve ask() {
    EXPECT_TRUE(worker.resolve(20, std::array<uint64_t, 2>{100, 200}));
    return std::get<protocol::Resolve>(workers.next().value().first);
  }
  void say(const protocol::Bytes& packet) {
    workers.say(packet);
    worker.dispatch(listener);
  }
  void expect_killed() {
    EXPECT_THAT(listener.deaths, SizeIs(1));
    EXPECT_EQ(worker.deaths(), 1U);
    const auto events = worker.take_events();
    ASSERT_THAT(events, SizeIs(1));
    EXPECT_EQ(events[0].why, "it was killed: it answered what it was not asked");
    EXPECT_EQ(workers.spawned, 2) << "restarted at once";
  }

  FakeClock clock;
  UniqueFd epoll{::epoll_create1(EPOLL_CLOEXEC)};
  FakeWorkers workers;
  Recorder listener;
  SymbolWorker worker{clock, epoll.get(), std::make_unique<FakeSpawner>(workers)};
};

TEST_F(SymbolWorkerTest, GarbageEndsIt) {
  ask();
  say(protocol::Bytes(100, std::byte{0x5a}));
  expect_killed();
}

TEST_F(SymbolWorkerTest, OversizedPacketEndsIt) {
  say(protocol::Bytes(protocol::kMaxMessageBytes + 1));
  expect_killed();
}

TEST_F(SymbolWorkerTest, SecondHelloEndsIt) {
  say(protocol::encode(protocol::Hello{}));
  expect_killed();
}

TEST_F(SymbolWorkerTest, AnswerWithoutQuestionEndsIt) {
  say(protocol::encode(protocol::ObjectInfo{1, 20, protocol::ObjectStatus::kReadable, {}}));
  expect_killed();
}

TEST_F(SymbolWorkerTest, AnswerToAnotherQuestionEndsIt) {
  const auto request = ask();
  auto names = answer_to(request);
  names.object = 21;
  say(protocol::encode(names).at(0));
  expect_killed();
  EXPECT_THAT(listener.names, IsEmpty());
  EXPECT_EQ(listener.deaths[0].first, 20U) << "it was at object 20";
}

TEST_F(SymbolWorkerTest, WrongSequenceEndsIt) {
  auto names = answer_to(ask());
  ++names.sequence;
  say(protocol::encode(names).at(0));
  expect_killed();
}

TEST_F(SymbolWorkerTest, InfoForAResolveEndsIt) {
  const auto request = ask();
  say(protocol::encode(protocol::ObjectInfo{request.sequence, 20, protocol::ObjectStatus::kReadable, {}}));
  expect_killed();
}

TEST_F(SymbolWorkerTest, IndexBeyondTheQuestionEndsIt) {
  auto names = answer_to(ask());
  names.names[1].index = 2;
  say(protocol::encode(names).at(0));
  expect_killed();
  EXPECT_THAT(listener.names, IsEmpty()) << "nothing of such a packet is believed";
}

TEST_F(SymbolWorkerTest, TheSameOffsetTwiceEndsIt) {
  auto names = answer_to(ask());
  names.names[1].index = 0;
  say(protocol::encode(names).at(0));
  expect_killed();
}

TEST_F(SymbolWorkerTest, AnswersComeInPartsAndInAnyOrder) {
  const auto request = ask();
  const auto names = answer_to(request);
  say(protocol::encode(protocol::Names{request.sequence, 20, {names.names[1]}}).at(0));
  EXPECT_THAT(listener.names, ElementsAre(std::pair(uint64_t{200}, "f1")));
  say(protocol::encode(protocol::Names{request.sequence, 20, {names.names[0]}}).at(0));
  EXPECT_THAT(listener.names, SizeIs(2));
  ASSERT_TRUE(worker.add_object(21, epoll.get()));
  const auto add = std::get<protocol::AddObject>(workers.next().value().first);
  say(protocol::encode(protocol::ObjectInfo{add.sequence, 21, protocol::ObjectStatus::kReadable, {}}));
  EXPECT_THAT(listener.objects, ElementsAre(21));
  EXPECT_THAT(listener.deaths, IsEmpty());
}

TEST_F(SymbolWorkerTest, ItsFilesAreNotTaken) {
  const auto open_files = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), std::filesystem::directory_iterator());
  };
  const auto request = ask();
  const auto before = open_files();
  const protocol::Bytes packet = protocol::encode(answer_to(request)).at(0);
  ASSERT_EQ(protocol::send_packet(workers.socket.get(), packet, epoll.get()), protocol::IoStatus::kDone);
  worker.dispatch(listener);
  EXPECT_THAT(listener.names, SizeIs(2));
  EXPECT_EQ(open_files(), before);
}

TEST_F(SymbolWorkerTest, NoMoreThanTheBoundIsUnderWay) {
  const std::array<uint64_t, 1> offset{1};
  for (size_t i = 0; i < kMaxRequestsUnderWay; ++i) EXPECT_TRUE(worker.resolve(20, offset)) << i;
  EXPECT_FALSE(worker.has_room());
  EXPECT_FALSE(worker.resolve(20, offset));
  EXPECT_FALSE(worker.add_object(21, epoll.get()));
  EXPECT_TRUE(worker.drop_object(20)) << "has no answer to wait for";
  const auto request = std::get<protocol::Resolve>(workers.next().value().first);
  say(protocol::encode(answer_to(request)).at(0));
  EXPECT_TRUE(worker.resolve(20, offset)) << "an answer makes room";
}

TEST_F(SymbolWorkerTest, TooManyOrNoOffsetsAreRefused) {
  EXPECT_FALSE(worker.resolve(20, {}));
  EXPECT_FALSE(worker.resolve(20, std::vector<uint64_t>(protocol::kMaxOffsets + 1)));
  EXPECT_TRUE(worker.resolve(20, std::vector<uint64_t>(protocol::kMaxOffsets)));
}

TEST_F(SymbolWorkerTest, HangingAtARequestEndsIt) {
  ask();
  clock.advance_s(9.9);
  worker.dispatch(listener);
  EXPECT_THAT(listener.deaths, IsEmpty());
  clock.advance_s(0.2);
  worker.dispatch(listener);
  EXPECT_THAT(listener.deaths, ElementsAre(std::pair(std::optional<uint32_t>(20), false)));
  EXPECT_EQ(worker.take_events().at(0).why, "it was killed: it gave no answer for 10 s");
}

TEST_F(SymbolWorkerTest, IdleIsNotHanging) {
  clock.advance_s(3600);
  worker.dispatch(listener);
  EXPECT_THAT(listener.deaths, IsEmpty());
}

TEST_F(SymbolWorkerTest, ALaterRequestHasItsOwnTime) {
  const auto first = ask();
  ask();
  clock.advance_s(9);
  say(protocol::encode(answer_to(first)).at(0));
  clock.advance_s(9);
  worker.dispatch(listener);
  EXPECT_THAT(listener.deaths, IsEmpty()) << "the second was begun 9 s ago";
}

TEST_F(SymbolWorkerTest, DeathWhileIdleHasNoCulprit) {
  workers.socket.reset();
  worker.dispatch(listener);
  EXPECT_THAT(listener.deaths, ElementsAre(std::pair(std::optional<uint32_t>(), true)));
}

TEST_F(SymbolWorkerTest, DyingAgainAndAgainIsRestartedLessAndLessOftenAndToldOnceAMinute) {
  size_t told = 0;
  for (int second = 0; second < 300; ++second) {
    workers.socket.reset();
    worker.dispatch(listener);
    told += worker.take_events().size();
    clock.advance_s(1);
  }
  EXPECT_GE(workers.spawned, 8);
  EXPECT_LE(workers.spawned, 13) << "1, 2, 4, … 60 s apart";
  EXPECT_GE(told, 2U);
  EXPECT_LE(told, 6U);
}

TEST_F(SymbolWorkerTest, HealthyForAMinuteStartsANewRow) {
  workers.socket.reset();
  worker.dispatch(listener);
  EXPECT_EQ(workers.spawned, 2);
  workers.socket.reset();
  worker.dispatch(listener);
  EXPECT_EQ(workers.spawned, 2) << "the second of the row waits";
  clock.advance_s(1);
  worker.dispatch(listener);
  EXPECT_EQ(workers.spawned, 3);
  clock.advance_s(61);
  workers.socket.reset();
  worker.dispatch(listener);
  EXPECT_EQ(workers.spawned, 4) << "at once again";
}

TEST(SymbolWorkerStart, NothingIsSentBeforeTheHelloAndItMustComeInTime) {
  FakeClock clock;
  const UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  FakeWorkers workers;
  workers.hello = false;
  Recorder listener;
  SymbolWorker worker(clock, epoll.get(), std::make_unique<FakeSpawner>(workers));
  worker.dispatch(listener);
  EXPECT_FALSE(worker.is_ready());
  EXPECT_FALSE(worker.resolve(20, std::array<uint64_t, 1>{1}));
  EXPECT_FALSE(worker.drop_object(20));
  clock.advance_s(11);
  worker.dispatch(listener);
  EXPECT_THAT(listener.deaths, SizeIs(1));
}

TEST(SymbolWorkerStart, WhatCannotBeStartedIsToldOnceAndTriedAgain) {
  FakeClock clock;
  const UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  FakeWorkers workers;
  workers.refuse = true;
  Recorder listener;
  SymbolWorker worker(clock, epoll.get(), std::make_unique<FakeSpawner>(workers));
  size_t told = 0;
  for (int second = 0; second < 120; ++second) {
    worker.dispatch(listener);
    told += worker.take_events().size();
    clock.advance_s(1);
  }
  EXPECT_EQ(told, 1U);
  EXPECT_LE(workers.spawned, 9);
  workers.refuse = false;
  clock.advance_s(60);
  worker.dispatch(listener);
  worker.dispatch(listener);
  EXPECT_TRUE(worker.is_ready());
}

}  // namespace
}  // namespace stackwatch
