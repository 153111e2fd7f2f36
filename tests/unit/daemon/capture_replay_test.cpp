// SPDX-License-Identifier: Apache-2.0
// What was recorded while the pipeline ran gives the same alerts again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <random>

#include "daemon/capture_recorder.h"
#include "daemon/capture_source.h"
#include "daemon/control/json.h"
#include "daemon/pipeline.h"
#include "tests/fakes/fake_clock.h"
#include "tests/fakes/fake_source.h"
#include "tests/fakes/memory_file.h"

namespace stackwatch {
namespace {

constexpr ProcessKey kRedis{4711, 10'000'000};
constexpr ProcessKey kNginx{99, 20'000'000};
constexpr uint64_t kJitterSeed = 11;

/// A machine that is not tidy: ticks jitter, deltas wait for names, the clock is set, functions of one name lie in two
/// files, samples are drawn, losses happen, and tables hold stacks that no delta has shown yet.
class UntidySource final : public DeltaSource {
 public:
  explicit UntidySource(FakeClock& clock) : clock_(clock) {}

  Result<std::optional<TickBatch>> next() override {
    std::uniform_real_distribution<double> jitter(0.997, 1.004);
    clock_.advance_s(jitter(random_));
    ++tick_;
    if (tick_ == 250) clock_.set_realtime_ns(clock_.realtime_ns() + 3'600'000'000'123);
    TickBatch batch;
    const uint64_t now_ns = clock_.monotonic_ns();
    batch.time_s = static_cast<double>(now_ns) * 1e-9;
    batch.realtime_offset_ns = static_cast<int64_t>(clock_.realtime_ns() - now_ns);
    // New every second, the table of this one grows ahead of its deltas.
    redis_.stacks->intern(std::vector{functions_.intern("redis", "main"),
                                      functions_.intern("redis", "rare" + std::to_string(tick_ % 50))});
    const bool shifted = tick_ > 200 && tick_ <= 330;
    NamedDelta redis = delta(kRedis, redis_, shifted ? std::vector{55, 30, 15} : std::vector{80, 5, 15}, now_ns);
    NamedDelta nginx = delta(kNginx, nginx_, tick_ > 280 ? std::vector{20, 60, 20} : std::vector{40, 40, 20}, now_ns);
    // Every tenth waits for a name and comes with the next.
    if (tick_ % 10 == 0) {
      waiting_.push_back(std::move(redis));
    } else {
      for (NamedDelta& late : std::exchange(waiting_, {})) batch.deltas.push_back(std::move(late));
      batch.deltas.push_back(std::move(redis));
    }
    if (tick_ <= 360) batch.deltas.push_back(std::move(nginx));
    if (tick_ == 360) batch.exits.push_back(kNginx);
    if (tick_ == 30) batch.replaced.push_back(kNginx);
    for (const NamedDelta& one : batch.deltas) lost_[{one.process, one.probe}] += one.lost;
    if (tick_ > 420) return std::optional<TickBatch>();
    return std::optional(std::move(batch));
  }
  [[nodiscard]] ProcessIdentity identify(const ProcessKey& process) const override {
    ProcessIdentity identity;
    identity.key = process;
    identity.pid_in_ns = process.pid + 1000;
    identity.comm = process == kNginx ? (tick_ >= 30 ? "nginx" : "sh") : "redis-server";
    identity.exe = "/usr/bin/" + identity.comm;
    identity.cgroup = "/system.slice/" + identity.comm;
    identity.unit = identity.comm + ".service";
    return identity;
  }
  [[nodiscard]] Losses losses(const ProcessKey& process, ProbeKind probe) const override {
    const auto known = lost_.find({process, probe});
    Losses all = known == lost_.end() ? Losses{} : known->second;
    all[LossReason::kFramesLate] += 17;  // from before the recording began
    return all;
  }

 private:
  struct Process {
    std::unique_ptr<StackTable> stacks = std::make_unique<StackTable>();
  };

  NamedDelta delta(const ProcessKey& key, Process& process, const std::vector<int>& shares, uint64_t now_ns) {
    static const std::vector<Function> kLeaves = {{"libparse", "init"}, {"librender", "init"}, {"", "[unnamed]"}};
    NamedDelta delta;
    delta.process = key;
    delta.time_s = static_cast<double>(now_ns) * 1e-9;
    delta.interval_s = 1.0 / 3 + 2.0 / 3;
    delta.frequency_hz = 99;
    delta.stacks = process.stacks.get();
    delta.functions = &functions_;
    std::discrete_distribution<size_t> draw(shares.begin(), shares.end());
    std::vector<int64_t> counts(shares.size());
    for (int i = 0; i < 90; ++i) ++counts[draw(random_)];
    for (size_t leaf = 0; leaf < counts.size(); ++leaf) {
      if (counts[leaf] == 0) continue;
      const std::vector frames = {functions_.intern("redis", "main"),
                                  functions_.intern(kLeaves[leaf].object, kLeaves[leaf].name)};
      delta.values.push_back({process.stacks->intern(frames), counts[leaf]});
    }
    delta.exposure_s = 90 / 99.0 + 1e-3 * std::uniform_real_distribution<double>()(random_);
    if (tick_ % 7 == 0) delta.lost[LossReason::kMapFull] = 1;
    return delta;
  }

  FakeClock& clock_;
  std::mt19937_64 random_{kJitterSeed};
  FunctionTable functions_;
  Process redis_;
  Process nginx_;
  std::map<std::pair<ProcessKey, ProbeKind>, Losses> lost_;
  std::vector<NamedDelta> waiting_;
  int tick_ = 0;
};

/// A source whose batches are recorded as they go by, as in a daemon that records.
class RecordedSource final : public DeltaSource {
 public:
  RecordedSource(DeltaSource& source, CaptureRecorder& recorder) : source_(source), recorder_(recorder) {}
  Result<std::optional<TickBatch>> next() override {
    auto batch = source_.next();
    if (batch && batch->has_value()) {
      EXPECT_TRUE(recorder_.record(**batch, source_));
    }
    return batch;
  }
  [[nodiscard]] ProcessIdentity identify(const ProcessKey& process) const override { return source_.identify(process); }
  [[nodiscard]] Losses losses(const ProcessKey& process, ProbeKind probe) const override {
    return source_.losses(process, probe);
  }

 private:
  DeltaSource& source_;
  CaptureRecorder& recorder_;
};

/// Every alert that fired or was resolved, in order, as JSON: all that anybody is told.
std::string alerts_of(DeltaSource& source, const Clock& clock) {
  Detection detection({}, {});
  AlertPolicy policy({}, clock, sequential_alert_ids(),
                     {[&](const ProcessKey& process) { return source.identify(process); },
                      [&](const ProcessKey& process, ProbeKind probe) { return source.losses(process, probe); }});
  Pipeline pipeline(source, detection, policy);
  std::string told;
  for (;;) {
    auto outcome = pipeline.tick();
    if (!outcome) return told + outcome.error().message();
    if (outcome->ended) return told;
    for (const Alert& alert : outcome->changed) told += alert_to_json(alert) + "\n";
  }
}

std::string replayed(const std::string& capture) {
  CaptureSource source(std::move(*CaptureReader::create(bytes_of(capture), "capture")));
  return alerts_of(source, source.clock());
}

/// Records a source while the pipeline runs over it; what it alerted.
std::string recorded(DeltaSource& source, FakeClock& clock, const MemoryFile& file) {
  CaptureRecorder recorder(*CaptureWriter::create(file.writer(), "capture", capture_header(clock, 1, "host")));
  RecordedSource passing(source, recorder);
  std::string alerts = alerts_of(passing, clock);
  EXPECT_TRUE(recorder.finish());
  return alerts;
}

TEST(CaptureReplayTest, GivesTheAlertsOfTheRecordedRunToTheLastDigit) {
  FakeClock clock;
  UntidySource machine(clock);
  const MemoryFile file;
  const std::string live = recorded(machine, clock, file);
  EXPECT_GE(std::count(live.begin(), live.end(), '\n'), 4) << live;
  EXPECT_NE(live.find("\"state\":\"resolved\""), std::string::npos);
  EXPECT_NE(live.find("the process exited"), std::string::npos) << live;
  EXPECT_NE(live.find("\"frames_late\":17"), std::string::npos);
  EXPECT_EQ(replayed(file.text()), live);
}

TEST(CaptureReplayTest, TwiceGivesTheSameBytesAndACaptureOfACaptureIsTheSameCapture) {
  FakeClock clock;
  UntidySource machine(clock);
  const MemoryFile file;
  recorded(machine, clock, file);
  const std::string capture = file.text();
  EXPECT_EQ(replayed(capture), replayed(capture));

  CaptureSource again(std::move(*CaptureReader::create(bytes_of(capture), "capture")));
  const MemoryFile copy;
  CaptureRecorder recorder(*CaptureWriter::create(copy.writer(), "copy", again.header()));
  for (;;) {
    auto batch = again.next();
    ASSERT_TRUE(batch);
    if (!batch->has_value()) break;
    ASSERT_TRUE(recorder.record(**batch, again));
  }
  ASSERT_TRUE(recorder.finish());
  EXPECT_EQ(copy.text(), capture);
}

TEST(CaptureReplayTest, ACaptureThatWasCutGivesTheAlertsBeforeIt) {
  FakeClock clock;
  UntidySource machine(clock);
  const MemoryFile file;
  const std::string live = recorded(machine, clock, file);
  const std::string capture = file.text();
  const std::string cut = replayed(capture.substr(0, capture.size() * 3 / 4));
  const size_t error = cut.rfind("read capture: line ");
  ASSERT_NE(error, std::string::npos);
  EXPECT_GT(error, 0U);
  EXPECT_TRUE(live.starts_with(cut.substr(0, error)));
}

TEST(CaptureRecorderTest, TheWholeCensusIsWrittenWhereItIsWantedAndForgottenWithTheProcess) {
  FakeClock clock;
  FakeSource source;
  source.does(kRedis, {{"parse", 1}});
  const MemoryFile file;
  CaptureRecorder recorder(*CaptureWriter::create(file.writer(), "capture", capture_header(clock, 1, "host")),
                           CaptureRecorder::Samples::kAll);
  for (int tick = 0; tick < 3; ++tick) {
    TickBatch batch = source.batch();
    std::vector<ProcessSample> census(tick < 2 ? 2 : 1);
    census[0].key = kRedis;
    if (tick < 2) census[1].key = kNginx;
    batch.samples = census;
    ASSERT_TRUE(recorder.record(batch, source));
  }
  ASSERT_TRUE(recorder.finish());
  std::vector<size_t> samples;
  std::vector<ProcessKey> exits;
  const std::string bytes = file.text();
  CaptureSource again(std::move(*CaptureReader::create(bytes_of(bytes), "capture")));
  for (;;) {
    auto batch = again.next();
    ASSERT_TRUE(batch) << batch.error().message();
    if (!batch->has_value()) break;
    samples.push_back((*batch)->samples.size());
    exits.insert(exits.end(), (*batch)->exits.begin(), (*batch)->exits.end());
  }
  EXPECT_THAT(samples, testing::ElementsAre(2, 2, 1));
  EXPECT_THAT(exits, testing::ElementsAre(kNginx));
}

TEST(CaptureRecorderTest, AnErrorOfTheFileIsTold) {
  FakeClock clock;
  FakeSource source;
  source.does(kRedis, {{"parse", 1}});
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  UniqueFd reader(ends[0]);
  CaptureRecorder recorder(*CaptureWriter::create(UniqueFd(ends[1]), "FILE", capture_header(clock, 1, "host")));
  std::signal(SIGPIPE, SIG_IGN);
  reader.reset();
  const auto failed = recorder.record(source.batch(), source);
  ASSERT_FALSE(failed);
  EXPECT_THAT(failed.error().message(), testing::HasSubstr("write FILE"));
  EXPECT_FALSE(recorder.record(source.batch(), source));
}

}  // namespace
}  // namespace stackwatch
