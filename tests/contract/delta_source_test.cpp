// SPDX-License-Identifier: Apache-2.0
// What everybody who reads from a DeltaSource relies on, held by those that can be made to say the same: a made-up one,
// and its capture read again. (The live one needs a kernel; what is behind it stands in for it in unit/daemon.)
#include "daemon/delta_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <set>

#include "daemon/capture_recorder.h"
#include "daemon/capture_source.h"
#include "tests/fakes/fake_clock.h"
#include "tests/fakes/fake_source.h"
#include "tests/fakes/memory_file.h"

namespace stackwatch {
namespace {

constexpr ProcessKey kRedis{4711, 10'000'000};
constexpr ProcessKey kNginx{99, 20'000'000};

/// What happens before each tick, from the first.
using Story = std::vector<std::function<void(FakeSource&)>>;

std::unique_ptr<DeltaSource> fake(const Story& story);
std::unique_ptr<DeltaSource> replay(const Story& story);

struct Kind {
  const char* name;
  std::unique_ptr<DeltaSource> (*make)(const Story&);
};

/// A fake whose story goes on by itself.
class ToldSource final : public DeltaSource {
 public:
  explicit ToldSource(Story story) : story_(std::move(story)) {}
  Result<std::optional<TickBatch>> next() override {
    if (told_ == story_.size()) return std::optional<TickBatch>();
    story_[told_++](fake_);
    return fake_.next();
  }
  [[nodiscard]] ProcessIdentity identify(const ProcessKey& process) const override { return fake_.identify(process); }
  [[nodiscard]] Losses losses(const ProcessKey& process, ProbeKind probe) const override {
    return fake_.losses(process, probe);
  }

 private:
  Story story_;
  size_t told_ = 0;
  FakeSource fake_;
};

std::unique_ptr<DeltaSource> fake(const Story& story) { return std::make_unique<ToldSource>(story); }

/// A CaptureSource and the bytes that it reads.
class ReplayedSource final : public DeltaSource {
 public:
  explicit ReplayedSource(std::string bytes)
      : bytes_(std::move(bytes)), source_(std::move(*CaptureReader::create(bytes_of(bytes_), "capture"))) {}
  Result<std::optional<TickBatch>> next() override { return source_.next(); }
  [[nodiscard]] ProcessIdentity identify(const ProcessKey& process) const override { return source_.identify(process); }
  [[nodiscard]] Losses losses(const ProcessKey& process, ProbeKind probe) const override {
    return source_.losses(process, probe);
  }

 private:
  std::string bytes_;
  CaptureSource source_;
};

std::unique_ptr<DeltaSource> replay(const Story& story) {
  const FakeClock clock;
  const MemoryFile file;
  ToldSource told(story);
  CaptureRecorder recorder(*CaptureWriter::create(file.writer(), "capture", capture_header(clock, 1, "host")));
  for (;;) {
    auto batch = told.next();
    if (!batch || !batch->has_value()) break;
    EXPECT_TRUE(recorder.record(**batch, told));
  }
  EXPECT_TRUE(recorder.finish());
  return std::make_unique<ReplayedSource>(file.text());
}

class DeltaSourceContract : public testing::TestWithParam<Kind> {
 protected:
  /// Every tick of a story, each checked by `check` while it is valid; how many there were.
  size_t run(const Story& story, const std::function<void(size_t, const TickBatch&, const DeltaSource&)>& check) {
    const auto source = GetParam().make(story);
    size_t ticks = 0;
    for (;; ++ticks) {
      auto batch = source->next();
      EXPECT_TRUE(batch) << batch.error().message();
      if (!batch || !batch->has_value()) break;
      check(ticks, **batch, *source);
    }
    for (int i = 0; i < 2; ++i) {
      const auto after = source->next();
      EXPECT_TRUE(after && !after->has_value()) << "the end stays the end";
    }
    return ticks;
  }
};

INSTANTIATE_TEST_SUITE_P(Sources, DeltaSourceContract, testing::Values(Kind{"Fake", fake}, Kind{"Replay", replay}),
                         [](const auto& parameter) { return parameter.param.name; });

const auto kNothing = [](FakeSource&) {};

TEST_P(DeltaSourceContract, WithoutAnyTickItHasEnded) {
  EXPECT_EQ(run({}, [](size_t, const TickBatch&, const DeltaSource&) {}), 0U);
}

TEST_P(DeltaSourceContract, TicksWithoutAnybodyAreTicks) {
  double last_s = 0;
  const size_t ticks = run({kNothing, kNothing, kNothing}, [&](size_t, const TickBatch& batch, const DeltaSource&) {
    EXPECT_TRUE(batch.deltas.empty());
    EXPECT_GT(batch.time_s, last_s);
    last_s = batch.time_s;
  });
  EXPECT_EQ(ticks, 3U);
}

TEST_P(DeltaSourceContract, DeltasAreWhatHappenedInOrderOfTime) {
  const Story story = {[](FakeSource& s) {
                         s.does(kRedis, {{"parse", 80}, {"render", 20}});
                       },
                       [](FakeSource& s) {
                         s.does(kNginx, {{"parse", 7}});
                       },
                       [](FakeSource& s) { s.does(kRedis, {}); }};
  std::map<std::pair<ProcessKey, std::string>, int64_t> sums;
  std::map<ProcessKey, const StackTable*> tables;
  double last_s = 0;
  size_t deltas = 0;
  run(story, [&](size_t, const TickBatch& batch, const DeltaSource&) {
    EXPECT_GT(batch.time_s, last_s);
    last_s = batch.time_s;
    for (const NamedDelta& delta : batch.deltas) {
      ++deltas;
      ASSERT_NE(delta.stacks, nullptr);
      ASSERT_NE(delta.functions, nullptr);
      EXPECT_EQ(tables.try_emplace(delta.process, delta.stacks).first->second, delta.stacks) << "one for its life";
      EXPECT_EQ(delta.time_s, batch.time_s);
      EXPECT_EQ(delta.interval_s, 1);
      EXPECT_EQ(delta.frequency_hz, 100);
      std::set<uint32_t> seen;
      int64_t total = 0;
      for (const NamedDelta::Value& value : delta.values) {
        ASSERT_LT(value.stack.value, delta.stacks->size());
        EXPECT_TRUE(seen.insert(value.stack.value).second) << "each stack at most once";
        const auto frames = (*delta.stacks)[value.stack];
        EXPECT_EQ((*delta.functions)[frames.front()], (Function{"program", "main"}));
        sums[{delta.process, (*delta.functions)[frames.back()].name}] += value.value;
        total += value.value;
      }
      EXPECT_EQ(delta.exposure_s, static_cast<double>(total) / 100);
    }
  });
  EXPECT_EQ(deltas, 5U) << "empty ones too";
  EXPECT_EQ((sums[{kRedis, "parse"}]), 160);
  EXPECT_EQ((sums[{kRedis, "render"}]), 40);
  EXPECT_EQ((sums[{kNginx, "parse"}]), 14);
}

TEST_P(DeltaSourceContract, WhoIsInATickIsKnownInIt) {
  const Story story = {[](FakeSource& s) {
                         s.does(kRedis, {{"parse", 1}});
                       },
                       [](FakeSource& s) { s.exits(kRedis); }, kNothing};
  run(story, [](size_t tick, const TickBatch& batch, const DeltaSource& source) {
    for (const NamedDelta& delta : batch.deltas) {
      const ProcessIdentity identity = source.identify(delta.process);
      EXPECT_EQ(identity.key, kRedis);
      EXPECT_EQ(identity.pid_in_ns, 4711);
      EXPECT_EQ(identity.comm, "program");
      EXPECT_EQ(source.losses(delta.process, delta.probe), Losses{});
    }
    if (tick == 1) {
      EXPECT_THAT(batch.exits, testing::ElementsAre(kRedis));
    }
    EXPECT_EQ(source.identify({1, 1}).key, (ProcessKey{1, 1})) << "and of strangers what their key says";
    EXPECT_EQ(source.losses({1, 1}, ProbeKind::kOnCpu), Losses{});
  });
}

TEST_P(DeltaSourceContract, EndsAreToldOnceWithOrAfterTheLastDelta) {
  const Story story = {[](FakeSource& s) {
                         s.does(kRedis, {{"parse", 1}});
                         s.does(kNginx, {{"parse", 1}});
                       },
                       [](FakeSource& s) { s.replaces(kRedis); },
                       [](FakeSource& s) {
                         s.exits(kRedis);
                         s.detaches(kNginx);
                       },
                       kNothing};
  std::vector<std::string> events;
  size_t deltas_after = 0;
  run(story, [&](size_t tick, const TickBatch& batch, const DeltaSource&) {
    const std::string at = std::to_string(tick);
    for (const ProcessKey& key : batch.replaced) events.push_back(at + " replaced " + std::to_string(key.pid));
    for (const ProcessKey& key : batch.exits) events.push_back(at + " exit " + std::to_string(key.pid));
    for (const ProcessKey& key : batch.detached) events.push_back(at + " detached " + std::to_string(key.pid));
    if (tick > 2) deltas_after += batch.deltas.size();
  });
  EXPECT_THAT(events, testing::ElementsAre("1 replaced 4711", "2 exit 4711", "2 detached 99"));
  EXPECT_EQ(deltas_after, 0U);
}

TEST_P(DeltaSourceContract, AProcessThatIsWatchedAgainBeginsAnew) {
  const Story story = {[](FakeSource& s) {
                         s.does(kRedis, {{"parse", 1}});
                       },
                       [](FakeSource& s) { s.detaches(kRedis); },
                       [](FakeSource& s) {
                         s.does(kRedis, {{"render", 1}});
                       }};
  run(story, [](size_t tick, const TickBatch& batch, const DeltaSource&) {
    ASSERT_EQ(batch.deltas.size(), 1U);
    const NamedDelta& delta = batch.deltas[0];
    EXPECT_EQ(delta.stacks->size(), 2U) << "[other] and one";
    const auto frames = (*delta.stacks)[delta.values.at(0).stack];
    EXPECT_EQ((*delta.functions)[frames.back()].name, tick < 2 ? "parse" : "render");
  });
}

}  // namespace
}  // namespace stackwatch
