// SPDX-License-Identifier: Apache-2.0
// What every probe must keep: the real on-CPU engine and the fake that unit tests use behave alike.
#include <gtest/gtest.h>

#include <memory>
#include <set>

#include "tests/fakes/fake_probe.h"
#include "tests/kernel/support/child.h"
#include "tests/kernel/support/require.h"
#include "tests/kernel/support/sampling.h"

namespace stackwatch {
namespace {

class ProbeContract : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (std::string(GetParam()) == "on_cpu") {
      STACKWATCH_REQUIRE_BPF();
      auto made = make_on_cpu_engine(clock_, {});
      ASSERT_TRUE(made) << made.error().message();
      engine_ = std::move(*made);
    } else {
      auto fake = std::make_unique<FakeProbeEngine>(clock_);
      fake_ = fake.get();
      engine_ = std::move(fake);
    }
    target_ = std::make_unique<Child>(std::vector{test_program("burn"), std::string("--seconds"), std::string("30")});
    process_ = target_->key();
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
};

TEST_P(ProbeContract, ReadingAProbeThatIsNotAttachedFails) {
  const auto probe = engine_->make_probe(engine_->kinds().front());
  EXPECT_FALSE(probe->read());
  probe->detach();
  EXPECT_FALSE(probe->read());
}

TEST_P(ProbeContract, AttachingTwiceFails) {
  const auto probe = engine_->make_probe(engine_->kinds().front());
  ASSERT_TRUE(probe->attach(process_, {}));
  EXPECT_FALSE(probe->attach(process_, {}));
}

TEST_P(ProbeContract, DeltasCoverTimeWithoutGapsAndValuesOnce) {
  const auto probe = engine_->make_probe(engine_->kinds().front());
  ASSERT_TRUE(probe->attach(process_, {.frequency_hz = 199, .children = false}));
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
      EXPECT_TRUE(told.contains(value.stack.value)) << "counted before it was told";
      EXPECT_GT(value.value, 0);
      total += value.value;
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

INSTANTIATE_TEST_SUITE_P(All, ProbeContract, ::testing::Values("on_cpu", "fake"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace stackwatch
