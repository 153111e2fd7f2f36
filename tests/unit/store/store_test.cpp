// SPDX-License-Identifier: Apache-2.0
#include "store/store.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <future>

#include "tests/unit/store/store_fixture.h"

namespace stackwatch {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class StoreThreadTest : public StoreTest {
 protected:
  StoreThreadTest() {
    options_.directory = directory_ + "/state";
    options_.boot_id = "boot-1";
    options_.to_json = [](const Alert& alert) { return "{\"id\":\"" + alert.id + "\"}"; };
    options_.retry_ns = 20'000'000;
  }
  std::unique_ptr<Store> open() {
    auto store = Store::open(options_, clock_);
    if (!store) {
      ADD_FAILURE() << store.error().message();
      return nullptr;
    }
    return std::move(*store);
  }
  static Alert alert(const std::string& id, AlertState state = AlertState::kFiring) {
    Alert alert;
    alert.id = id;
    alert.state = state;
    alert.process.key = {4711, 10'000'000};
    alert.updated_ns = 7;
    return alert;
  }
  /// Until it holds, with time going on for whoever tries again.
  template <class Function>
  bool soon(Function done) {
    for (int i = 0; i < 1000; ++i) {
      if (done()) return true;
      usleep(10'000);
    }
    return false;
  }
  [[nodiscard]] std::vector<OutboxRow> outbox(Store& store) {
    std::promise<std::vector<OutboxRow>> rows;
    if (!store.read_outbox(0, 100, [&rows](std::vector<OutboxRow> read) { rows.set_value(std::move(read)); })) {
      ADD_FAILURE() << "not storing";
      return {};
    }
    return rows.get_future().get();
  }

  SystemClock clock_;
  StoreOptions options_;
};

TEST_F(StoreThreadTest, WithoutADirectoryItIsToldOnceAndDropsAreCounted) {
  options_.directory = "/nonexistent/stackwatch";
  auto store = open();
  EXPECT_FALSE(store->storing());
  const auto events = store->take_events();
  ASSERT_THAT(events, SizeIs(1));
  EXPECT_THAT(events[0].message(), HasSubstr("without storing"));
  usleep(100'000);  // several tries
  EXPECT_THAT(store->take_events(), IsEmpty());
  bool called = false;
  EXPECT_FALSE(store->put_to_tell(alert("a"), [&](auto) { called = true; }));
  EXPECT_FALSE(called);
  EXPECT_EQ(store->status().dropped, 1U);
  EXPECT_FALSE(store->remove("redis.service"));
  EXPECT_THAT(store->take_baselines(), IsEmpty());
}

TEST_F(StoreThreadTest, ADirectoryThatComesLaterIsUsed) {
  options_.directory = directory_ + "/later/state";
  auto store = open();
  EXPECT_FALSE(store->storing());
  std::filesystem::create_directory(directory_ + "/later");
  EXPECT_TRUE(soon([&] { return store->storing(); }));
  EXPECT_TRUE(store->take_resumed());
  EXPECT_FALSE(store->take_resumed());
  EXPECT_TRUE(store->put(alert("a")));
}

TEST_F(StoreThreadTest, AFullDiskIsToldOnceAndLeftWhenThereIsRoom) {
  options_.bounds.bytes = 2U << 20U;
  options_.to_json = [](const Alert&) { return std::string(100'000, 'x'); };
  auto store = open();
  ASSERT_TRUE(store->storing());
  size_t put = 0;
  // Alerts that fire are never pruned: they fill the place up.
  for (int i = 0; i < 100 && store->storing(); ++i) {
    put += store->put(alert("a" + std::to_string(i))) ? 1 : 0;
    ASSERT_TRUE(store->flush(10));
  }
  EXPECT_FALSE(store->storing());
  EXPECT_GT(put, 3U);
  const auto events = store->take_events();
  ASSERT_THAT(events, SizeIs(1));
  EXPECT_THAT(events[0].message(), HasSubstr("full"));
  store->set_limit(64U << 20U);
  EXPECT_TRUE(soon([&] { return store->storing(); }));
  EXPECT_TRUE(store->put(alert("a")));
  EXPECT_TRUE(store->flush(10));
  EXPECT_TRUE(store->storing());
}

TEST_F(StoreThreadTest, TheNoteIsDurableBeforeAnybodyHearsOfIt) {
  auto store = open();
  std::promise<std::optional<int64_t>> told;
  ASSERT_TRUE(store->put_to_tell(alert("a"), [&](auto sequence) { told.set_value(sequence); }));
  const auto sequence = told.get_future().get();
  ASSERT_TRUE(sequence);
  // As after a SIGKILL in this moment: a copy of what is on the disk.
  const std::string copy = directory_ + "/copy";
  std::filesystem::copy(options_.directory, copy);
  auto other = StateFile::open(copy, {}, kNow);
  ASSERT_TRUE(other) << other.error().message();
  const auto rows = *other->file->outbox(0, 10);
  ASSERT_THAT(rows, SizeIs(1));
  EXPECT_EQ(rows[0].sequence, *sequence);
  EXPECT_EQ(rows[0].alert.evidence, "{\"id\":\"a\"}");
  EXPECT_EQ(rows[0].alert.boot_id, "boot-1");

  store->marker()(*sequence);
  EXPECT_THAT(outbox(*store), IsEmpty());
}

TEST_F(StoreThreadTest, WhatIsQueuedAtTheEndIsWritten) {
  {
    auto store = open();
    for (int i = 0; i < 200; ++i) EXPECT_TRUE(store->put(alert("a" + std::to_string(i), AlertState::kResolved)));
    EXPECT_TRUE(store->put(Baseline{"redis.service", 4, 1, {std::byte{9}}}));
  }
  auto store = open();
  EXPECT_THAT(store->take_alerts(), SizeIs(200));
  EXPECT_THAT(store->take_alerts(), IsEmpty());
  const auto baselines = store->take_baselines();
  ASSERT_THAT(baselines, SizeIs(1));
  EXPECT_EQ(baselines[0], (Baseline{"redis.service", 4, 1, {std::byte{9}}}));
  EXPECT_THAT(store->take_baselines(), IsEmpty()) << "once";
}

TEST_F(StoreThreadTest, ARemovedBaselineIsNotThereAnyMore) {
  {
    auto store = open();
    EXPECT_TRUE(store->put(Baseline{"redis.service", 4, 1, {std::byte{9}}}));
    EXPECT_TRUE(store->put(Baseline{"nginx.service", 4, 2, {std::byte{8}}}));
    EXPECT_TRUE(store->remove("redis.service"));
    EXPECT_TRUE(store->remove("unknown"));
  }
  auto store = open();
  const auto baselines = store->take_baselines();
  ASSERT_THAT(baselines, SizeIs(1));
  EXPECT_EQ(baselines[0].service, "nginx.service");
}

TEST_F(StoreThreadTest, AtTheStartTheNewestBaselinesAreReadUpToABound) {
  {
    auto store = open();
    for (uint64_t i = 0; i < 10; ++i) {
      EXPECT_TRUE(store->put(Baseline{"s" + std::to_string(i), 1, i, std::vector<std::byte>(100)}));
    }
  }
  options_.baseline_bytes_at_start = 350;
  auto store = open();
  std::vector<std::string> services;
  for (const Baseline& baseline : store->take_baselines()) services.push_back(baseline.service);
  EXPECT_THAT(services, ElementsAre("s9", "s8", "s7"));
}

TEST_F(StoreThreadTest, AFullQueueDropsAndCounts) {
  options_.queue = 4;
  auto store = open();
  std::promise<void> release;
  const auto gate = release.get_future().share();
  std::promise<void> blocked;
  ASSERT_TRUE(store->put_to_tell(alert("first"), [&](auto) {
    blocked.set_value();
    gate.wait();
  }));
  blocked.get_future().wait();  // the store's thread stands still, as in a hanging disk
  int taken = 0;
  for (int i = 0; i < 10; ++i) taken += store->put(alert("a" + std::to_string(i))) ? 1 : 0;
  EXPECT_EQ(taken, 4);
  EXPECT_EQ(store->status().dropped, 6U);
  release.set_value();
  EXPECT_TRUE(store->flush(10));
  EXPECT_TRUE(store->put(alert("later")));
}

TEST_F(StoreThreadTest, AFileDamagedWhileItIsOpenIsSetAsideAndWritingGoesOn) {
  auto store = open();
  for (int i = 0; i < 300; ++i) ASSERT_TRUE(store->put(alert("a" + std::to_string(i))));
  ASSERT_TRUE(store->flush(10));
  store.reset();
  {
    std::fstream damage(options_.directory + "/state.db", std::ios::in | std::ios::out | std::ios::binary);
    damage.seekp(4096);
    damage << std::string(5 * 4096, '\x5a');
  }
  store = open();
  const auto events = store->take_events();
  ASSERT_THAT(events, SizeIs(1));
  EXPECT_THAT(events[0].message(), HasSubstr("aside"));
  EXPECT_TRUE(store->storing());
  EXPECT_THAT(store->take_alerts(), IsEmpty());
  EXPECT_TRUE(store->put(alert("new")));
  EXPECT_TRUE(store->flush(10));
  EXPECT_TRUE(store->storing());
}

TEST_F(StoreThreadTest, ABaselineThatIsTooLargeIsRefusedWithoutStoppingTheRest) {
  options_.bounds.baseline_bytes = 10;
  auto store = open();
  EXPECT_FALSE(store->put(Baseline{"s", 1, 1, std::vector<std::byte>(11)}));
  EXPECT_TRUE(store->put(Baseline{"s", 1, 1, std::vector<std::byte>(10)}));
  EXPECT_TRUE(store->flush(10));
  EXPECT_TRUE(store->storing());
}

}  // namespace
}  // namespace stackwatch
