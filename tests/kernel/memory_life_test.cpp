// SPDX-License-Identifier: Apache-2.0
// The memory probe and what happens to its target: threads, forks, other programs, libraries that come and go, signals,
// limits. No harm to the target, and nothing lost silently.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "tests/kernel/support/memory.h"
#include "tests/kernel/support/require.h"

namespace stackwatch {
namespace {

std::string text_of(const Losses& losses) {
  std::string text;
  for (size_t i = 0; i < kLossReasons; ++i) {
    if (losses.count[i] == 0) continue;
    text += std::string(to_string(static_cast<LossReason>(i))) + " " + std::to_string(losses.count[i]) + ", ";
  }
  return text;
}

constexpr double kPatienceS = 30;

MemoryLimits no_limit() {
  MemoryLimits limits;
  limits.overhead_percent = 1e9;
  return limits;
}

// Has the program do its next step, and waits until it has.
int64_t step(Child& child, const std::string& name) {
  child.signal(SIGUSR1);
  EXPECT_TRUE(child.wait_for("\n" + name + " ", kPatienceS)) << child.output();
  EXPECT_TRUE(child.wait_for("\n", kPatienceS));
  const std::string output = child.output();
  return std::atoll(output.c_str() + output.find("\n" + name + " ") + name.size() + 2);
}

int64_t counted_now(LiveMemory& live, Probe& probe, Losses* lost = nullptr) {
  Counted counted;
  live.read_into(probe, counted);
  if (lost != nullptr) *lost += counted.lost;
  return counted.samples;
}

// CPU time of a malloc and free in a program that runs on now.
double ns_per_pair(const std::string& seconds) {
  Child child({test_program("mallocs"), "--seconds", seconds});
  child.wait();
  return std::atof(child.output().c_str());
}

void expect_leak_exact(const MemoryLimits& limits) {
  LiveMemory live(limits);
  Child child({test_program("leaker"), "1.5"});
  ASSERT_TRUE(child.wait_for("ready 0\n", kPatienceS));
  auto probe = live.attach(child.key());
  child.signal(SIGUSR1);
  Counted counted;
  while (child.output().find("end 0") == std::string::npos && child.running()) {
    pass(0.2);
    live.read_into(*probe, counted);  // while it allocates
  }
  live.read_into(*probe, counted);
  std::istringstream output(child.output());
  std::string name;
  int64_t in_sites = 0;
  for (std::string line; std::getline(output, line);) {
    uint64_t start = 0;
    uint64_t end = 0;
    int64_t expected = 0;
    std::istringstream words(line);
    if (line.rfind("site_", 0) != 0 || !(words >> name >> start >> end >> expected)) continue;
    int64_t bytes = 0;
    for (const auto& [hash, value] : counted.by_stack) {
      const auto& frames = counted.frames[hash].user_frames;
      const bool here = std::ranges::any_of(frames, [&](uint64_t at) { return at >= start && at < end; });
      if (here) bytes += value;
    }
    EXPECT_EQ(bytes, expected) << name;
    in_sites += bytes;
  }
  EXPECT_GT(in_sites, 100 * 333) << "it leaked nothing";
  EXPECT_EQ(counted.samples, in_sites) << "bytes outside of the three functions";
  EXPECT_EQ(counted.lost.uncounted(), 0U) << text_of(counted.lost);
  EXPECT_EQ(counted.lost[LossReason::kMissedFree], 0U) << text_of(counted.lost);
  // glibc passes what a thread that ends has in its cache to free() a second time.
  EXPECT_LT(counted.lost[LossReason::kUnknownFree], 3 * 64 * 8U);
  child.signal(SIGUSR1);
  EXPECT_EQ(child.wait(), 0);
}

TEST(MemoryLife, ALeakIsExactInItsCallSiteWithFreesOnOtherThreads) {
  STACKWATCH_REQUIRE_BPF();
  expect_leak_exact(no_limit());
}

TEST(MemoryLife, TheSameWithoutMultiProbes) {
  STACKWATCH_REQUIRE_BPF();
  MemoryLimits limits = no_limit();
  limits.allow_multi = false;
  expect_leak_exact(limits);
}

TEST(MemoryLife, NestedCallsCountOnceAndThoseThatNeverReturnNotAtAll) {
  STACKWATCH_REQUIRE_BPF();
  LiveMemory live(no_limit());
  Child child({test_program("allocate_odd"), "nested", "leaves_for_good"});
  ASSERT_TRUE(child.wait_for("ready 0\n", kPatienceS));
  auto probe = live.attach(child.key());
  Losses lost;
  EXPECT_EQ(step(child, "nested"), 1000);
  EXPECT_EQ(counted_now(live, *probe), 1000);
  const int64_t expected = step(child, "leaves_for_good");
  EXPECT_EQ(expected, 400);
  EXPECT_EQ(counted_now(live, *probe, &lost), expected);
  EXPECT_EQ(lost[LossReason::kAbandonedCall], 10U);
}

TEST(MemoryLife, AChildThatIsForkedIsNotItsParent) {
  STACKWATCH_REQUIRE_BPF();
  LiveMemory live(no_limit());
  Child child({test_program("allocate_odd"), "fork"});
  ASSERT_TRUE(child.wait_for("ready 0\n", kPatienceS));
  auto probe = live.attach(child.key());
  EXPECT_EQ(step(child, "fork"), 5000);
  EXPECT_EQ(counted_now(live, *probe), 5000);
  EXPECT_THAT(live.engine->take_adopted(), ::testing::IsEmpty());
}

TEST(MemoryLife, ChildrenAreToldOf) {
  STACKWATCH_REQUIRE_BPF();
  LiveMemory live(no_limit());
  Child shell({"/bin/sh", "-c", "read -r line </dev/null; :; " + test_program("mallocs") + " --seconds 2; :"},
              {.stopped = true, .environment = {}});
  auto probe = live.attach_only(shell.key(), {.children = true});
  shell.go();
  std::vector<ProbeEngine::Adopted> adopted;
  for (int i = 0; i < 100 && adopted.empty(); ++i) {
    pass(0.02);
    counted_now(live, *probe);
    adopted = live.engine->take_adopted();
  }
  ASSERT_EQ(adopted.size(), 1U);
  EXPECT_EQ(adopted[0].parent, shell.key());
  auto of_child = live.attach_only(adopted[0].process, {.children = true});
  EXPECT_TRUE(live.wait_for(adopted[0].process, MemoryPhase::kCounting));
}

TEST(MemoryLife, AnotherProgramInTheProcessStartsFromNothing) {
  STACKWATCH_REQUIRE_BPF();
  LiveMemory live(no_limit());
  Child child({test_program("allocate_odd"), "exec"});
  ASSERT_TRUE(child.wait_for("ready 0\n", kPatienceS));
  auto probe = live.attach(child.key());
  int64_t total = counted_now(live, *probe);
  child.signal(SIGUSR1);
  ASSERT_TRUE(child.wait_for("ready 0\nready 0\n", kPatienceS)) << child.output();
  for (int i = 0; i < 3; ++i) {
    total += counted_now(live, *probe);
    live.control->wait_until_settled();
  }
  const int64_t started = total;
  EXPECT_LT(started, 100'000) << "what the program before had allocated is gone";
  EXPECT_GE(started, 0);
  EXPECT_EQ(step(child, "after_exec"), 4321);
  total += counted_now(live, *probe);
  EXPECT_EQ(total - started, 4321);
}

TEST(MemoryLife, AnAllocatorThatComesWithALibraryIsFoundAndMayGo) {
  STACKWATCH_REQUIRE_BPF();
  LiveMemory live(no_limit());
  Child child({test_program("allocate_odd"), "library", "library_again", "library_gone"},
              {.stopped = false, .environment = {"PLUGIN=" + test_program("plugin_allocator.so")}});
  ASSERT_TRUE(child.wait_for("ready 0\n", kPatienceS));
  auto probe = live.attach(child.key());
  EXPECT_EQ(step(child, "library"), 10);
  for (int i = 0; i < 150; ++i) {  // the finder looks once in kLookAgainNs
    live.turn();
    pass(0.02);
  }
  live.control->wait_until_settled();
  counted_now(live, *probe);
  EXPECT_EQ(step(child, "library_again"), 2000);
  EXPECT_EQ(counted_now(live, *probe), 2000);
  EXPECT_EQ(step(child, "library_gone"), 0);
  counted_now(live, *probe);
  EXPECT_EQ(step(child, "end"), 0);
  child.signal(SIGUSR1);
  EXPECT_EQ(child.wait(), 0);
}

TEST(MemoryLife, AFullMapLosesBytesAndTellsHowMany) {
  STACKWATCH_REQUIRE_BPF();
  MemoryLimits limits = no_limit();
  limits.addresses = 64;
  LiveMemory live(limits);
  Child child({test_program("leaker"), "0.5"});
  ASSERT_TRUE(child.wait_for("ready 0\n", kPatienceS));
  auto probe = live.attach(child.key());
  child.signal(SIGUSR1);
  ASSERT_TRUE(child.wait_for("end 0\n", kPatienceS));
  Losses lost;
  const int64_t counted = counted_now(live, *probe, &lost);
  EXPECT_GT(lost[LossReason::kMapFull], 100'000U);
  EXPECT_GT(lost[LossReason::kUnknownFree], 100U) << "of what was not counted";
  EXPECT_GE(counted, 0);
  EXPECT_LE(counted, 64 * 3000);
}

TEST(MemoryLife, AProcessThatBecomesTooSlowIsLetGoAndLookedAtAgain) {
  STACKWATCH_REQUIRE_BPF();
  MemoryLimits limits;
  limits.overhead_percent = 5;
  limits.pause_ns = 1'000'000'000;
  limits.window_ns = 500'000'000;
  LiveMemory live(limits);
  Child child({test_program("mallocs"), "--seconds", "60"});
  pass(0.2);
  auto probe = live.attach(child.key());
  std::vector<MemoryPhase> phases;
  for (int i = 0; i < 200 && std::ranges::count(phases, MemoryPhase::kPaused) < 3; ++i) {
    counted_now(live, *probe);
    const MemoryPhase phase = live.phase(child.key());
    if (phase != MemoryPhase::kAttaching && (phases.empty() || phases.back() != phase)) phases.push_back(phase);
    pass(0.1);
  }
  EXPECT_EQ(phases, (std::vector{MemoryPhase::kCounting, MemoryPhase::kPaused, MemoryPhase::kCounting,
                                 MemoryPhase::kPaused, MemoryPhase::kCounting, MemoryPhase::kPaused}));
  ASSERT_EQ(live.errors.size(), 1U) << "told once";
  EXPECT_THAT(live.errors[0], ::testing::HasSubstr("allocator calls/s"));
  const auto state = live.control->state(child.key());
  ASSERT_TRUE(state);
  EXPECT_GT(state->calls_per_s, 10'000);
  EXPECT_GT(state->ns_per_call, 100);
  EXPECT_GT(state->overhead_percent, 100);
}

TEST(MemoryLife, ProbesComeAndGoUnderLoadAndLeaveTheTargetAsItWas) {
  STACKWATCH_REQUIRE_BPF();
  LiveMemory live(no_limit());
  Child child({test_program("leaker"), "8"});
  ASSERT_TRUE(child.wait_for("ready 0\n", kPatienceS));
  child.signal(SIGUSR1);
  for (int i = 0; i < 15; ++i) {
    auto probe = live.attach(child.key());
    counted_now(live, *probe);
    probe->detach();
    EXPECT_FALSE(probe->read());
  }
  live.control->wait_until_settled();
  ASSERT_TRUE(child.wait_for("end 0\n", kPatienceS)) << child.output();
  child.signal(SIGUSR1);
  EXPECT_EQ(child.wait(), 0);
}

TEST(MemoryLife, ATargetThatIsStoppedOrKilledDoesNoHarm) {
  STACKWATCH_REQUIRE_BPF();
  LiveMemory live(no_limit());
  Child child({test_program("mallocs"), "--seconds", "60", "--threads", "4"});
  pass(0.1);
  auto probe = live.attach(child.key());
  child.signal(SIGSTOP);
  pass(0.1);
  counted_now(live, *probe);
  EXPECT_EQ(counted_now(live, *probe), 0) << "nothing happens in it";
  child.signal(SIGCONT);
  pass(0.1);
  child.signal(SIGKILL);
  EXPECT_EQ(child.wait(), 128 + SIGKILL);
  EXPECT_LE(std::abs(counted_now(live, *probe)), 4 * 64) << "at most what each thread was about to free";
  probe->detach();
  // Attaching to one that is gone neither works nor fails loudly.
  auto late = live.attach_only(ProcessKey{child.pid(), 10'000'000});
  for (int i = 0; i < 20; ++i) {
    live.turn();
    pass(0.01);
  }
  EXPECT_NE(live.phase(ProcessKey{child.pid(), 10'000'000}), MemoryPhase::kCounting);
}

constexpr char kPlugin[] = "plugin_allocator.so";

Child::Options with_plugin() { return {.stopped = false, .environment = {"PLUGIN=" + test_program(kPlugin)}}; }

// Whether a stack was counted that goes through the code of the library as it is mapped now.
bool counts_in_plugin(const Child& child, const Counted& counted) {
  std::ifstream maps("/proc/" + std::to_string(child.pid()) + "/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find(" r-xp ") == std::string::npos || !line.ends_with(kPlugin)) continue;
    const uint64_t begin = std::stoull(line, nullptr, 16);
    const uint64_t end = std::stoull(line.substr(line.find('-') + 1), nullptr, 16);
    return std::ranges::any_of(counted.frames, [&](const auto& known) {
      const auto& frames = known.second.user_frames;
      return std::ranges::any_of(frames, [&](uint64_t at) { return at >= begin && at < end; });
    });
  }
  return false;
}

size_t times(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

// Turns until the program has said something so many times, or has ended.
bool said(LiveMemory& live, Child& child, const std::string& what, size_t count) {
  for (double waited = 0; waited < kPatienceS; waited += 0.01) {
    live.turn();
    if (times(child.output(), what) >= count) return true;
    if (!child.running()) return false;
    pass(0.01);
  }
  return false;
}

// With the probes in it a library is unloaded and comes back 200 times, its process is stopped, let go of, and becomes
// another program twice, while three threads are in the allocator all the time.
TEST(MemoryLife, ARestlessTargetComesToNoHarm) {
  STACKWATCH_REQUIRE_BPF();
  LiveMemory live(no_limit());
  Child child({test_program("restless"), "2"}, with_plugin());
  ASSERT_TRUE(child.wait_for("loaded 0\n", kPatienceS)) << child.output();
  auto probe = live.attach(child.key());
  for (size_t image = 1; image <= 3; ++image) {
    ASSERT_TRUE(said(live, child, "loaded 0\n", image)) << child.output();
    Counted counted;
    for (double waited = 0; waited < kPatienceS && !counts_in_plugin(child, counted); waited += 0.05) {
      pass(0.05);
      live.read_into(*probe, counted);
    }
    ASSERT_TRUE(counts_in_plugin(child, counted)) << "the probes are not in the library of image " << image;
    if (image == 2) {
      child.signal(SIGSTOP);
      probe->detach();
      live.control->wait_until_settled();
      probe = live.attach(child.key());
      child.signal(SIGCONT);
    }
    child.signal(SIGUSR1);
    ASSERT_TRUE(said(live, child, "unloaded 200\n", image)) << child.output();
  }
  EXPECT_EQ(child.wait(), 0) << child.output();
  EXPECT_THAT(child.output(), ::testing::HasSubstr("end 0\n"));
}

// At all moments of finding its functions and putting the probes in.
TEST(MemoryLife, ATargetThatIsKilledWhileProbesArePutInDoesNoHarm) {
  STACKWATCH_REQUIRE_BPF();
  LiveMemory live(no_limit());
  for (int round = 0; round < 12; ++round) {
    Child child({test_program("restless"), "0"}, with_plugin());
    ASSERT_TRUE(child.wait_for("loaded 0\n", kPatienceS)) << child.output();
    auto probe = live.attach_only(child.key());
    for (int turn = 0; turn < round * 2; ++turn) {
      live.turn();
      pass(0.005);
    }
    child.signal(SIGKILL);
    EXPECT_EQ(child.wait(), 128 + SIGKILL);
    live.turn();
    counted_now(live, *probe);
  }
  live.control->wait_until_settled();
  // The next one is counted as if nothing had been.
  Child child({test_program("allocate_odd"), "nested"});
  ASSERT_TRUE(child.wait_for("ready 0\n", kPatienceS));
  auto probe = live.attach(child.key());
  EXPECT_EQ(step(child, "nested"), 1000);
  EXPECT_EQ(counted_now(live, *probe), 1000);
}

TEST(MemoryLife, OtherProcessesOfTheSameLibraryPayNothing) {
  STACKWATCH_REQUIRE_BPF();
  const double alone = ns_per_pair("0.5");
  LiveMemory live(no_limit());
  Child watched({test_program("mallocs"), "--seconds", "30"});
  pass(0.1);
  auto probe = live.attach(watched.key());
  // A probe costs 500 ns at the least.
  EXPECT_LT(ns_per_pair("0.5"), alone + 150);
}

TEST(MemoryLife, ProbesAreGoneWhenWeAreKilled) {
  STACKWATCH_REQUIRE_BPF();
  Child target({test_program("mallocs"), "--seconds", "12"});
  const ProcessKey process = target.key();
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t watcher = fork();
  if (watcher == 0) {
    try {
      LiveMemory live(no_limit());
      auto probe = live.attach(process);
      static_cast<void>(!write(ready[1], "y", 1));
      for (;;) pause();
    } catch (...) {
    }
    _exit(1);
  }
  close(ready[1]);
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  close(ready[0]);
  kill(watcher, SIGKILL);
  waitpid(watcher, nullptr, 0);
  target.wait();
  // It ran for some hundred milliseconds at 2,000 ns and then for seconds at 20 ns.
  EXPECT_LT(std::atof(target.output().c_str()), 500) << target.output();
}

TEST(MemoryLife, AFileThatIsDeletedIsProbed) {
  STACKWATCH_REQUIRE_BPF();
  const std::string copy = std::filesystem::temp_directory_path() / ("sw-deleted-" + std::to_string(getpid()));
  std::filesystem::copy_file(test_program("allocate_static"), copy);
  LiveMemory live(no_limit());
  Child child({copy, "malloc"});
  ASSERT_TRUE(child.wait_for("ready 0\n", kPatienceS));
  std::filesystem::remove(copy);
  auto probe = live.attach(child.key());
  EXPECT_EQ(step(child, "malloc"), 1000);
  EXPECT_EQ(counted_now(live, *probe), 1000);
}

TEST(MemoryLife, AFileOfAnotherMountNamespaceIsProbed) {
  STACKWATCH_REQUIRE_BPF();
  const std::string script =
      "mount -t tmpfs none /mnt && cp " + test_program("allocate_static") + " /mnt/hidden && exec /mnt/hidden malloc";
  Child child({"unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", script});
  if (!child.wait_for("ready 0\n", 10)) GTEST_SKIP() << "REQUIRES a mount namespace: " << child.output();
  LiveMemory live(no_limit());
  auto probe = live.attach(child.key());
  EXPECT_EQ(step(child, "malloc"), 1000);
  EXPECT_EQ(counted_now(live, *probe), 1000);
}

TEST(MemoryLife, AProgramWithoutAnAllocatorIsToldAsSuch) {
  STACKWATCH_REQUIRE_BPF();
  const std::string copy = std::filesystem::temp_directory_path() / ("sw-stripped-" + std::to_string(getpid()));
  const std::string command = "strip -o " + copy + " " + test_program("allocate_static");
  if (std::system(command.c_str()) != 0) GTEST_SKIP() << "REQUIRES strip";
  LiveMemory live(no_limit());
  Child child({copy, "malloc"});
  ASSERT_TRUE(child.wait_for("ready 0\n", kPatienceS));
  auto probe = live.attach_only(child.key());
  EXPECT_TRUE(live.wait_for(child.key(), MemoryPhase::kNothing));
  EXPECT_THAT(live.errors, ::testing::ElementsAre(::testing::HasSubstr("no allocator function")));
  std::filesystem::remove(copy);
}

}  // namespace
}  // namespace stackwatch
