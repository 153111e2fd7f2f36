// SPDX-License-Identifier: Apache-2.0
// What every probe must keep: the real engines and the fake that unit tests use behave alike.
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>

#include <cstdlib>
#include <memory>
#include <set>
#include <utility>

#include "bpf/off_cpu_engine.h"
#include "bpf/sampling_engine.h"
#include "daemon/memory_probe.h"
#include "tests/fakes/fake_probe.h"
#include "tests/kernel/support/child.h"
#include "tests/kernel/support/require.h"
#include "tests/kernel/support/sampling.h"

namespace stackwatch {
namespace {

class ProbeContract : public ::testing::TestWithParam<const char*> {
 protected:
  // Each on a program that does what it counts, all the time.
  void SetUp() override {
    const std::string name = GetParam();
    if (name != "fake") STACKWATCH_REQUIRE_BPF();
    std::vector<std::string> command = {test_program("burn"), "--seconds", "30"};
    if (name == "page_fault") command = {test_program("toucher"), "--mb", "20000", "--seconds", "30"};
    if (name == "off_cpu") command = {test_program("waiter"), "--seconds", "30"};
    if (name == "memory") command = {test_program("leaker"), "30"};
    target_ = std::make_unique<Child>(command);
    process_ = target_->key();
    if (name == "memory") {
      ASSERT_TRUE(target_->wait_for("ready 0\n", 20)) << target_->output();
      target_->signal(SIGUSR1);
    }
    make_engine(name);
  }
  void make_engine(const std::string& name) {
    Result<std::unique_ptr<ProbeEngine>> made;
    if (name == "on_cpu") made = make_on_cpu_engine(clock_, {});
    if (name == "page_fault") made = make_page_fault_engine(clock_, kPageFaultLimits);
    if (name == "off_cpu") made = make_off_cpu_engine(clock_, {});
    if (name == "memory") {
      MemoryLimits limits;
      limits.overhead_percent = 1e9;
      auto memory = make_memory_probe_engine(clock_, limits);
      ASSERT_TRUE(memory) << memory.error().message();
      made = std::unique_ptr<ProbeEngine>(std::move(*memory));
      signed_ = true;
    }
    if (name == "fake") {
      auto fake = std::make_unique<FakeProbeEngine>(clock_);
      fake_ = fake.get();
      made = std::unique_ptr<ProbeEngine>(std::move(fake));
    }
    ASSERT_TRUE(made) << made.error().message();
    engine_ = std::move(*made);
  }

  // Lets the target be seen at work: the real one works by itself.
  void work() {
    if (fake_ != nullptr) {
      fake_->count(process_, StackHash{42}, 5);
      if (!std::exchange(told_, true))
        fake_->tell(process_, StackHash{42}, {.exec = {}, .user_frames = {1, 2}, .kernel_frames = {}});
    }
    pass(0.3);
  }

  SystemClock clock_;
  std::unique_ptr<ProbeEngine> engine_;
  FakeProbeEngine* fake_ = nullptr;
  std::unique_ptr<Child> target_;
  ProcessKey process_;
  bool told_ = false;
  bool signed_ = false;  ///< values may go down
};

TEST_P(ProbeContract, ReadingAProbeThatIsNotAttachedFails) {
  const auto probe = engine_->make_probe(engine_->kinds().front());
  EXPECT_FALSE(probe->read());
  probe->detach();
  EXPECT_FALSE(probe->read());
}

TEST_P(ProbeContract, PreparingMayBeRepeatedAndAttachesNobody) {
  ASSERT_TRUE(engine_->prepare());
  ASSERT_TRUE(engine_->prepare());
  const auto probe = engine_->make_probe(engine_->kinds().front());
  EXPECT_FALSE(probe->read());
  ASSERT_TRUE(probe->attach(process_, {}));
  EXPECT_TRUE(probe->read());
}

TEST_P(ProbeContract, WhatIsLoadedBesideCanBeAttachedAtItsEnd) {
  for (int tries = 0; !engine_->load_beside(); ++tries) {
    ASSERT_LT(tries, 600) << "it is never loaded";
    pollfd done{engine_->poll_fd(), POLLIN, 0};
    constexpr int kPatienceMs = 100;
    static_cast<void>(::poll(&done, 1, kPatienceMs));
    engine_->drain();
  }
  const auto probe = engine_->make_probe(engine_->kinds().front());
  ASSERT_TRUE(probe->attach(process_, {}));
  EXPECT_TRUE(engine_->collect());
  EXPECT_TRUE(probe->read());
}

TEST_P(ProbeContract, AttachingWaitsForWhatIsBeingLoaded) {
  static_cast<void>(engine_->load_beside());
  const auto probe = engine_->make_probe(engine_->kinds().front());
  ASSERT_TRUE(probe->attach(process_, {}));
  EXPECT_TRUE(engine_->load_beside());
}

TEST_P(ProbeContract, AnEngineMayGoWhileItsProgramIsBeingLoaded) {
  static_cast<void>(engine_->load_beside());
  engine_->drain();
  EXPECT_TRUE(engine_->collect());
  engine_.reset();
}

TEST_P(ProbeContract, AttachingTwiceFails) {
  const auto probe = engine_->make_probe(engine_->kinds().front());
  ASSERT_TRUE(probe->attach(process_, {}));
  EXPECT_FALSE(probe->attach(process_, {}));
}

TEST_P(ProbeContract, DeltasCoverTimeWithoutGapsAndValuesOnce) {
  const auto probe = engine_->make_probe(engine_->kinds().front());
  ASSERT_TRUE(probe->attach(process_, {.frequency_hz = 199, .children = false}));
  engine_->wait_until_counting(10);
  uint64_t end_ns = 0;
  std::set<uint64_t> told;
  int64_t total = 0;
  for (int i = 0; i < 4; ++i) {
    work();
    ASSERT_TRUE(engine_->collect());
    const auto delta = probe->read();
    ASSERT_TRUE(delta);
    EXPECT_EQ(delta->process, process_);
    EXPECT_EQ(delta->probe, probe->kind());
    EXPECT_GT(delta->interval_ns, 0U);
    if (end_ns != 0) {
      EXPECT_EQ(delta->time_ns - delta->interval_ns, end_ns) << "a gap or an overlap";
    }
    end_ns = delta->time_ns;
    for (const auto& stack : delta->new_stacks) EXPECT_TRUE(told.insert(stack.hash.value).second) << "told twice";
    for (const auto& value : delta->values) {
      // Waits that began before attaching have a stack without frames, and nobody tells of it.
      EXPECT_TRUE(told.contains(value.stack.value) || value.stack == kBeforeAttaching) << "counted before it was told";
      EXPECT_TRUE(value.value > 0 || (signed_ && value.value != 0)) << value.value;
      total += std::abs(value.value);
    }
  }
  EXPECT_GT(total, 10);
  const auto again = probe->read();
  ASSERT_TRUE(again);
  EXPECT_TRUE(again->values.empty()) << "a value was handed out twice";
}

TEST_P(ProbeContract, DetachingIsFinalAndMayBeRepeated) {
  const auto probe = engine_->make_probe(engine_->kinds().front());
  ASSERT_TRUE(probe->attach(process_, {}));
  probe->detach();
  probe->detach();
  EXPECT_FALSE(probe->read());
  ASSERT_TRUE(probe->attach(process_, {})) << "and it can be attached again";
}

INSTANTIATE_TEST_SUITE_P(All, ProbeContract, ::testing::Values("on_cpu", "page_fault", "off_cpu", "memory", "fake"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace stackwatch
