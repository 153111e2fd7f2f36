// SPDX-License-Identifier: Apache-2.0
#include "capture/writer.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <random>
#include <vector>

#include "capture/reader.h"
#include "tests/fakes/fake_clock.h"
#include "tests/fakes/memory_file.h"

namespace stackwatch {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr ProcessKey kRedis{4711, 120'000'000};

class CaptureWriterTest : public testing::TestWithParam<bool> {
 protected:
  CaptureWriter make() {
    auto writer = CaptureWriter::create(file_.writer(), "FILE", header_, {.compress = GetParam()});
    EXPECT_TRUE(writer);
    return std::move(*writer);
  }
  static ProcessIdentity identity(const ProcessKey& key) {
    ProcessIdentity identity;
    identity.key = key;
    identity.pid_in_ns = key.pid;
    identity.comm = "redis";
    return identity;
  }
  NamedDelta delta(double time_s, std::vector<NamedDelta::Value> values) {
    NamedDelta delta;
    delta.process = kRedis;
    delta.time_s = time_s;
    delta.interval_s = 1;
    delta.exposure_s = 0.5;
    delta.frequency_hz = 99;
    delta.values = std::move(values);
    delta.stacks = &stacks_;
    delta.functions = &functions_;
    return delta;
  }
  StackId stack(const std::vector<Function>& root_first) {
    std::vector<FunctionId> frames;
    for (const Function& function : root_first) frames.push_back(functions_.intern(function.object, function.name));
    return stacks_.intern(frames);
  }
  std::vector<CaptureRecord> read(const std::string& bytes, std::string* error = nullptr) {
    std::vector<CaptureRecord> records;
    auto reader = CaptureReader::create(bytes_of(bytes), "FILE");
    EXPECT_TRUE(reader) << reader.error().message();
    while (reader) {
      auto record = reader->next();
      if (!record && error != nullptr) *error = record.error().message();
      EXPECT_TRUE(record || error != nullptr);
      if (!record || !record->has_value()) break;
      records.push_back(std::move(**record));
    }
    return records;
  }
  template <class T>
  std::vector<T> only(const std::vector<CaptureRecord>& records) {
    std::vector<T> found;
    for (const CaptureRecord& record : records) {
      if (const T* wanted = std::get_if<T>(&record)) found.push_back(*wanted);
    }
    return found;
  }

  FakeClock clock_;
  CaptureHeader header_ = capture_header(clock_, 1, "host");
  MemoryFile file_;
  FunctionTable functions_;
  StackTable stacks_;
};

INSTANTIATE_TEST_SUITE_P(Forms, CaptureWriterTest, testing::Bool(),
                         [](const auto& parameter) { return parameter.param ? "Zstd" : "Plain"; });

TEST_P(CaptureWriterTest, AFullDiskIsAnErrorThatStays) {
  auto writer = CaptureWriter::create(UniqueFd(open("/dev/full", O_WRONLY)), "FILE", header_, {.compress = GetParam()});
  ASSERT_FALSE(writer) << "the first line is written at once";
  EXPECT_THAT(writer.error().message(), HasSubstr("write FILE: No space left"));
}

TEST_P(CaptureWriterTest, WhatWasCompleteBeforeTheDiskWasFullCanBeRead) {
  // A pipe whose reader goes away is a device that fails in the middle: what went through is what was written.
  int pipe_ends[2];
  ASSERT_EQ(pipe2(pipe_ends, O_CLOEXEC), 0);
  UniqueFd reader_end(pipe_ends[0]);
  UniqueFd writer_end(pipe_ends[1]);
  std::signal(SIGPIPE, SIG_IGN);
  auto writer = CaptureWriter::create(std::move(writer_end), "FILE", header_, {.compress = GetParam()});
  ASSERT_TRUE(writer);
  ASSERT_TRUE(writer->process(identity(kRedis)));
  const StackId main = stack({{"redis", "main"}});
  for (int i = 1; i <= 3; ++i) {
    ASSERT_TRUE(writer->delta(delta(1000 + i, {{main, i}})));
    ASSERT_TRUE(writer->tick(1000 + i));
  }
  std::string bytes(65536, '\0');
  bytes.resize(static_cast<size_t>(::read(reader_end.get(), bytes.data(), bytes.size())));
  reader_end.reset();
  ASSERT_TRUE(writer->delta(delta(1004, {{main, 4}}))) << "only gathered";
  const auto failed = writer->tick(1004);
  ASSERT_FALSE(failed);
  EXPECT_THAT(failed.error().message(), HasSubstr("write FILE: Broken pipe"));
  EXPECT_FALSE(writer->tick(1005));
  EXPECT_FALSE(writer->finish());
  std::string error;
  EXPECT_EQ(only<CapturedTick>(read(bytes, &error)).size(), 3U) << error;
}

TEST_P(CaptureWriterTest, AKilledRecorderLosesNoTickThatIsASecondOld) {
  CaptureWriter writer = make();
  ASSERT_TRUE(writer.process(identity(kRedis)));
  const StackId main = stack({{"redis", "main"}});
  for (int i = 1; i <= 10; ++i) {
    ASSERT_TRUE(writer.delta(delta(1000 + i, {{main, i}})));
    ASSERT_TRUE(writer.tick(1000 + i));
    std::string error;
    EXPECT_EQ(only<CapturedTick>(read(file_.text(), &error)).size(), static_cast<size_t>(i)) << error;
  }
}

TEST_P(CaptureWriterTest, EveryPrefixOfAFileCanBeReadUpToItsLastWholeLine) {
  CaptureWriter writer = make();
  ASSERT_TRUE(writer.process(identity(kRedis)));
  for (int i = 1; i <= 20; ++i) {
    const StackId id = stack({{"redis", "main"}, {"redis", "f" + std::to_string(i)}});
    ASSERT_TRUE(writer.delta(delta(1000 + i, {{id, i}})));
    ASSERT_TRUE(writer.tick(1000 + i));
  }
  ASSERT_TRUE(writer.finish());
  const std::string bytes = file_.text();
  const size_t whole = read(bytes).size();
  size_t most = 0;
  for (size_t size = 200; size < bytes.size(); size += 13) {
    std::string error;
    const size_t records = read(bytes.substr(0, size), &error).size();
    EXPECT_GE(records, most);
    most = records;
    EXPECT_LE(records, whole);
    EXPECT_TRUE(!error.empty() || bytes[size - 1] == '\n' || bytes[size] == '\n') << size;
  }
  EXPECT_GT(most, whole * 8 / 10);
}

TEST_P(CaptureWriterTest, ADeltaOfNobodyIsAnError) {
  CaptureWriter writer = make();
  EXPECT_FALSE(writer.delta(delta(1001, {})));
  ASSERT_TRUE(writer.process(identity(kRedis)));
  NamedDelta without = delta(1001, {});
  without.stacks = nullptr;
  EXPECT_FALSE(writer.delta(without));
  EXPECT_FALSE(writer.delta(delta(1001, {{StackId{5}, 1}}))) << "nor of a stack that is not in the table";
  EXPECT_TRUE(writer.ended(1001, {99, 0}, CapturedEnd::Kind::kExit)) << "and the end of nobody is nothing";
}

TEST_P(CaptureWriterTest, NumbersComeBackBitForBit) {
  CaptureWriter writer = make();
  ASSERT_TRUE(writer.process(identity(kRedis)));
  std::mt19937_64 random(7);
  std::uniform_real_distribution<double> uniform;
  std::vector<NamedDelta> written;
  double time_s = 1000.1;
  for (int i = 0; i < 2000; ++i) {
    time_s += uniform(random);
    NamedDelta one = delta(time_s, {{StackTable::kOther, static_cast<int64_t>(random())}});
    one.exposure_s = uniform(random) * 1e-9;
    one.interval_s = 1 / (uniform(random) + 1e-3);
    one.frequency_hz = 1e6 * uniform(random);
    written.push_back(one);
    ASSERT_TRUE(writer.delta(one));
  }
  ASSERT_TRUE(writer.finish());
  const auto deltas = only<CapturedDelta>(read(file_.text()));
  ASSERT_EQ(deltas.size(), written.size());
  for (size_t i = 0; i < deltas.size(); ++i) {
    EXPECT_EQ(header_.time_s(deltas[i].t), written[i].time_s);
    EXPECT_EQ(deltas[i].exposure_s, written[i].exposure_s);
    EXPECT_EQ(deltas[i].interval_s, written[i].interval_s);
    EXPECT_EQ(deltas[i].frequency_hz, written[i].frequency_hz);
    EXPECT_EQ(deltas[i].values[0].value, written[i].values[0].value);
  }
}

TEST_P(CaptureWriterTest, StacksAreWrittenOnceInTheTablesOrderWithTheirObjects) {
  CaptureWriter writer = make();
  ASSERT_TRUE(writer.process(identity(kRedis)));
  const StackId a = stack({{"libA", "main"}, {"libA", "init"}});
  const StackId b = stack({{"libA", "main"}, {"libB", "init"}});
  ASSERT_TRUE(writer.delta(delta(1001, {{b, 1}})));
  ASSERT_TRUE(writer.delta(delta(1002, {{a, 1}, {b, 2}})));
  ASSERT_TRUE(writer.finish());
  const auto records = read(file_.text());
  const auto stacks = only<CapturedStack>(records);
  ASSERT_EQ(stacks.size(), 3U) << "[other] is the first of every table";
  EXPECT_THAT(stacks[0].frames, ElementsAre("[other]"));
  EXPECT_THAT(stacks[1].frames, ElementsAre("main", "init"));
  EXPECT_THAT(stacks[2].frames, ElementsAre("main", "init"));
  EXPECT_NE(stacks[1].objects, stacks[2].objects);
  EXPECT_EQ(only<CapturedObject>(records).size(), 2U);
  const auto deltas = only<CapturedDelta>(records);
  ASSERT_EQ(deltas.size(), 2U);
  EXPECT_EQ(deltas[0].values[0].stack, stacks[2].number);
  EXPECT_EQ(deltas[1].values[0].stack, stacks[1].number);
}

TEST_P(CaptureWriterTest, NamesOfAnyBytesAreValidJson) {
  CaptureWriter writer = make();
  ProcessIdentity odd = identity(kRedis);
  odd.comm = "a\"\\\n\x01\xff";
  odd.cgroup = "/système";
  ASSERT_TRUE(writer.process(odd));
  ASSERT_TRUE(writer.finish());
  const auto processes = only<CapturedProcess>(read(file_.text()));
  ASSERT_EQ(processes.size(), 1U);
  EXPECT_EQ(processes[0].identity.comm, "a\"\\\n\x01\xef\xbf\xbd");
  EXPECT_EQ(processes[0].identity.cgroup, "/système");
}

TEST_P(CaptureWriterTest, SamplesAreDifferencesAndAddUpToTheTotals) {
  CaptureWriter writer = make();
  ProcessSample census;
  census.key = kRedis;
  census.on_cpu_ns = 5'000'000'001;
  census.voluntary_switches = 100;
  census.rss_bytes = 4096;
  census.nice = -5;
  ASSERT_TRUE(writer.process(identity(kRedis), &census));
  census.on_cpu_ns += 930'000'007;
  census.voluntary_switches += 3;
  census.rss_bytes = 1024;
  ASSERT_TRUE(writer.sample(1001, census));
  ProcessSample stranger = census;
  stranger.key.pid = 99;
  ASSERT_TRUE(writer.sample(1001, stranger)) << "nothing is written of it";
  ASSERT_TRUE(writer.finish());
  const auto records = read(file_.text());
  const auto processes = only<CapturedProcess>(records);
  ASSERT_TRUE(processes.at(0).census);
  EXPECT_EQ(processes[0].census->on_cpu_ns, 5'000'000'001U);
  EXPECT_EQ(processes[0].census->nice, -5);
  const auto samples = only<CapturedSample>(records);
  ASSERT_EQ(samples.size(), 1U);
  EXPECT_EQ(samples[0].difference.on_cpu_ns, 930'000'007U);
  EXPECT_EQ(samples[0].difference.voluntary_switches, 3U);
  EXPECT_EQ(samples[0].difference.rss_bytes, 1024U) << "a level";
}

TEST_P(CaptureWriterTest, AProcessIsToldAgainOnlyWhenItChanges) {
  CaptureWriter writer = make();
  ProcessIdentity redis = identity(kRedis);
  ASSERT_TRUE(writer.process(redis));
  ASSERT_TRUE(writer.process(redis));
  redis.comm = "other";
  ASSERT_TRUE(writer.process(redis));
  ASSERT_TRUE(writer.ended(1001, kRedis, CapturedEnd::Kind::kExit));
  EXPECT_FALSE(writer.knows(kRedis));
  ASSERT_TRUE(writer.process(redis));
  ASSERT_TRUE(writer.finish());
  const auto processes = only<CapturedProcess>(read(file_.text()));
  ASSERT_EQ(processes.size(), 3U);
  EXPECT_EQ(processes[0].number, processes[1].number);
  EXPECT_NE(processes[2].number, processes[1].number) << "after its end it is a new one";
}

TEST(CaptureFileTest, IsReadableByItsOwnerAlone) {
  const std::string path = "/tmp/stackwatch-capture-" + std::to_string(getpid());
  ASSERT_TRUE(CaptureWriter::create(path, {}));
  struct stat about {};
  ASSERT_EQ(stat(path.c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 0777U, 0600U);
  std::filesystem::remove(path);
  EXPECT_FALSE(CaptureWriter::create("/nonexistent/capture", {}));
}

}  // namespace
}  // namespace stackwatch
