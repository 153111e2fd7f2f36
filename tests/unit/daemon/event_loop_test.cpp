// SPDX-License-Identifier: Apache-2.0
#include "daemon/event_loop.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <optional>

#include "core/clock.h"
#include "core/unique_fd.h"

namespace stackwatch {
namespace {

constexpr uint64_t kPeriodUs = 10'000;

class EventLoopTest : public testing::Test {
 protected:
  void SetUp() override {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR1);
    sigaddset(&signals, SIGUSR2);
    ASSERT_EQ(pthread_sigmask(SIG_BLOCK, &signals, nullptr), 0);
    auto made = EventLoop::create();
    ASSERT_TRUE(made) << made.error().message();
    loop_.emplace(std::move(*made));
  }
  [[nodiscard]] uint64_t now_us() const { return clock_.monotonic_ns() / 1000; }

  SystemClock clock_;
  std::optional<EventLoop> loop_;
};

TEST_F(EventLoopTest, ABadDescriptorIsAnError) {
  const auto added = loop_->on_readable(-1, [] {});
  ASSERT_FALSE(added);
  EXPECT_FALSE(added.error().message().empty());
}

TEST_F(EventLoopTest, AFileThatCannotBePolledIsAnError) {
  const UniqueFd closed(eventfd(0, 0));
  const int fd = dup(closed.get());
  close(fd);
  EXPECT_FALSE(loop_->on_readable(fd, [] {}));
}

TEST_F(EventLoopTest, TwoCallbacksForOneSignalAreAnError) {
  EXPECT_TRUE(loop_->on_signal(SIGUSR1, [] {}));
  EXPECT_FALSE(loop_->on_signal(SIGUSR1, [] {}));
  EXPECT_FALSE(loop_->on_signal(-5, [] {}));
}

TEST_F(EventLoopTest, StopBeforeRunEndsAtOnce) {
  loop_->stop();
  EXPECT_TRUE(loop_->run());
}

TEST_F(EventLoopTest, SignalsAreDeliveredToTheirCallbacks) {
  std::string order;
  ASSERT_TRUE(loop_->on_signal(SIGUSR1, [&] {
    order += "1";
    kill(getpid(), SIGUSR2);
  }));
  ASSERT_TRUE(loop_->on_signal(SIGUSR2, [&] {
    order += "2";
    loop_->stop();
  }));
  kill(getpid(), SIGUSR1);
  ASSERT_TRUE(loop_->run());
  EXPECT_EQ(order, "12");
}

TEST_F(EventLoopTest, ADescriptorIsCalledBackWhileItIsReadable) {
  const UniqueFd event(eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK));
  int calls = 0;
  ASSERT_TRUE(loop_->on_readable(event.get(), [&] {
    uint64_t value = 0;
    ASSERT_EQ(read(event.get(), &value, sizeof(value)), static_cast<ssize_t>(sizeof(value)));
    if (++calls == 2) loop_->stop();
  }));
  ASSERT_TRUE(loop_->run());
  EXPECT_EQ(calls, 2);
}

TEST_F(EventLoopTest, TicksAreOnAGrid) {
  uint64_t grid = 0;
  int ticks = 0;
  const uint64_t begun_us = now_us();
  ASSERT_TRUE(loop_->every(kPeriodUs, [&](uint64_t missed) {
    grid += 1 + missed;
    EXPECT_GE(now_us() - begun_us, grid * kPeriodUs) << "before its time";
    // Each tick takes a part of the period: a timer that counts from the end of the last tick would drift by it.
    const uint64_t until_us = now_us() + kPeriodUs / 2;
    while (now_us() < until_us) continue;
    if (++ticks == 20) loop_->stop();
  }));
  ASSERT_TRUE(loop_->run());
  // Grid points that passed are the ticks and what was missed, whatever else the machine does.
  const uint64_t passed = (now_us() - begun_us) / kPeriodUs;
  EXPECT_LE(grid, passed);
  EXPECT_GE(grid + 3, passed);
}

TEST_F(EventLoopTest, MissedTicksAreCountedAndNotMadeUpFor) {
  const uint64_t begun_us = now_us();
  uint64_t grid = 0;
  std::optional<uint64_t> due_us;  // the earliest time of the call after the late one
  bool done = false;
  ASSERT_TRUE(loop_->every(kPeriodUs, [&](uint64_t missed) {
    if (due_us) {
      EXPECT_GE(missed, 3U);
      grid += 1 + missed;
      EXPECT_GE(now_us() - begun_us, grid * kPeriodUs) << "more counted than there were";
      done = true;
      loop_->stop();
      return;
    }
    grid += 1 + missed;
    due_us = now_us() + 4 * kPeriodUs + kPeriodUs / 2;
    while (now_us() < *due_us) usleep(1000);
  }));
  ASSERT_TRUE(loop_->run());
  EXPECT_TRUE(done);
}

TEST_F(EventLoopTest, ANewPeriodReplacesTheOld) {
  int old_ticks = 0;
  int new_ticks = 0;
  ASSERT_TRUE(loop_->every(kPeriodUs, [&](uint64_t) {
    if (++old_ticks == 2) kill(getpid(), SIGUSR1);
  }));
  uint64_t changed_us = 0;
  ASSERT_TRUE(loop_->on_signal(SIGUSR1, [&] {
    changed_us = now_us();
    ASSERT_TRUE(loop_->every(3 * kPeriodUs, [&](uint64_t) {
      if (++new_ticks == 3) loop_->stop();
    }));
  }));
  ASSERT_TRUE(loop_->run());
  EXPECT_EQ(old_ticks, 2);
  EXPECT_EQ(new_ticks, 3);
  // The grid begins at the time of the loop's turn in which it is asked for, a little before.
  EXPECT_GE(now_us() - changed_us, 8 * kPeriodUs);
}

TEST_F(EventLoopTest, IsMovable) {
  int ticks = 0;
  EventLoop* running = nullptr;
  ASSERT_TRUE(loop_->every(kPeriodUs, [&](uint64_t) {
    if (++ticks == 2) running->stop();
  }));
  EventLoop moved = std::move(*loop_);
  loop_.reset();
  running = &moved;
  ASSERT_TRUE(moved.run());
  EXPECT_EQ(ticks, 2);
}

}  // namespace
}  // namespace stackwatch
