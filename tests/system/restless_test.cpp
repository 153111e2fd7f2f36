// SPDX-License-Identifier: Apache-2.0
// The whole daemon under targets that unload the library with the probes in it, become other programs, are stopped and
// killed: no harm to them, and the daemon answers all the while.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "core/clock.h"
#include "tests/system/daemon_under_test.h"

namespace stackwatch {
namespace {

constexpr double kPatienceS = 40;

class Restless : public ::testing::Test {
 protected:
  void SetUp() override {
    STACKWATCH_REQUIRE_BPF();
    daemon_ = std::make_unique<DaemonUnderTest>(
        "[ranking]\nmax_suspects = 0\n[[watch]]\nname = \"restless\"\nprobes = [\"on_cpu\", \"off_cpu\", \"memory\"]\n"
        "[limits]\ncpu_percent = 100\noverhead_percent_per_process = 100\n");
    ASSERT_TRUE(daemon_->ready()) << daemon_->process().output();
  }
  void start(size_t targets, const std::string& execs) {
    // Few allocations: what the probe takes then is never too much, so it does not let go of them before they are seen.
    for (size_t i = 0; i < targets; ++i) {
      targets_.push_back(std::make_unique<Child>(
          std::vector<std::string>{test_program("restless"), execs, "500000000"},
          Child::Options{.stopped = false, .environment = {"PLUGIN=" + test_program("plugin_allocator.so")}}));
    }
  }
  /// Asks for the state until `done`; each time it must answer.
  template <class Function>
  bool answers_until(Function&& done) {
    return eventually(kPatienceS, [&] {
      const uint64_t begin_ns = clock_.monotonic_ns();
      EXPECT_EQ(daemon_->ask({"status"}).exit_code, 0);
      slowest_ms_ = std::max(slowest_ms_, (clock_.monotonic_ns() - begin_ns) / 1'000'000);
      return done();
    });
  }
  bool counts_in_plugin(const Child& target) {
    return daemon_->ask({"stacks", std::to_string(target.pid()), "--probe", "memory"})
               .output.find("take_from_plugin") != std::string::npos;
  }
  size_t attached() { return daemon_->ask({"attachments", "--json"}).json()["attachments"].Size(); }
  static size_t times(const std::string& text, const std::string& part) {
    size_t count = 0;
    for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
    return count;
  }

  SystemClock clock_;
  std::unique_ptr<DaemonUnderTest> daemon_;
  std::vector<std::unique_ptr<Child>> targets_;
  uint64_t slowest_ms_ = 0;
};

TEST_F(Restless, TargetsThatUnloadAndExecComeToTheirEnd) {
  start(3, "1");
  for (size_t image = 1; image <= 2; ++image) {
    for (const auto& target : targets_) {
      ASSERT_TRUE(answers_until([&] { return times(target->output(), "loaded 0\n") >= image; })) << target->output();
      if (image == 1) {
        EXPECT_TRUE(answers_until([&] { return counts_in_plugin(*target); })) << target->pid();
      }
    }
    for (const auto& target : targets_) target->signal(SIGUSR1);
  }
  for (const auto& target : targets_) {
    ASSERT_TRUE(answers_until([&] { return !target->running(); })) << target->output();
    EXPECT_EQ(target->wait(), 0) << target->output();
  }
  EXPECT_TRUE(answers_until([&] { return attached() == 0; }));
  EXPECT_EQ(daemon_->stop(), 0);
  RecordProperty("slowest_status_ms", static_cast<int>(slowest_ms_));
}

TEST_F(Restless, TargetsThatAreStoppedAndKilledHoldUpNobody) {
  start(3, "0");
  for (const auto& target : targets_) {
    EXPECT_TRUE(answers_until([&] { return counts_in_plugin(*target); })) << target->pid();
  }
  for (const auto& target : targets_) target->signal(SIGSTOP);
  const uint64_t ticks = daemon_->ask({"status", "--json"}).json()["ticks"].GetUint64();
  EXPECT_TRUE(answers_until([&] {
    return daemon_->ask({"status", "--json"}).json()["ticks"].GetUint64() > ticks + 2;
  })) << "no tick while its targets stand";
  EXPECT_EQ(attached(), 3U);
  // One goes on as before, two are killed as they stand.
  targets_[0]->signal(SIGCONT);
  targets_[1]->signal(SIGKILL);
  targets_[2]->signal(SIGKILL);
  EXPECT_EQ(targets_[1]->wait(), 128 + SIGKILL);
  EXPECT_EQ(targets_[2]->wait(), 128 + SIGKILL);
  EXPECT_TRUE(answers_until([&] { return attached() == 1; })) << attached();
  targets_[0]->signal(SIGUSR1);
  EXPECT_TRUE(answers_until([&] { return !targets_[0]->running(); }));
  EXPECT_EQ(targets_[0]->wait(), 0) << targets_[0]->output();
  EXPECT_EQ(daemon_->stop(), 0);
  RecordProperty("slowest_status_ms", static_cast<int>(slowest_ms_));
}

}  // namespace
}  // namespace stackwatch
