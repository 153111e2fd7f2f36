// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <rapidjson/document.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>

#include "tests/kernel/support/child.h"
#include "tests/kernel/support/require.h"
#include "tests/kernel/support/sampling.h"

namespace stackwatch {
namespace {

size_t open_fds() {
  const auto entries = std::filesystem::directory_iterator("/proc/self/fd");
  return static_cast<size_t>(std::distance(begin(entries), end(entries)));
}

/// Which BPF links this process holds, by the kernel's numbers; none of perf events before Linux 5.15.
std::multiset<std::string> held_links() {
  std::multiset<std::string> ids;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fdinfo")) {
    std::ifstream file(entry.path());
    for (std::string line; std::getline(file, line);) {
      if (line.starts_with("link_id:")) ids.insert(line);
    }
  }
  return ids;
}

double json_number(const std::string& output, const char* name) {
  rapidjson::Document document;
  document.Parse(output.c_str());
  if (document.HasParseError() || !document.IsObject() || !document.HasMember(name)) {
    ADD_FAILURE() << "no " << name << " in: " << output;
    return 0;
  }
  return document[name].GetDouble();
}

// Watches one run of `burn` and compares with the CPU time that it tells itself.
void expect_burn_counted(const std::string& where, bool children, bool expect_counted) {
  const double stolen = stolen_s();
  const LiveEngine live;
  Child burn({test_program("burn"), "--where", where, "--seconds", "2", "--delay", "0.5"},
             {.stopped = true, .environment = {}});
  auto probe = live.attach(burn.key(), 499, children);
  burn.go();
  burn.wait();
  Counted counted;
  live.read_into(*probe, counted);
  const auto adopted = live.engine->take_adopted();
  if (children) {
    for (const auto& child : adopted) {
      auto own = live.attach(child.process, 499, true);
      live.read_into(*own, counted);
    }
  }
  const double cpu_s = json_number(burn.output(), "cpu_s");
  ASSERT_GT(cpu_s, 0.5) << burn.output();
  if (expect_counted) {
    expect_samples_match(counted.samples, cpu_s, 499, stolen_s() - stolen);
  } else {
    EXPECT_LT(static_cast<double>(counted.samples), 0.05 * cpu_s * 499) << "the child was counted";
    EXPECT_TRUE(adopted.empty());
  }
  EXPECT_LT(static_cast<double>(counted.lost.uncounted()), 0.01 * static_cast<double>(counted.samples) + 1);
}

TEST(OnCpu, MainThreadIsCounted) {
  STACKWATCH_REQUIRE_BPF();
  expect_burn_counted("main", false, true);
}

TEST(OnCpu, ThreadsThatStartLaterAreCounted) {
  STACKWATCH_REQUIRE_BPF();
  expect_burn_counted("late-thread", false, true);
}

TEST(OnCpu, ChildrenAreCountedWhereTheRuleSaysSo) {
  STACKWATCH_REQUIRE_BPF();
  expect_burn_counted("late-child", true, true);
}

TEST(OnCpu, ChildrenAreNotCountedWhereTheRuleDoesNot) {
  STACKWATCH_REQUIRE_BPF();
  expect_burn_counted("late-child", false, false);
}

TEST(OnCpu, EachStackHasItsFramesOnceAndTheUserPartReachesMain) {
  STACKWATCH_REQUIRE_BPF();
  const LiveEngine live;
  Child burn({test_program("burn"), "--seconds", "2"});
  auto probe = live.attach(burn.key(), 499);
  Counted counted;
  for (int i = 0; i < 4; ++i) {
    pass(0.4);
    live.read_into(*probe, counted);
  }
  ASSERT_GT(counted.samples, 100);
  int64_t deep_enough = 0;
  for (const auto& [hash, samples] : counted.by_stack) {
    ASSERT_TRUE(counted.frames.contains(hash)) << "a stack without frames";
    if (counted.frames[hash].user_frames.size() >= 4) deep_enough += samples;  // burn_x, burn_all, …, main
  }
  EXPECT_GT(static_cast<double>(deep_enough), 0.95 * static_cast<double>(counted.samples));
}

TEST(OnCpu, EachProcessHasItsOwnRate) {
  STACKWATCH_REQUIRE_BPF();
  const double stolen = stolen_s();
  const LiveEngine live;
  Child slow({test_program("burn"), "--seconds", "3"});
  Child fast({test_program("burn"), "--seconds", "3"});
  auto slow_probe = live.attach(slow.key(), 50);
  auto fast_probe = live.attach(fast.key(), 400);
  const double slow_before = static_cast<double>(cpu_time_ns(slow.pid())) * 1e-9;
  const double fast_before = static_cast<double>(cpu_time_ns(fast.pid())) * 1e-9;
  pass(2);
  Counted slow_counted;
  Counted fast_counted;
  live.read_into(*slow_probe, slow_counted);
  live.read_into(*fast_probe, fast_counted);
  const double slow_s = static_cast<double>(cpu_time_ns(slow.pid())) * 1e-9 - slow_before;
  const double fast_s = static_cast<double>(cpu_time_ns(fast.pid())) * 1e-9 - fast_before;
  expect_samples_match(slow_counted.samples, slow_s, 50, stolen_s() - stolen);
  expect_samples_match(fast_counted.samples, fast_s, 400, stolen_s() - stolen);
}

TEST(OnCpu, TheLastCountsOfAProcessThatEndsAreThere) {
  STACKWATCH_REQUIRE_BPF();
  const LiveEngine live;
  Child burn({test_program("burn"), "--seconds", "30"});
  auto probe = live.attach(burn.key(), 499);
  pass(1);
  burn.signal(SIGKILL);
  burn.wait();
  Counted counted;
  live.read_into(*probe, counted);
  EXPECT_GT(counted.samples, 100);
  probe->detach();
  EXPECT_FALSE(probe->read()) << "nothing can be read after detaching";
}

TEST(OnCpu, AnotherProcessWithTheSamePidIsNotCounted) {
  STACKWATCH_REQUIRE_BPF();
  const LiveEngine live;
  Child burn({test_program("burn"), "--seconds", "5"});
  ProcessKey earlier = burn.key();
  earlier.start_time_ns -= 10 * kStartTimeGranularityNs;  // whoever had this pid before
  auto probe = live.attach(earlier, 499);
  pass(1);
  Counted counted;
  live.read_into(*probe, counted);
  EXPECT_EQ(counted.samples, 0);
}

TEST(OnCpu, FiveThousandThreadsAreOneProcess) {
  STACKWATCH_REQUIRE_BPF();
  const double stolen = stolen_s();
  const LiveEngine live;
  Child threads({test_program("threads"), "--count", "5000", "--cores", "0.8", "--seconds", "4"},
                {.stopped = true, .environment = {}});
  auto probe = live.attach(threads.key(), 499);
  threads.go();
  threads.wait();
  Counted counted;
  live.read_into(*probe, counted);
  expect_samples_match(counted.samples, json_number(threads.output(), "cpu_s"), 499, stolen_s() - stolen);
  EXPECT_LT(static_cast<double>(counted.lost.uncounted()), 0.01 * static_cast<double>(counted.samples));
}

TEST(OnCpu, ThreadsThatLiveBetweenTwoTicksAreCounted) {
  STACKWATCH_REQUIRE_BPF();
  const double stolen = stolen_s();
  const LiveEngine live;
  Child threads(
      {test_program("threads"), "--count", "20", "--cores", "0.8", "--churn", "--life-ms", "50", "--seconds", "3"},
      {.stopped = true, .environment = {}});
  auto probe = live.attach(threads.key(), 499);
  threads.go();
  threads.wait();
  Counted counted;
  live.read_into(*probe, counted);
  expect_samples_match(counted.samples, json_number(threads.output(), "cpu_s"), 499, stolen_s() - stolen);
}

TEST(OnCpu, TwoHundredProcessesLeaveNoDescriptorsBehind) {
  STACKWATCH_REQUIRE_BPF();
  const double stolen = stolen_s();
  const LiveEngine live;
  std::vector<std::unique_ptr<Child>> children;
  for (int i = 0; i < 200; ++i) {
    children.push_back(std::make_unique<Child>(
        std::vector<std::string>{test_program("threads"), "--count", "1", "--cores", "0.003", "--seconds", "60"}));
  }
  const size_t before = open_fds();
  for (int round = 0; round < 3; ++round) {
    std::vector<std::unique_ptr<Probe>> probes;
    uint64_t used_ns = 0;
    for (const auto& child : children) {
      probes.push_back(live.attach(child->key(), 499));
      used_ns -= cpu_time_ns(child->pid());
    }
    pass(2);
    live.collect();
    for (const auto& child : children) used_ns += cpu_time_ns(child->pid());
    Counted counted;
    for (const auto& probe : probes) counted.add(probe->read().value());
    expect_samples_match(counted.samples, static_cast<double>(used_ns) * 1e-9, 499, stolen_s() - stolen);
  }
  EXPECT_EQ(open_fds(), before);
}

TEST(OnCpu, AFullMapIsALossThatAddsUp) {
  STACKWATCH_REQUIRE_BPF();
  const double stolen = stolen_s();
  const LiveEngine live({.stacks = 64, .processes = 8, .ring_bytes = 1U << 20});
  Child deep({test_program("deep"), "--distinct", "20000", "--seconds", "3"}, {.stopped = true, .environment = {}});
  auto probe = live.attach(deep.key(), 999);
  deep.go();
  deep.wait();
  Counted counted;
  live.read_into(*probe, counted);
  const uint64_t lost = counted.lost[LossReason::kMapFull];
  EXPECT_GT(lost, 100U);
  expect_samples_match(counted.samples + static_cast<int64_t>(lost), json_number(deep.output(), "cpu_s"), 999,
                       stolen_s() - stolen);
}

TEST(OnCpu, AFullRingOnlyDelaysFrames) {
  STACKWATCH_REQUIRE_BPF();
  const LiveEngine live({.stacks = 65536, .processes = 8, .ring_bytes = 4096});
  Child deep({test_program("deep"), "--distinct", "5", "--seconds", "4"});
  auto probe = live.attach(deep.key(), 999);
  Counted counted;
  for (int i = 0; i < 30; ++i) {
    pass(0.1);
    live.read_into(*probe, counted);
  }
  EXPECT_GT(counted.samples, 100);
  for (const auto& [hash, samples] : counted.by_stack) {
    if (samples > 20) {
      EXPECT_TRUE(counted.frames.contains(hash)) << "a stack with " << samples << " samples was never told";
    }
  }
}

TEST(OnCpu, DeepRecursionIsCountedAsTruncated) {
  STACKWATCH_REQUIRE_BPF();
  const LiveEngine live;
  Child deep({test_program("deep"), "--frames", "1000", "--seconds", "3"});
  auto probe = live.attach(deep.key(), 499);
  pass(1.5);
  Counted counted;
  live.read_into(*probe, counted);
  ASSERT_GT(counted.samples, 100);
  EXPECT_GT(static_cast<double>(counted.lost[LossReason::kTruncated]), 0.9 * static_cast<double>(counted.samples));
  EXPECT_EQ(counted.lost.uncounted(), 0U);
}

// To open them again loses what of their period has passed, and takes longer than all the rest of a tick.
TEST(OnCpu, EventsGoOnWhileNothingChanges) {
  STACKWATCH_REQUIRE_BPF();
  const LiveEngine live;
  Child burn({test_program("burn"), "--seconds", "20"});
  const auto probe = live.attach(burn.key(), 99);
  const auto links = held_links();
  for (int i = 0; i < 20; ++i) live.collect();
  EXPECT_EQ(held_links(), links);
  Child other({test_program("burn"), "--seconds", "20"});
  const auto second = live.attach(other.key(), 49);
  EXPECT_EQ(held_links(), links) << "who wants fewer samples changes nothing for others";
}

// What the service manager keeps for a daemon that may not open them.
TEST(OnCpu, EventsThatWereGivenAreSetStartedAndStopped) {
  STACKWATCH_REQUIRE_BPF();
  auto opened = open_events_to_give();
  ASSERT_TRUE(opened) << opened.error().message();
  LiveEngine live({}, sort_given_events(std::move(*opened)).clock);
  Child burn({test_program("burn"), "--seconds", "60"});
  std::multiset<std::string> links;
  // Each round is another rate, and nobody wants anything between two of them: the same events again.
  for (const double hertz : {99.0, 997.0, 199.0}) {
    auto probe = live.attach(burn.key(), hertz);
    Counted counted;
    live.read_into(*probe, counted);  // what came while it was attached
    const uint64_t before_ns = cpu_time_ns(burn.pid());
    counted = {};
    std::this_thread::sleep_for(std::chrono::milliseconds(1500));
    const double used_s = 1e-9 * static_cast<double>(cpu_time_ns(burn.pid()) - before_ns);
    live.read_into(*probe, counted);
    EXPECT_NEAR(static_cast<double>(counted.samples), hertz * used_s, 0.1 * hertz * used_s + 10) << hertz << " Hz";
    if (links.empty()) links = held_links();
    EXPECT_EQ(held_links(), links) << "they stay attached, and none are opened beside them";
    probe->detach();
    live.collect();
  }
}

TEST(OnCpu, AdoptedChildrenThatNobodyWantsAreForgotten) {
  STACKWATCH_REQUIRE_BPF();
  const LiveEngine live;
  Child forker({test_program("forker"), "--rate", "50", "--burn-ms", "20", "--seconds", "2"},
               {.stopped = true, .environment = {}});
  const ProcessKey parent = forker.key();
  auto probe = live.attach(parent, 999, true);
  forker.go();
  forker.wait();
  live.collect();
  const auto adopted = live.engine->take_adopted();
  EXPECT_GT(adopted.size(), 50U);
  for (const auto& child : adopted) {
    EXPECT_EQ(child.parent, parent);
    live.engine->forget(child.process);
  }
  live.collect();
  EXPECT_TRUE(live.engine->take_adopted().empty());
}

}  // namespace
}  // namespace stackwatch
